"""Staff cannot act on users who hold permissions that they lack."""

import pytest
from django.contrib.auth.models import Group, Permission
from django.db import connection
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext

from conftest import PASSWORD, Client
from records.audit.models import AuditEntry
from records.tests.browser import opened_form
from users.models import Identity, RateLimit, Session, User

CLERK_PERMISSIONS = (
    "view_user", "change_user", "delete_user", "view_session", "delete_session", "view_identity", "delete_identity",
    "view_ratelimit", "delete_ratelimit", "view_group", "add_group", "change_group", "delete_group",
    "view_auditentry", "change_auditentry",
)  # fmt: skip
GUARDED_FIELDS = {
    "username": "taken-over",
    "email": "thief@example.com",
    "is_active": False,
    "is_verified": True,
    "is_staff": False,
}
PROFILE = {"name": "Ada", "gender": "Female", "age": 36, "bio": "Poetical science", "phone_number": "+49 30 123456"}


def grant_permissions(user, *codenames, group=False):
    permissions = Permission.objects.filter(codename__in=codenames)
    if group:
        holders = Group.objects.create(name=f"holders {user.pk}")
        holders.permissions.set(permissions)
        user.groups.add(holders)
    else:
        user.user_permissions.add(*permissions)
    return user


@pytest.fixture
def clerk(staff_with):
    return staff_with(*CLERK_PERMISSIONS)


@pytest.fixture
def browser(clerk):
    browser = Browser(raise_request_exception=False)
    browser.force_login(clerk.user)
    return browser


@pytest.fixture(params=["directly", "by group"])
def stronger(request, make_user):
    """Return a user with one permission that the clerk lacks."""
    user = make_user(is_staff=True, password=PASSWORD)
    return grant_permissions(user, "view_user", "change_stock", group=request.param == "by group")


@pytest.fixture
def equal(make_user):
    return grant_permissions(make_user(is_staff=True, password=PASSWORD), "view_user", "change_user", group=True)


def row_of(user):
    return User.all_objects.filter(pk=user.pk).values().get()


def url(user):
    return f"/api/v1/users/{user.pk}"


# The API


@pytest.mark.parametrize("method", ["patch", "put"])
@pytest.mark.parametrize("field", GUARDED_FIELDS)
def test_staff_cannot_change_credentials_of_stronger_staff(clerk, stronger, method, field):
    before = row_of(stronger)
    answer = getattr(clerk, method)(url(stronger), {"name": "Ada", field: GUARDED_FIELDS[field]})
    assert (answer.status_code, answer.headers["Content-Type"]) == (403, "application/problem+json")
    assert row_of(stronger) == before


@pytest.mark.parametrize("field", PROFILE)
def test_staff_change_the_profile_of_stronger_staff(clerk, stronger, field):
    answer = clerk.patch(url(stronger), {field: PROFILE[field], "username": stronger.username, "is_active": True})
    assert (answer.status_code, answer.json()[field]) == (200, PROFILE[field])


@pytest.mark.parametrize("field", GUARDED_FIELDS)
def test_staff_change_credentials_of_equal_staff(clerk, equal, field):
    assert clerk.patch(url(equal), {field: GUARDED_FIELDS[field]}).status_code == 200


def test_superuser_changes_any_user(superuser, stronger):
    assert superuser.patch(url(stronger), {"is_active": False}).status_code == 200


def test_staff_change_themselves(clerk):
    assert clerk.patch(url(clerk.user), {"username": "clerk-2"}).status_code == 200


def test_permissions_of_inactive_users_count(clerk, stronger):
    User.objects.filter(pk=stronger.pk).update(is_active=False)
    assert clerk.patch(url(stronger), {"is_active": True, "is_verified": True}).status_code == 403


def test_permissions_of_non_staff_count(clerk, make_user):
    person = grant_permissions(make_user(), "change_stock")
    assert clerk.patch(url(person), {"is_staff": True}).status_code == 403


def test_staff_cannot_delete_stronger_staff(clerk, stronger):
    assert clerk.delete(url(stronger)).status_code == 403
    assert not row_of(stronger)["deleted_at"]


def test_staff_cannot_restore_stronger_staff(clerk, stronger):
    stronger.delete()
    assert clerk.post(f"{url(stronger)}/restore").status_code == 403
    assert row_of(stronger)["deleted_at"]


def test_staff_delete_and_restore_equal_staff(clerk, equal):
    assert clerk.delete(url(equal)).status_code == 204
    assert clerk.post(f"{url(equal)}/restore").status_code == 200


@pytest.mark.parametrize("method", ["patch", "delete"])
def test_staff_cannot_change_or_delete_superusers(clerk, superuser, method):
    answer = getattr(clerk, method)(url(superuser.user), *([{"name": "Ada"}] if method == "patch" else []))
    assert (answer.status_code, answer.json()["detail"]) == (403, "Only a superuser may change a superuser.")


def test_profile_change_costs_the_same_for_any_user(clerk, equal, stronger):
    def count(user):
        with CaptureQueriesContext(connection) as queries:
            assert clerk.patch(url(user), {"age": 36}).status_code == 200
        return len(queries)

    assert count(stronger) == count(equal) == count(clerk.user)


# Undoing


def undo(clerk, entry):
    return clerk.post(f"/api/v1/admin/audit-logs/{entry.pk}/undo")


@pytest.mark.parametrize("field", GUARDED_FIELDS)
def test_staff_cannot_undo_changes_of_stronger_staff(clerk, superuser, stronger, field):
    value = not getattr(stronger, field) if field.startswith("is_") else GUARDED_FIELDS[field]
    superuser.patch(url(stronger), {field: value})
    before = row_of(stronger)
    assert undo(clerk, AuditEntry.objects.of_row(User, stronger.pk).latest("id")).status_code == 403
    assert row_of(stronger) == before


def test_staff_undo_profile_changes_of_stronger_staff(clerk, superuser, stronger):
    superuser.patch(url(stronger), {"name": "Ada"})
    assert undo(clerk, AuditEntry.objects.of_row(User, stronger.pk).latest("id")).status_code == 200


@pytest.mark.parametrize("act", ["create", "delete", "restore"])
def test_staff_cannot_undo_creation_or_deletion_of_stronger_staff(clerk, stronger, act):
    if act != "create":
        stronger.delete()
    if act == "restore":
        stronger.restore()
    assert undo(clerk, AuditEntry.objects.of_row(User, stronger.pk).filter(action=act).get()).status_code == 403


def test_undo_query_count_is_constant(clerk, superuser, make_user):
    def count(number):
        for _ in range(number):
            person = make_user()
            superuser.patch(url(person), {"is_active": False}, HTTP_X_REQUEST_ID=f"request-{number}")
        with CaptureQueriesContext(connection) as queries:
            body = {"request_id": f"request-{number}"}
            assert clerk.post("/api/v1/admin/audit-logs/undo", body).status_code == 200
        return len(queries)

    assert count(1) == count(7)


# The admin


def change(browser, user, **changes):
    """Submit the form of the user with these changes; None stands for an empty checkbox."""
    page = f"/admin/users/user/{user.pk}/change/"
    opened = opened_form(browser, page) if browser.get(page).status_code == 200 else {}
    fields = {"username": user.username, "email": user.email, "is_active": "on", "is_staff": "on"}
    form = {name: value for name, value in (opened | fields | changes).items() if value is not None}
    return browser.post(page, form)


@pytest.mark.parametrize(
    "changes", [{"email": "thief@example.com"}, {"username": "taken-over"}, {"is_active": None}, {"is_staff": None}]
)
def test_account_of_stronger_staff_cannot_be_changed_in_the_admin(browser, stronger, equal, changes):
    before = row_of(stronger)
    assert change(browser, stronger, **changes).status_code == 403
    assert row_of(stronger) == before
    assert change(browser, equal, **changes).status_code == 302


def test_password_of_stronger_staff_cannot_be_set_in_the_admin(browser, stronger, equal):
    form = {"password1": "another-battery-9", "password2": "another-battery-9", "usable_password": "true"}
    assert browser.get(f"/admin/users/user/{stronger.pk}/password/").status_code == 403
    assert browser.post(f"/admin/users/user/{stronger.pk}/password/", form).status_code == 403
    assert User.objects.get(pk=stronger.pk).check_password(PASSWORD)
    assert browser.post(f"/admin/users/user/{equal.pk}/password/", form).status_code == 302


def test_stronger_staff_cannot_be_deleted_in_the_admin(browser, stronger, equal):
    assert browser.post(f"/admin/users/user/{stronger.pk}/delete/", {"post": "yes"}).status_code == 403
    assert not row_of(stronger)["deleted_at"]
    assert browser.post(f"/admin/users/user/{equal.pk}/delete/", {"post": "yes"}).status_code == 302


def act(browser, rows, action, model="users/user"):
    selected = {"action": action, "_selected_action": [row.pk for row in rows], "post": "yes"}
    return browser.post(f"/admin/{model}/?deleted=1" if "restore" in action else f"/admin/{model}/", selected)


@pytest.mark.parametrize("is_superuser", [False, True])
@pytest.mark.parametrize("action", ["delete_selected", "restore_selected"])
def test_selection_with_a_stronger_user_is_refused(browser, equal, make_user, is_superuser, action):
    stronger = grant_permissions(make_user(is_superuser=is_superuser), "change_stock")
    rows = [equal, stronger]
    make_user(is_superuser=True)  # the last superuser cannot be deleted
    if action == "restore_selected":
        User.objects.filter(pk__in=[row.pk for row in rows]).delete()
    before = [row_of(row) for row in rows]
    assert act(browser, rows, action).status_code == 403
    assert [row_of(row) for row in rows] == before
    assert act(browser, rows[:1], action).status_code == 302
    assert row_of(equal) != before[0]


@pytest.mark.parametrize("action", ["delete_selected", "restore_selected"])
def test_selection_query_count_is_constant(browser, make_user, action):
    def count(number):
        rows = [make_user() for _ in range(number)]
        if action == "restore_selected":
            User.objects.filter(pk__in=[row.pk for row in rows]).delete()
        with CaptureQueriesContext(connection) as queries:
            assert act(browser, rows, action).status_code == 302
        return len(queries)

    count(1)
    # Django's own log of the admin has one INSERT more where several rows are deleted together.
    assert abs(count(2) - count(9)) <= 1


@pytest.mark.parametrize("field", ["is_superuser", "groups", "user_permissions"])
def test_staff_cannot_grant_permissions_in_the_admin(browser, equal, stronger, field):
    values = {
        "is_superuser": "on",
        "groups": Group.objects.create(name="all").pk,
        "user_permissions": Permission.objects.get(codename="change_stock").pk,
    }
    assert change(browser, equal, phone_number="+49 30 1234", **{field: values[field]}).status_code == 302
    equal = User.objects.get(pk=equal.pk)
    assert (equal.is_superuser, equal.user_permissions.exists()) == (False, False)
    assert not equal.groups.filter(name="all").exists()


# Rows that belong to an account


@pytest.fixture(params=["session", "identity", "ratelimit", "guesses"])
def make_account_row(request):
    """Return a function that creates a row of a user's account; it returns the model name and the row."""

    def make(user):
        match request.param:
            case "session":
                Client(user)
                return "session", Session.objects.filter(user=user).latest("created_at")
            case "identity":
                return "identity", Identity.objects.create(user=user, provider="example", subject=str(user.pk))
        name = "login-account" if request.param == "ratelimit" else "change-password"
        row, _ = RateLimit.objects.get_or_create(key=f"{name}:{user.pk}", defaults={"expires_at": "2100-01-01T00:00Z"})
        return "ratelimit", row

    return make


def test_account_rows_of_stronger_staff_cannot_be_deleted(browser, stronger, equal, make_account_row):
    kind, row = make_account_row(stronger)
    page = f"/admin/users/{kind}/{str(row.pk).replace(':', '_3A')}/delete/"
    _, other = make_account_row(equal)
    assert browser.post(page, {"post": "yes"}).status_code == 403
    assert act(browser, [other, row], "delete_selected", f"users/{kind}").status_code == 403
    assert type(row).objects.filter(pk__in=[row.pk, other.pk]).count() == 2
    assert act(browser, [other], "delete_selected", f"users/{kind}").status_code == 302
    assert not type(row).objects.filter(pk=other.pk).exists()


def test_sessions_of_stronger_staff_cannot_be_ended(browser, stronger, equal):
    for user in (stronger, equal):
        Client(user)
    sessions = [Session.objects.get(user=user) for user in (stronger, equal)]
    assert act(browser, sessions, "end", "users/session").status_code == 403
    assert Session.objects.alive().filter(pk__in=[session.pk for session in sessions]).count() == 2
    assert act(browser, sessions[1:], "end", "users/session").status_code == 302


def test_staff_delete_rate_limit_of_an_ip_address(browser, stronger):
    row = RateLimit.objects.create(key="login-address:2001:db8::/64", expires_at="2100-01-01T00:00Z")
    assert act(browser, [row], "delete_selected", "users/ratelimit").status_code == 302


def test_session_deletion_query_count_is_constant(browser, make_user):
    def count(number):
        for user in (users := [make_user() for _ in range(number)]):
            Client(user)
        rows = Session.objects.filter(user__in=users)
        with CaptureQueriesContext(connection) as queries:
            assert act(browser, rows, "delete_selected", "users/session").status_code == 302
        return len(queries)

    count(1)
    assert abs(count(2) - count(9)) <= 1


# Groups


def save_group(browser, group, *codenames):
    permission_ids = list(Permission.objects.filter(codename__in=codenames).values_list("pk", flat=True))
    page = f"/admin/auth/group/{f'{group.pk}/change' if group else 'add'}/"
    return browser.post(page, opened_form(browser, page) | {"name": "clerks", "permissions": permission_ids})


def test_staff_give_a_group_only_permissions_they_hold(browser, clerk):
    group = Group.objects.create(name="clerks")
    clerk.user.groups.add(group)
    assert save_group(browser, group, "change_user", "change_stock").status_code == 200  # the form with an error
    assert not group.permissions.exists()
    assert save_group(browser, group, "change_user").status_code == 302
    assert [permission.codename for permission in group.permissions.all()] == ["change_user"]


def test_staff_add_groups_only_with_permissions_they_hold(browser):
    assert save_group(browser, None, "change_stock").status_code == 200
    assert save_group(browser, None, "change_user").status_code == 302


@pytest.mark.parametrize("why", ["permission", "member"])
def test_group_with_further_permissions_or_members_is_read_only(browser, make_user, why):
    group = Group.objects.create(name="others")
    if why == "permission":
        group.permissions.set(Permission.objects.filter(codename="change_stock"))
    else:
        grant_permissions(make_user(), "change_stock").groups.add(group)
    other = Group.objects.create(name="clerks")
    assert save_group(browser, group).status_code == 403
    assert browser.post(f"/admin/auth/group/{group.pk}/delete/", {"post": "yes"}).status_code == 403
    assert act(browser, [other, group], "delete_selected", "auth/group").status_code == 403
    assert Group.objects.filter(name__in=["others", "clerks"]).count() == 2
    assert act(browser, [other], "delete_selected", "auth/group").status_code == 302


def test_superuser_changes_any_group(superuser):
    browser = Browser()
    browser.force_login(superuser.user)
    group = Group.objects.create(name="others")
    assert save_group(browser, group, "change_stock").status_code == 302
    assert group.permissions.exists()

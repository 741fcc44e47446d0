"""Requests to every URL of the admin as every persona, with one transaction per request as on a server."""

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.test import Client
from django.urls import URLResolver, get_resolver

from records.audit.models import AuditEntry
from records.tests.browser import opened_form
from stocks.models import Stock
from users.models import LAST_SUPERUSER_MESSAGE, Identity, QueuedMail, RateLimit, Session, User

# Inside the transaction of an ordinary test, `select_for_update` outside of `atomic` would not fail.
pytestmark = pytest.mark.django_db(transaction=True)

USERS, STOCKS, LOG = "/admin/users/user/", "/admin/stocks/stock/", "/admin/records/auditentry/"
FAR_FUTURE = "2999-01-01T00:00:00Z"
TIME_FIELDS = ("created_at", "due_at", "expires_at")
READ_ONLY = {"records_auditentry", "users_session", "users_identity", "users_ratelimit", "users_queuedmail"}


@pytest.fixture
def client_of(make_user):
    def make(persona: str) -> Client:
        client = Client(raise_request_exception=False)
        if persona != "anonymous":
            client.user = make_user(is_staff=True, is_superuser=persona == "superuser", password="correct-horse-7")
            client.force_login(client.user)
        return client

    return make


@pytest.fixture
def superuser_client(client_of):
    return client_of("superuser")


@pytest.fixture
def rows(make_user, make_stock):
    """Return a row of every model in the admin, by model."""
    user = make_user()
    stock = make_stock(user)
    created = [
        user,
        stock,
        Session.objects.create(user=user, expires_at=FAR_FUTURE),
        Identity.objects.create(user=user, provider="example", subject="7"),
        RateLimit.objects.create(key="login-account:7", expires_at=FAR_FUTURE),
        QueuedMail.objects.create(
            kind="notice", user_id=user.pk, to="a@example.com", **dict.fromkeys(TIME_FIELDS, FAR_FUTURE)
        ),
        Group.objects.create(name="Clerks"),
        AuditEntry.objects.of_row(Stock, stock.pk).get(),
    ]
    by_model = {type(row): row for row in created}
    assert by_model.keys() == admin.site._registry.keys()
    return by_model


def routes(resolver: URLResolver, prefix: str = "") -> list[str]:
    """Return every route below `resolver`, such as `stocks/stock/<path:object_id>/change/`."""
    all_routes = []
    for pattern in resolver.url_patterns:
        route = prefix + str(pattern.pattern)
        all_routes += routes(pattern, route) if isinstance(pattern, URLResolver) else [route]
    return all_routes


def admin_paths(rows) -> list[str]:
    [resolver] = [item for item in get_resolver().url_patterns if getattr(item, "namespace", None) == "admin"]
    labels = {model._meta.app_label for model in rows}
    paths = [f"/admin/{label}/" for label in labels]
    for route in routes(resolver):
        if route.startswith("^(?P<app_label>"):
            continue  # the index pages of the apps, listed above
        for model, row in rows.items():
            if route.startswith(f"{model._meta.app_label}/{model._meta.model_name}/"):
                route = route.replace("<path:object_id>", quote(str(row.pk))).replace("<id>", str(row.pk))
        route = route.replace("<path:content_type_id>", str(ContentType.objects.get_for_model(Stock).pk))
        route = route.replace("<path:object_id>", str(rows[Stock].pk)).replace("(?P<url>.*)$", "no/such/page")
        assert not set("<>?") & set(route), route
        paths.append(f"/admin/{route}")
    return [path for path in paths if path != "/admin/logout/"]


@pytest.mark.parametrize("persona", ["superuser", "staff", "anonymous"])
@pytest.mark.parametrize("method", ["get", "head", "options", "post", "put"])
def test_no_admin_url_crashes(rows, client_of, persona, method):
    paths, client = admin_paths(rows), client_of(persona)
    codes = {path: getattr(client, method)(path).status_code for path in paths}
    assert len(codes) > 40
    assert {path: code for path, code in codes.items() if code >= 500} == {}


def test_superuser_can_read_every_page(rows, superuser_client):
    closed = {path for path in admin_paths(rows) if superuser_client.get(path).status_code not in {200, 302}}
    stock = f"/admin/r/{ContentType.objects.get_for_model(Stock).pk}/{rows[Stock].pk}/"  # no page of its own
    entry = f"{LOG}{rows[AuditEntry].pk}/delete/"
    add = {f"/admin/{name.replace('_', '/')}/add/" for name in READ_ONLY}
    assert closed == {"/admin/autocomplete/", "/admin/no/such/page", stock, entry, *add}


def test_anonymous_can_read_only_the_login_form(rows, client_of):
    client = client_of("anonymous")
    assert [path for path in admin_paths(rows) if client.get(path).status_code == 200] == ["/admin/login/"]


def test_user_is_deleted_and_restored(superuser_client, make_user, make_stock):
    user = make_user()
    stock = make_stock(user)
    page = f"{USERS}{user.pk}/delete/"
    assert "Stocks: 1" in superuser_client.get(page).content.decode()
    assert superuser_client.post(page, {"post": "yes"}).status_code == 302
    assert not User.objects.filter(pk=user.pk).exists()
    superuser_client.post(f"{USERS}?deleted=1", {"action": "restore_selected", "_selected_action": user.pk})
    assert User.objects.filter(pk=user.pk).exists()
    assert Stock.objects.filter(pk=stock.pk).exists()


def test_deletion_of_several_users_is_undone(superuser_client, make_user):
    people = [make_user() for _ in range(3)]
    selected = {"action": "delete_selected", "_selected_action": [user.pk for user in people]}
    assert superuser_client.post(USERS, selected).status_code == 200
    assert superuser_client.post(USERS, selected | {"post": "yes"}).status_code == 302
    assert not User.objects.filter(pk__in=selected["_selected_action"]).exists()
    entry = AuditEntry.objects.of_row(User, people[0].pk).latest("id")
    answer = superuser_client.post(LOG, {"action": "undo_requests", "_selected_action": entry.pk}, follow=True)
    assert "Reverted 3 rows." in answer.content.decode()
    assert User.objects.filter(pk__in=selected["_selected_action"]).count() == 3


@pytest.mark.parametrize("model", [Stock, Session, Identity, RateLimit, QueuedMail, Group])
def test_row_of_every_other_model_is_deleted(superuser_client, rows, model):
    page = f"/admin/{model._meta.app_label}/{model._meta.model_name}/{quote(str(rows[model].pk))}/delete/"
    assert superuser_client.get(page).status_code == 200
    assert superuser_client.post(page, {"post": "yes"}).status_code == 302
    assert not model.objects.filter(pk=rows[model].pk).exists()


def test_last_superuser_cannot_be_deleted_or_deactivated(superuser_client):
    page = f"{USERS}{superuser_client.user.pk}/change/"
    form = opened_form(superuser_client, page)
    deactivated = {name: value for name, value in form.items() if name != "is_active"}
    answers = [
        superuser_client.get(f"{USERS}{superuser_client.user.pk}/delete/"),
        superuser_client.post(f"{USERS}{superuser_client.user.pk}/delete/", {"post": "yes"}),
        superuser_client.post(page, deactivated),
    ]
    assert [LAST_SUPERUSER_MESSAGE in answer.content.decode() for answer in answers] == [True] * 3
    assert User.objects.superusers().get() == superuser_client.user


def test_last_superuser_check_works_without_a_transaction(superuser_client):
    assert User.objects.filter(pk=superuser_client.user.pk).includes_all_superusers()
    superuser_client.user.is_active = False
    with pytest.raises(ValidationError, match="last active superuser"):
        superuser_client.user.full_clean()
    with pytest.raises(ValidationError, match="last active superuser"):
        superuser_client.user.save()


def test_session_is_ended(superuser_client, rows):
    superuser_client.post("/admin/users/session/", {"action": "end", "_selected_action": rows[Session].pk})
    assert Session.objects.get(pk=rows[Session].pk).revoked_at


@pytest.mark.parametrize(("path", "is_own"), [("password_change/", True), ("users/user/{}/password/", False)])
def test_password_is_changed(superuser_client, make_user, path, is_own):
    user = superuser_client.user if is_own else make_user()
    form = {"old_password": "correct-horse-7", "new_password1": "other-horse-8", "new_password2": "other-horse-8"}
    form |= {"password1": "other-horse-8", "password2": "other-horse-8", "usable_password": "true"}
    assert superuser_client.post(f"/admin/{path.format(user.pk)}", form).status_code == 302
    assert User.objects.get(pk=user.pk).check_password("other-horse-8")


def test_login_and_logout(superuser_client):
    superuser_client.post("/admin/logout/")
    assert superuser_client.get("/admin/").status_code == 302
    superuser_client.post("/admin/login/", {"username": superuser_client.user.username, "password": "correct-horse-7"})
    assert superuser_client.get("/admin/").status_code == 200


def test_failed_action_is_rolled_back_with_its_log_entries(superuser_client, make_user, monkeypatch):
    """A request is one transaction: a failed action is neither done nor logged."""
    user = make_user()

    def fail(*args, **kwargs):
        raise RuntimeError

    monkeypatch.setattr("records.admin.LargeTableAdmin.message_user", fail)
    for path, body in (
        (USERS, {"action": "delete_selected", "_selected_action": user.pk, "post": "yes"}),
        (f"{USERS}{user.pk}/delete/", {"post": "yes"}),
    ):
        assert superuser_client.post(path, body).status_code == 500
    assert User.objects.filter(pk=user.pk).exists()
    assert not LogEntry.objects.exists()

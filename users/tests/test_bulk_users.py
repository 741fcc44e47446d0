"""Creating, changing and deleting many users by one request, with all that follows from it."""

import pytest
from django.contrib.auth.models import Permission
from django.core import mail

from conftest import PASSWORD, Client
from records.audit.models import AuditEntry
from users.models import User

USERS = "/api/v1/users"
STRONG_PASSWORD = "glacier-Waltz-52-marble"
REQUEST = {"HTTP_X_REQUEST_ID": "many-users"}


def errors(answer):
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json"), answer.content
    return answer.json()["errors"]


def items(answer):
    assert answer.status_code in {200, 201}, answer.content
    return answer.json()["items"]


def statuses(answer):
    assert answer.status_code == 207, answer.content
    return [result["status"] for result in answer.json()["results"]]


def account(name, **fields):
    return {"username": name, "email": f"{name}@example.com"} | fields


# Creation


def test_staff_create_users(staff):
    created = items(staff.post(USERS, [account("ada", age=36), {"name": "Grace Hopper"}]))
    assert [(row["username"], row["email"]) for row in created] == [
        ("ada", "ada@example.com"), ("grace-hopper", None),
    ]  # fmt: skip
    assert all(row.items() <= staff.get(f"{USERS}/{row['id']}").json().items() for row in created)
    assert not User.objects.get(username="ada").has_usable_password()


def test_usernames_are_derived_from_equal_names(staff, make_user):
    make_user(username="John-Doe")
    rows = [{"name": "John Doe"}, account("john-doe-3"), {"name": "John Doe"}, {"name": "Eve"}, {"name": "John Doe"}]
    names = [row["username"] for row in items(staff.post(USERS, rows))]
    assert names == ["john-doe-2", "john-doe-3", "john-doe-4", "eve", "john-doe-5"]


def test_taken_values_are_refused_within_the_request_and_against_the_database(staff, make_user):
    make_user(username="taken", email="taken@example.com").delete()
    body = [
        account("Taken"), account("one", email="TAKEN@example.com"), account("two"), account("TWO", email="2@x.org"),
        account("three", email="TWO@example.com"), account("one"),
    ]  # fmt: skip
    expected = {
        "0.username": ["Username already in use"],
        "0.email": ["Email already in use"],
        "1.email": ["Email already in use"],
        "3.username": ["Username already in use"],
        "4.email": ["Email already in use"],
    }
    assert errors(staff.post(USERS, body)) == expected
    # The username of a row that is not stored is free.
    assert statuses(staff.post(f"{USERS}?atomic=false", body)) == [400, 400, 201, 400, 400, 201]


def test_all_errors_of_users_are_returned_at_once(staff):
    body = [{"gender": "Male"}, {"name": "lower"}, account("okay"), {"name": "Eve", "is_superuser": True}]
    assert errors(staff.post(USERS, body)) == {
        "0.username": ["This field is required."],
        "0.email": ["This field is required."],
        "1.name": ["Name must start with a capital letter"],
        "3.is_superuser": ["This field is read-only."],
    }


def test_users_with_passwords_can_log_in(staff, anonymous):
    staff.post(USERS, [account("ada", password=STRONG_PASSWORD), account("bea")])
    login = {"username": "ada", "password": STRONG_PASSWORD}
    assert anonymous.post("/api/v1/auth/login", login).status_code == 200
    assert errors(staff.post(USERS, [account("cleo", password="12345678")]))["0.password"]


def test_number_of_passwords_is_limited(staff):
    body = [account(f"user{number}", password=STRONG_PASSWORD) for number in range(12)] + [account("last")]
    message = ["At most 10 rows of a request may have a password."]
    assert errors(staff.post(USERS, body)) == {"10.password": message, "11.password": message}
    assert statuses(staff.post(f"{USERS}?atomic=false", body)) == [201] * 10 + [400] * 2 + [201]


def test_others_create_no_users(owner):
    assert owner.post(USERS, [account("ada")]).status_code == 403


# Changes


def test_user_changes_their_own_row(owner, stranger):
    body = [{"id": owner.user.pk, "name": "Ada Lovelace"}]
    assert [row["name"] for row in items(owner.patch(USERS, body))] == ["Ada Lovelace"]
    assert errors(owner.patch(USERS, [*body, {"id": stranger.user.pk, "name": "Eve"}])) == {
        "1.id": [f"User with ID {stranger.user.pk} not found"]
    }
    assert errors(owner.patch(USERS, [{"id": owner.user.pk, "is_staff": True}])) == {
        "0.is_staff": ["This field is read-only."]
    }


@pytest.mark.parametrize("value", ["new@example.com", None])
def test_own_address_is_not_changed_together_with_others(staff, make_user, value):
    body = [{"id": staff.user.pk, "email": value}, {"id": make_user().pk, "age": 20}]
    message = f"Use PATCH /users/{staff.user.pk} to change your own e-mail address."
    assert errors(staff.patch(USERS, body)) == {"0.email": [message]}
    body[0]["email"] = staff.user.email
    assert len(items(staff.patch(USERS, body))) == 2
    assert list(errors(staff.patch(USERS, [{"id": staff.user.pk, "current_password": PASSWORD}]))) == [
        "0.current_password"
    ]


def test_addresses_that_staff_change_are_not_verified(staff, make_user):
    users = [make_user(is_verified=True) for _ in range(3)]
    body = [
        {"id": users[0].pk, "email": "x@example.com"}, {"id": users[1].pk, "email": users[1].email, "age": 5},
        {"id": users[2].pk, "email": "z@example.com", "is_verified": True},
    ]  # fmt: skip
    assert [row["is_verified"] for row in items(staff.patch(USERS, body))] == [False, True, True]


def test_values_of_other_rows_of_the_request_stay_taken(staff, make_user):
    first, second = make_user(username="first"), make_user(username="second")
    body = [{"id": first.pk, "username": "second"}, {"id": second.pk, "username": "third"}]
    assert errors(staff.patch(USERS, body)) == {"0.username": ["Username already in use"]}
    assert statuses(staff.patch(f"{USERS}?atomic=false", body)) == [400, 200]
    assert len(items(staff.patch(USERS, body))) == 2


def test_owners_are_notified_of_changes(staff, make_user):
    users = [make_user(username=f"name{number}", email=f"n{number}@example.com") for number in range(3)]
    mail.outbox.clear()
    staff.patch(USERS, [
        {"id": users[0].pk, "email": "new@example.com"}, {"id": users[1].pk, "username": "renamed"},
        {"id": users[2].pk, "age": 50},
    ])  # fmt: skip
    assert sorted(message.to[0] for message in mail.outbox) == ["n0@example.com", "n1@example.com", "new@example.com"]


def test_requested_change_of_address_is_dropped(staff, make_user):
    user = make_user(pending_email="pending@example.com")
    staff.patch(USERS, [{"id": user.pk, "email": "new@example.com"}])
    user.refresh_from_db()
    assert (user.email, user.pending_email) == ("new@example.com", None)


def test_sessions_of_deactivated_users_end(staff, make_user):
    clients = [Client(make_user()) for _ in range(3)]
    body = [{"id": client.user.pk, "is_active": number == 2} for number, client in enumerate(clients)]
    assert len(items(staff.patch(USERS, body))) == 3
    assert [client.get(f"{USERS}/me").status_code for client in clients] == [401, 401, 200]
    staff.patch(USERS, [{"id": client.user.pk, "is_active": True} for client in clients])
    assert [client.get(f"{USERS}/me").status_code for client in clients] == [401, 401, 200]


def test_last_superuser_keeps_their_rights(superuser, make_user):
    other = make_user(is_staff=True, is_superuser=True)
    body = [{"id": other.pk, "is_active": False}, {"id": superuser.user.pk, "is_superuser": False}]
    message = "This is the last active superuser: nobody could manage the service without one."
    assert errors(superuser.patch(USERS, body)) == {"1": [message]}
    assert errors(superuser.delete(USERS, [other.pk, superuser.user.pk])) == {"1": [message]}
    answer = superuser.patch(f"{USERS}?atomic=false", body)
    assert statuses(answer) == [200, 400]
    assert answer.json()["results"][1]["errors"] == {"non_field_errors": [message]}


# Privileges


@pytest.fixture
def stronger(make_user):
    user = make_user(is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="change_group"))
    return user


def test_staff_change_only_the_profile_of_stronger_users(staff, superuser, stronger, make_user):
    weak = make_user()
    body = [
        {"id": weak.pk, "email": "weak@example.com"}, {"id": stronger.pk, "email": "strong@example.com"},
        {"id": superuser.user.pk, "age": 5},
    ]  # fmt: skip
    refusals = {
        "1.id": ["This person has permissions that you lack: you may change their profile only."],
        "2.id": ["Only a superuser may change a superuser."],
    }
    assert errors(staff.patch(USERS, body)) == refusals
    assert statuses(staff.patch(f"{USERS}?atomic=false", body)) == [200, 403, 403]
    assert len(items(staff.patch(USERS, [{"id": weak.pk, "age": 4}, {"id": stronger.pk, "age": 5}]))) == 2


def test_staff_delete_only_weaker_users(staff, superuser, stronger, make_user):
    weak = make_user()
    keys = [weak.pk, stronger.pk, superuser.user.pk]
    assert list(errors(staff.delete(USERS, keys))) == ["1.id", "2.id"]
    assert statuses(staff.delete(f"{USERS}?atomic=false&reason=left", keys)) == [204, 403, 403]
    assert User.all_objects.get(pk=weak.pk).deletion_reason == "left"


def test_users_cannot_delete_themselves_by_an_array(owner):
    assert owner.delete(USERS, [owner.user.pk]).status_code == 403


# Deletion and undo


def test_stocks_are_deleted_with_their_users(staff, owner, make_stock):
    make_stock(owner.user)
    answer = staff.delete(USERS, [owner.user.pk])
    assert (answer.status_code, answer.json()) == (200, {"deleted": 1})
    assert staff.get("/api/v1/stocks", {"user_id": owner.user.pk}).json()["total"] == 0


def test_changes_of_users_are_undone_at_once(staff, superuser, make_user):
    users = [make_user(age=number) for number in range(3)]
    staff.patch(
        USERS, [{"id": user.pk, "age": 50 + user.age, "username": f"user-{user.pk}"} for user in users], **REQUEST
    )
    assert AuditEntry.objects.filter(request_id="many-users").count() == 3
    answer = superuser.post("/api/v1/admin/audit-logs/undo", {"request_id": "many-users"})
    assert (answer.status_code, answer.json()["undone"]) == (200, 3)
    assert [User.objects.get(pk=user.pk).username for user in users] == [user.username for user in users]


def test_creation_of_users_is_undone_at_once(staff, superuser):
    staff.post(USERS, [account("ada"), {"name": "Eve"}], **REQUEST)
    superuser.post("/api/v1/admin/audit-logs/undo", {"request_id": "many-users"})
    assert not User.objects.filter(username__in=["ada", "eve"]).exists()

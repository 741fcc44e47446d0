import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.validators import UniqueValidator

from conftest import PASSWORD, Client, lasting_headers
from records.db.constraints import Unique
from stocks.models import Stock
from users.models import Session, User

URL = "/api/v1/users"
FIELDS = [
    "id", "username", "email", "name", "gender", "age", "bio", "phone_number", "is_active", "is_verified", "is_staff",
    "is_superuser", "oauth_provider", "created_at", "updated_at", "version",
]  # fmt: skip
TAKEN_VALUES = [
    ("email", "taken@example.com", "Email already in use"),
    ("email", "TAKEN@Example.COM", "Email already in use"),
    ("username", "taken", "Username already in use"),
    ("username", "TAKEN", "Username already in use"),
]


def url(client):
    return f"{URL}/{client.user.pk}"


def stored(client):
    return User.all_objects.filter(pk=client.user.pk).values().get()


def query_count(client, path):
    with CaptureQueriesContext(connection) as queries:
        assert client.get(path).status_code == 200
    return len(queries)


@pytest.fixture
def lost_race(monkeypatch):
    """Disable validation, so that only the constraints of the database refuse a duplicate."""
    monkeypatch.setattr(Unique, "validate", lambda *args, **kwargs: None)
    monkeypatch.setattr(UniqueValidator, "__call__", lambda *args: None)


# Visibility


def test_anonymous_cannot_read_users(anonymous, make_user):
    user = make_user()
    for path in (URL, f"{URL}/{user.pk}", f"{URL}/me"):
        answer = anonymous.get(path)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_users_without_permission_see_only_themselves(owner, stranger, staff_with):
    for client in (owner, stranger, staff_with()):
        assert [row["id"] for row in client.get(URL).json()["items"]] == [client.user.pk]


def test_staff_list_all_users(staff, owner, stranger):
    answer = staff.get(URL, {"size": 200}).json()
    assert {owner.user.pk, stranger.user.pk, staff.user.pk} <= {row["id"] for row in answer["items"]}
    assert answer["total"] == User.objects.count()


def test_list_shows_exactly_the_fields_of_a_user(owner):
    assert list(owner.get(URL).json()["items"][0]) == FIELDS


def test_responses_contain_no_password(make_user, superuser):
    user = make_user(password=PASSWORD)
    for path in (URL, f"{URL}/{user.pk}", f"{URL}?search={user.username}"):
        text = superuser.get(path).content.decode()
        assert user.username in text
        assert "password" not in text
        assert user.password not in text


def test_timestamps_are_utc(owner):
    row = owner.get(f"{URL}/me").json()
    assert row["created_at"].endswith("Z")
    assert row["updated_at"].endswith("Z")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", ""),
        ("put", ""),
        ("patch", ""),
        ("delete", ""),
        ("post", "/restore"),
        ("get", "/stocks"),
        ("post", "/stocks"),
        ("get", "/portfolio"),
    ],
)
def test_stranger_gets_the_same_404_for_existing_and_missing_users(stranger, owner, method, path):
    def send():
        headers = {"X-Request-ID": "same"}
        return getattr(stranger, method)(url(owner) + path, headers=headers)

    invisible = send()
    User.all_objects.filter(pk=owner.user.pk).purge()
    missing = send()
    assert invisible.json()["detail"] == f"User with ID {owner.user.pk} not found"
    assert (invisible.status_code, invisible.content) == (404, missing.content)
    assert lasting_headers(invisible) == lasting_headers(missing)


@pytest.mark.parametrize("user_id", ["0", "abc", "-1", "1.5", "9" * 31, "%00", "é", "9223372036854775808"])
def test_invalid_id_is_not_found(staff, user_id):
    answer = staff.get(f"{URL}/{user_id}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")


def test_list_query_count_is_constant(staff, make_user):
    make_user()
    count = query_count(staff, f"{URL}?size=200")
    for _ in range(20):
        make_user()
    assert query_count(staff, f"{URL}?size=200") == count <= 3


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("username=GRACE-H", {"grace-h"}),
        ("email=Grace@Example.com", {"grace-h"}),
        ("gender=Female", {"grace-h"}),
        ("gender=Male", {"alan-t"}),
        ("age=85", {"grace-h"}),
        ("age__gte=42&age__lte=85", {"grace-h", "alan-t"}),
        ("age__gte=42&age__lte=84", {"alan-t"}),
        ("is_active=false", {"alan-t"}),
        ("is_verified=true", {"grace-h"}),
        ("is_staff=true&username=grace-h", set()),
        ("is_superuser=true", set()),
        ("oauth_provider=google", {"grace-h"}),
        ("created_at__gte=2000-01-01T00:00:00Z&is_verified=true", {"grace-h"}),
        ("created_at__lte=2000-01-01T00:00:00Z", set()),
        ("created_at__date=2000-01-01", set()),
        ("is_deleted=true", {"gone-already"}),
        ("search=HOPPER", {"grace-h"}),
        ("search=alan@", {"alan-t"}),
        ("search=gone-already", set()),
    ],
)
def test_filter(staff, make_user, query, expected):
    User.objects.exclude(pk=staff.user.pk).purge()
    grace = {"name": "Grace Hopper", "gender": "Female", "age": 85, "is_verified": True, "oauth_provider": "google"}
    make_user(username="grace-h", email="grace@example.com", **grace)
    make_user(username="alan-t", email="alan@example.com", gender="Male", age=42, is_active=False)
    make_user(username="gone-already", gender="Male").delete()
    items = staff.get(f"{URL}?{query}").json()["items"]
    assert {row["username"] for row in items} == expected


@pytest.mark.parametrize("key", ["id", "username", "email", "name", "age", "created_at"])
@pytest.mark.parametrize("sign", ["", "-"])
def test_sort(staff, make_user, key, sign):
    for number in (2, 3, 1):
        make_user(username=f"sort{number}", email=f"{4 - number}@sort.example", name=f"Sort{number}", age=number)
    items = staff.get(f"{URL}?search=sort&sort_by={sign}{key}").json()["items"]
    values = [row[key] for row in items]
    assert len(values) == 3
    assert values == sorted(values, reverse=sign == "-")


def test_owner_cannot_list_deleted_users(owner):
    answer = owner.get(f"{URL}?is_deleted=true")
    assert answer.status_code == 400
    assert list(answer.json()["errors"]) == ["is_deleted"]


def test_staff_list_deleted_users_with_deletion_details(staff, owner):
    staff.delete(f"{url(owner)}?reason=asked+for+it")
    [row] = staff.get(f"{URL}?is_deleted=true").json()["items"]
    assert (row["id"], row["is_deleted"], row["deletion_reason"]) == (owner.user.pk, True, "asked for it")
    assert (row["deleted_by"], row["deleted_at"][-1]) == (staff.user.pk, "Z")


# Detail


def test_detail_includes_the_stocks(owner, make_stock):
    stock = make_stock(owner.user)
    row = owner.get(url(owner)).json()
    assert list(row) == [*FIELDS, "stocks", "stocks_total"]
    assert row["stocks"] == [owner.get(f"/api/v1/stocks/{stock.pk}").json()]
    assert row["stocks_total"] == 1


def test_detail_of_a_user_without_stocks(owner):
    row = owner.get(url(owner)).json()
    assert (row["stocks"], row["stocks_total"]) == ([], 0)


def test_detail_shows_the_first_hundred_stocks(staff, owner, stranger, make_stock):
    make_stock(stranger.user)
    fields = {"owner": owner.user, "name": "AAPL", "price": 1, "quantity": 1}
    ids = sorted(stock.pk for stock in Stock.objects.bulk_create([Stock(**fields) for _ in range(103)]))
    Stock.objects.filter(pk=ids[0]).delete()
    for client in (owner, staff):
        row = client.get(url(owner)).json()
        assert [stock["id"] for stock in row["stocks"]] == ids[1:101]
        assert row["stocks_total"] == 102


def test_detail_query_count_is_constant(staff, owner, make_stock):
    make_stock(owner.user)
    one = query_count(staff, url(owner))
    for _ in range(20):
        make_stock(owner.user)
    assert query_count(staff, url(owner)) == one <= 4


@pytest.mark.parametrize(
    "fields", ["id", "username,email", "stocks_total", "stocks,id", "name,stocks,stocks_total,version"]
)
def test_detail_returns_only_the_requested_fields(owner, make_stock, fields):
    make_stock(owner.user)
    assert list(owner.get(url(owner), {"fields": fields}).json()) == fields.split(",")


@pytest.mark.parametrize("fields", ["usernam", "password", "id,", "deleted_at", "user_permissions"])
def test_detail_refuses_unknown_fields(owner, fields):
    answer = owner.get(url(owner), {"fields": fields})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["fields"])


def test_unknown_field_suggests_a_close_one(owner):
    answer = owner.get(url(owner), {"fields": "usernam"})
    assert "Did you mean 'username'?" in answer.json()["errors"]["fields"][0]


@pytest.mark.parametrize("path", ["", "/me", "/{id}"])
def test_unknown_parameter_is_refused(owner, path):
    answer = owner.get(f"{URL}{path.format(id=owner.user.pk)}?nonsense=1")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["nonsense"])


# Creating


def test_staff_create_a_user(staff):
    body = {"username": "ada", "email": "ada@example.com", "age": 36, "is_verified": True}
    answer = staff.post(URL, body)
    assert answer.status_code == 201
    assert list(answer.json()) == FIELDS
    assert {name: answer.json()[name] for name in body} == body
    assert answer.headers["Location"] == f"{URL}/{answer.json()['id']}"


@pytest.mark.parametrize("codenames", [(), ("view_user",), ("change_user", "delete_user"), ("add_stock",)])
def test_staff_without_add_permission_cannot_create_users(staff_with, codenames):
    answer = staff_with(*codenames).post(URL, {"username": "ada", "email": "ada@example.com"})
    assert answer.status_code == 403
    assert not User.objects.filter(username="ada").exists()


def test_staff_with_add_permission_can_create_users(staff_with):
    answer = staff_with("add_user").post(URL, {"username": "ada", "email": "ada@example.com"})
    assert (answer.status_code, answer.json()["username"]) == (201, "ada")


def test_owner_and_anonymous_cannot_create_users(owner, anonymous):
    body = {"username": "ada", "email": "ada@example.com"}
    assert [client.post(URL, body).status_code for client in (owner, anonymous)] == [403, 401]


def test_unused_username_is_derived_from_the_name(staff):
    usernames = [staff.post(URL, {"name": "John Doe"}).json()["username"] for _ in range(3)]
    assert usernames == ["john-doe", "john-doe-2", "john-doe-3"]


@pytest.mark.parametrize(("taken", "deleted"), [("john-doe", False), ("John-DOE", False), ("john-doe", True)], ids=str)
def test_derived_username_is_unique_ignoring_case(staff, make_user, taken, deleted):
    user = make_user(username=taken)
    if deleted:
        user.delete()
    assert staff.post(URL, {"name": "John Doe"}).json()["username"] == "john-doe-2"


@pytest.mark.parametrize("name", ["Ada", "Éva Ärger", "Юлия", "J. P.", "X" * 40])
def test_username_derived_from_any_name_is_valid(staff, name):
    answer = staff.post(URL, {"name": name})
    assert (answer.status_code, answer.json()["name"], answer.json()["email"]) == (201, name, None)
    username = answer.json()["username"]
    assert staff.patch(f"{URL}/{answer.json()['id']}", {"username": username}).status_code == 200


@pytest.mark.parametrize(
    ("body", "missing"),
    [
        ({}, {"username", "email"}),
        ({"username": "ada"}, {"email"}),
        ({"email": "ada@example.com"}, {"username"}),
        ({"name": None}, {"username", "email"}),
    ],
)
def test_new_user_requires_username_and_email_or_a_name(staff, body, missing):
    answer = staff.post(URL, body)
    assert (answer.status_code, set(answer.json()["errors"])) == (400, missing)


def test_user_without_password_cannot_log_in(staff, anonymous):
    staff.post(URL, {"username": "ada", "email": "ada@example.com"})
    for password in ("!", "None", "null"):
        login = {"username": "ada", "password": password}
        assert anonymous.post("/api/v1/auth/login", login).status_code == 401


def test_user_created_with_password_can_log_in(staff, anonymous):
    answer = staff.post(URL, {"username": "ada", "email": "ada@example.com", "password": PASSWORD})
    assert "password" not in answer.json()
    login = {"username": "ada", "password": PASSWORD}
    assert anonymous.post("/api/v1/auth/login", login).status_code == 200


def test_weak_password_is_refused(staff):
    answer = staff.post(URL, {"username": "ada", "email": "ada@example.com", "password": "12345678"})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["password"])


# Field validation


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("username", "abc"),
        ("username", "a" * 50),
        ("name", "Ada"),
        ("name", "A" * 40),
        ("name", "Éva"),
        ("name", "Ada-Marie O'Neil 2"),
        ("name", None),
        ("gender", "Male"),
        ("gender", "Female"),
        ("gender", None),
        ("age", 0),
        ("age", 150),
        ("age", None),
        ("bio", "Two\nlines"),
        ("bio", None),
        ("phone_number", "+49 30 123456"),
        ("phone_number", None),
    ],
)
def test_valid_value_is_stored(owner, field, value):
    answer = owner.patch(url(owner), {field: value})
    assert (answer.status_code, answer.json()[field]) == (200, value)
    assert stored(owner)[field] == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("username", "ab"),
        ("username", "a" * 51),
        ("username", "with blank"),
        ("username", "with@at"),
        ("username", ""),
        ("username", None),
        ("username", True),
        ("name", "Jo"),
        ("name", "A" * 41),
        ("name", ""),
        ("name", ["Ada"]),
        ("gender", "male"),
        ("gender", "Other"),
        ("gender", ""),
        ("gender", True),
        ("age", -1),
        ("age", 151),
        ("age", 2**63),
        ("age", 1.5),
        ("age", "old"),
        ("age", True),
        ("email", "nobody"),
        ("email", ""),
        ("email", "a" * 60 + "@" + "b" * 60 + "." + "c" * 60 + "." + "d" * 60 + "." + "e" * 30 + ".example.com"),
        ("bio", "x" * 2001),
        ("phone_number", "call me"),
        ("is_active", "maybe"),
    ],
)
def test_invalid_value_is_named_and_not_stored(superuser, owner, field, value):
    before = stored(owner)
    answer = superuser.patch(url(owner), {field: value})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])
    assert stored(owner) == before


@pytest.mark.parametrize("name", ["ada", "éva", "1Ada", "-Ada", "ßeta", "юлия", "'Ada"])
def test_name_must_start_with_a_capital_letter(owner, name):
    answer = owner.patch(url(owner), {"name": name})
    assert answer.status_code == 400
    assert answer.json()["errors"] == {"name": ["Name must start with a capital letter"]}


def test_name_with_a_line_break_is_refused(owner):
    answer = owner.patch(url(owner), {"name": "Ada\nByron"})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["name"])
    assert answer.json()["errors"]["name"] != ["Name must start with a capital letter"]


def test_accepted_capital_letters_can_be_stored(owner):
    for capital in "AZÀÖØÞĄŁŠŽȘΆΏΣΫЀЯ":
        assert owner.patch(url(owner), {"name": f"{capital}bc"}).status_code == 200


@pytest.mark.parametrize(("field", "value", "message"), TAKEN_VALUES)
@pytest.mark.parametrize("deleted", [False, True], ids=["live", "deleted"])
def test_taken_value_is_refused_in_any_case(staff, owner, make_user, field, value, message, deleted):
    user = make_user(username="taken", email="taken@example.com")
    if deleted:
        user.delete()
    created = staff.post(URL, {"username": "ada", "email": "ada@example.com"} | {field: value})
    changed = [owner.patch(url(owner), {field: value}), owner.put(f"{URL}/me", {field: value})]
    for answer in (created, *changed):
        assert (answer.status_code, answer.json()["errors"]) == (400, {field: [message]})


@pytest.mark.parametrize(("field", "value", "message"), TAKEN_VALUES)
def test_concurrent_creation_with_a_taken_value_is_refused(staff, make_user, lost_race, field, value, message):
    make_user(username="taken", email="taken@example.com")
    answer = staff.post(URL, {"username": "ada", "email": "ada@example.com"} | {field: value})
    assert (answer.status_code, answer.json()["errors"]) == (400, {field: [message]})


@pytest.mark.parametrize(("field", "value", "message"), TAKEN_VALUES)
def test_concurrent_change_to_a_taken_value_is_refused(staff, owner, make_user, lost_race, field, value, message):
    make_user(username="taken", email="taken@example.com")
    answer = staff.patch(url(owner), {field: value})
    assert (answer.status_code, answer.json()["errors"]) == (400, {field: [message]})


@pytest.mark.parametrize("change", [str, str.upper], ids=["same", "upper case"])
@pytest.mark.parametrize("field", ["username", "email"])
def test_unchanged_value_does_not_conflict_with_itself(owner, field, change):
    answer = owner.patch(url(owner), {field: change(getattr(owner.user, field))})
    assert answer.status_code == 200


def test_several_users_can_have_no_email(staff):
    assert [staff.post(URL, {"name": name}).status_code for name in ("Ada", "Grace")] == [201, 201]


# Changing


@pytest.mark.parametrize("method", ["put", "patch"])
@pytest.mark.parametrize("path", ["/me", "/{id}"])
def test_omitted_fields_keep_their_values(make_user, method, path):
    client = Client(make_user(name="Ada", age=36, bio="Engines."))
    before = stored(client)
    answer = getattr(client, method)(URL + path.format(id=client.user.pk), {"age": 37})
    assert (answer.status_code, answer.json()["age"], answer.json()["version"]) == (200, 37, 2)
    after = stored(client)
    assert {name for name in after if after[name] != before[name]} == {"age", "updated_at", "version"}


@pytest.mark.parametrize("method", ["put", "patch"])
def test_change_returns_the_fields_of_a_user(owner, method):
    assert list(getattr(owner, method)(url(owner), {"age": 37}).json()) == FIELDS


def test_change_writes_only_the_given_columns(owner):
    with CaptureQueriesContext(connection) as queries:
        owner.patch(url(owner), {"age": 37})
    [update] = [query["sql"] for query in queries if 'UPDATE "users" SET' in query["sql"]]
    assert [name for name in FIELDS if f'"{name}" = ' in update.partition(" WHERE ")[0]] == [
        "age",
        "updated_at",
        "version",
    ]


PROTECTED_FIELDS = [
    ("is_staff", True),
    ("is_superuser", True),
    ("is_active", False),
    ("is_verified", True),
    ("id", 1),
    ("password", PASSWORD),
    ("version", 7),
    ("oauth_provider", "google"),
    ("created_at", "2000-01-01T00:00:00Z"),
    ("deleted_at", "2000-01-01T00:00:00Z"),
    ("user_permissions", [1]),
    ("groups", [1]),
    ("stocks", []),
]


@pytest.mark.parametrize(("field", "value"), PROTECTED_FIELDS)
@pytest.mark.parametrize("path", ["/me", "/{id}"])
def test_owner_cannot_change_protected_fields(owner, path, field, value):
    before = stored(owner)
    answer = owner.patch(URL + path.format(id=owner.user.pk), {"bio": "Hello", field: value})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])
    assert stored(owner) == before


@pytest.mark.parametrize(("field", "value"), [("is_staff", False), ("is_verified", True), ("is_superuser", True)])
def test_staff_without_permission_cannot_change_own_privileges(staff_with, field, value):
    client = staff_with()
    answer = client.patch(f"{URL}/me", {field: value})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])


@pytest.mark.parametrize(
    ("field", "value"), [("is_active", False), ("is_verified", True), ("is_staff", True), ("name", "Ada")]
)
def test_staff_update_other_users(staff, owner, field, value):
    answer = staff.patch(url(owner), {field: value})
    assert (answer.status_code, answer.json()[field]) == (200, value)
    assert stored(owner)[field] == value


@pytest.mark.parametrize("field", ["is_superuser", "id", "password", "version", "user_permissions", "deleted_at"])
def test_staff_cannot_set_protected_fields(staff, owner, field):
    before = stored(owner)
    answer = staff.patch(url(owner), {field: True})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [field])
    assert stored(owner) == before


def test_staff_cannot_create_a_superuser(staff):
    answer = staff.post(URL, {"username": "ada", "email": "ada@example.com", "is_superuser": True})
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["is_superuser"])
    assert not User.objects.filter(username="ada").exists()


def test_staff_cannot_make_themselves_superuser(staff):
    assert staff.patch(f"{URL}/me", {"is_superuser": True}).status_code == 400
    assert not stored(staff)["is_superuser"]


def test_superuser_grants_superuser_status(superuser, owner):
    answer = superuser.patch(url(owner), {"is_superuser": True})
    assert (answer.status_code, answer.json()["is_superuser"]) == (200, True)


def test_stranger_cannot_update_user(stranger, owner):
    assert stranger.patch(url(owner), {"name": "Mallory"}).status_code == 404
    assert stored(owner)["name"] is None


def test_staff_without_permissions_cannot_access_other_users(staff_with, owner):
    client = staff_with()
    assert client.get(url(owner)).status_code == 404
    assert client.patch(url(owner), {"name": "Mallory"}).status_code == 404
    assert client.delete(url(owner)).status_code == 404


def test_staff_with_view_permission_cannot_change_users(staff_with, owner):
    client, before = staff_with("view_user"), stored(owner)
    assert client.get(url(owner)).status_code == 200
    assert client.patch(url(owner), {"name": "Mallory"}).status_code == 403
    assert client.delete(url(owner)).status_code == 403
    assert client.post(f"{url(owner)}/restore").status_code == 403
    assert stored(owner) == before


def test_permissions_have_no_effect_without_staff_status(make_user, owner):
    client = Client(make_user())
    client.user.user_permissions.set(Permission.objects.all())
    assert client.get(url(owner)).status_code == 404
    assert client.get(URL).json()["total"] == 1


def test_email_changed_by_staff_is_unverified(staff, make_user):
    user = make_user(is_verified=True)
    answer = staff.patch(f"{URL}/{user.pk}", {"email": "a.b+c@sub.example.co.uk"})
    assert (answer.json()["email"], answer.json()["is_verified"]) == ("a.b+c@sub.example.co.uk", False)


def test_unchanged_email_stays_verified(make_user):
    client = Client(make_user(is_verified=True))
    answer = client.patch(f"{URL}/me", {"email": client.user.email, "name": "Ada"})
    assert answer.json()["is_verified"] is True


def test_staff_can_verify_the_email_they_set(staff, owner):
    answer = staff.patch(url(owner), {"email": "new@example.com", "is_verified": True})
    assert answer.json()["is_verified"] is True


# Superusers


@pytest.mark.parametrize("body", [{"name": "Mallory"}, {"is_active": False}, {"email": "mallory@example.com"}])
def test_staff_cannot_change_a_superuser(staff, superuser, body):
    before = stored(superuser)
    assert staff.patch(url(superuser), body).status_code == 403
    assert stored(superuser) == before


def test_staff_cannot_delete_or_restore_a_superuser(staff, superuser, make_user):
    other = make_user(is_superuser=True)
    assert staff.delete(url(superuser)).status_code == 403
    other.delete()
    assert staff.post(f"{URL}/{other.pk}/restore").status_code == 403
    assert User.objects.filter(pk=superuser.user.pk).exists()
    assert not User.objects.filter(pk=other.pk).exists()


@pytest.mark.parametrize(
    ("method", "query", "body"),
    [
        ("delete", "", None),
        ("delete", "?permanent=true", None),
        ("patch", "", {"is_active": False}),
        ("patch", "", {"is_superuser": False}),
    ],
)
def test_last_active_superuser_cannot_be_deleted_or_demoted(superuser, make_user, method, query, body):
    make_user(is_superuser=True, is_active=False)
    make_user(is_superuser=True).delete()
    before = stored(superuser)
    assert getattr(superuser, method)(url(superuser) + query, body).status_code == 400
    assert stored(superuser) == before


@pytest.mark.parametrize("body", [{"is_active": False}, {"is_superuser": False}])
def test_one_of_two_superusers_can_be_demoted(superuser, make_user, body):
    make_user(is_superuser=True)
    assert superuser.patch(url(superuser), body).status_code == 200


def test_one_of_two_superusers_can_be_deleted(superuser, make_user):
    other = make_user(is_superuser=True)
    assert superuser.delete(f"{URL}/{other.pk}").status_code == 204


# Deleting and restoring


def test_owner_cannot_delete_themselves(owner):
    assert owner.delete(url(owner)).status_code == 403
    assert owner.get(url(owner)).status_code == 200


def test_deletion_requires_delete_permission(staff_with, owner):
    assert staff_with("view_user", "add_user", "change_user").delete(url(owner)).status_code == 403
    assert staff_with("view_user", "delete_user").delete(url(owner)).status_code == 204


def test_deleting_a_user_deletes_their_stocks(staff, owner, make_stock):
    stock = make_stock(owner.user)
    answer = staff.delete(url(owner))
    assert (answer.status_code, answer.content) == (204, b"")
    assert staff.get(url(owner)).status_code == 404
    assert staff.get(f"/api/v1/stocks/{stock.pk}").status_code == 404
    assert staff.get(f"/api/v1/stocks?user_id={owner.user.pk}").json()["total"] == 0


def test_deleting_a_user_keeps_stocks_of_others(staff, owner, stranger, make_stock):
    stock = make_stock(stranger.user)
    staff.delete(url(owner))
    assert stranger.get(f"/api/v1/stocks/{stock.pk}").json()["version"] == 1


def test_restore_restores_the_user_and_the_stocks_deleted_with_them(staff, owner, make_stock):
    live, deleted_before = make_stock(owner.user), make_stock(owner.user)
    staff.delete(f"/api/v1/stocks/{deleted_before.pk}")
    staff.delete(url(owner))
    answer = staff.post(f"{url(owner)}/restore")
    assert (answer.status_code, answer.json()["id"], answer.json()["version"]) == (200, owner.user.pk, 3)
    assert [stock["id"] for stock in owner.get(url(owner)).json()["stocks"]] == [live.pk]


def test_deletion_and_restore_increment_versions_of_stocks(staff, owner, make_stock):
    stock = make_stock(owner.user)
    staff.delete(url(owner))
    staff.post(f"{url(owner)}/restore")
    assert owner.get(f"/api/v1/stocks/{stock.pk}").json()["version"] == 3


def test_restoring_a_live_user_changes_nothing(staff, owner):
    before = stored(owner)
    assert staff.post(f"{url(owner)}/restore").status_code == 200
    assert stored(owner) == before


def test_owner_cannot_restore(owner, stranger):
    assert owner.post(f"{url(owner)}/restore").status_code == 403
    stranger.user.delete()
    assert owner.post(f"{url(stranger)}/restore").status_code == 404


def test_delete_takes_a_constant_number_of_updates(staff, owner, make_stock):
    for _ in range(20):
        make_stock(owner.user)
    with CaptureQueriesContext(connection) as queries:
        assert staff.delete(url(owner)).status_code == 204
    updated = [query["sql"].split()[1] for query in queries if query["sql"].startswith("UPDATE")]
    assert sorted(updated) == ['"stocks"', '"users"']


def test_superuser_permanently_deletes_a_user(superuser, owner, make_stock):
    make_stock(owner.user)
    make_stock(owner.user).delete()
    assert superuser.delete(f"{url(owner)}?permanent=true").status_code == 204
    assert not User.all_objects.filter(pk=owner.user.pk).exists()
    assert not Stock.all_objects.filter(owner_id=owner.user.pk).exists()
    assert not Session.objects.filter(user_id=owner.user.pk).exists()
    assert superuser.post(f"{url(owner)}/restore").status_code == 404


def test_staff_cannot_permanently_delete_a_user(staff, owner):
    assert staff.delete(f"{url(owner)}?permanent=true").status_code == 403
    assert User.objects.filter(pk=owner.user.pk).exists()


def test_permanent_false_soft_deletes(superuser, owner):
    assert superuser.delete(f"{url(owner)}?permanent=false").status_code == 204
    assert User.all_objects.deleted().filter(pk=owner.user.pk).exists()


@pytest.mark.parametrize("query", ["permanent=maybe", "permanent=", "permanant=true", f"reason={'x' * 201}"])
def test_invalid_parameter_deletes_no_user(superuser, owner, query):
    answer = superuser.delete(f"{url(owner)}?{query}")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, [query.partition("=")[0]])
    assert User.objects.filter(pk=owner.user.pk).exists()


# The current user


def test_me_returns_the_current_user(owner):
    answer = owner.get(f"{URL}/me")
    assert answer.status_code == 200
    assert answer.json()["id"] == owner.user.pk
    assert set(FIELDS) <= set(answer.json())


def test_me_returns_only_the_requested_fields(owner):
    assert owner.get(f"{URL}/me?fields=name,id").json() == {"name": None, "id": owner.user.pk}


@pytest.mark.parametrize("method", ["put", "patch"])
def test_me_can_be_changed(owner, method):
    answer = getattr(owner, method)(f"{URL}/me", {"name": "Ada", "bio": "Engines."})
    assert (answer.status_code, answer.json()["name"], answer.json()["bio"]) == (200, "Ada", "Engines.")


@pytest.mark.parametrize("method", ["put", "patch"])
def test_me_requires_authentication(anonymous, method):
    assert getattr(anonymous, method)(f"{URL}/me", {"name": "Ada"}).status_code == 401


@pytest.mark.parametrize("method", ["post", "delete"])
def test_me_refuses_other_methods(superuser, method):
    answer = getattr(superuser, method)(f"{URL}/me")
    assert answer.status_code == 405
    assert User.objects.filter(pk=superuser.user.pk).exists()


def test_concurrent_creation_with_one_name_gets_another_username(staff, make_user, monkeypatch):
    make_user(username="john-doe", email="john@example.com")
    names = iter(["john-doe", "john-doe", "john-doe-2"])
    monkeypatch.setattr(User.objects, "free_username", lambda name: next(names))
    assert staff.post(URL, {"name": "John Doe"}).json()["username"] == "john-doe-2"


def test_superuser_can_verify_a_new_email(superuser, make_user):
    user = make_user(is_verified=True)
    body = {"email": "new@example.com", "is_verified": True}
    assert superuser.patch(f"/api/v1/users/{user.pk}", body).json()["is_verified"] is True


def test_bulk_update_unverifies_only_changed_emails(make_user):
    same, other = make_user(is_verified=True), make_user(is_verified=True)
    User.objects.filter(pk=same.pk).update(email=same.email)
    User.objects.filter(pk=other.pk).update(email="new@example.com")
    assert [User.objects.get(pk=user.pk).is_verified for user in (same, other)] == [True, False]

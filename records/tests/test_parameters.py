"""Query parameters of lists: known ones take effect, and unknown ones are refused."""

from datetime import UTC, datetime

import pytest

from records.rest.filters import RecordFilterSet
from stocks.models import Stock
from users.models import User

STOCKS, USERS = "/api/v1/stocks", "/api/v1/users"
FIRST, SECOND, THIRD = (
    datetime(2024, 1, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2024, 2, 1, tzinfo=UTC),
    datetime(2024, 2, 1, 23, 59, 59, 999999, tzinfo=UTC),
)
INVALID_NUMBERS = ["abc", "NaN", "Infinity", "-inf", "1e400", "true", "1,5", "9" * 5000, "1_0"]
INVALID_INTEGERS = [*INVALID_NUMBERS, "1.5", str(2**63), str(-(2**63) - 1)]
INVALID_BOOLEANS = ["maybe", "2", "yes", "null"]
INVALID_DATETIMES = ["yesterday", "2024-13-01T00:00:00Z", "2024-02-30", "0001-01-01T00:00:00+01:00", "1700000000"]
INVALID_DATES = ["today", "2024-02-30", "02/01/2024", "2024-02-01T00:00:00Z", "20240201", "10000-01-01"]


def set_created_at(row, at):
    type(row).objects.filter(pk=row.pk).update(created_at=at)
    return row


@pytest.fixture
def stocks(owner, make_stock):
    a = make_stock(owner.user, name="AAPL", price="10", quantity=1)
    b = make_stock(owner.user, name="MSFT", price="20.5", quantity=20, is_active=False)
    c = make_stock(owner.user, name="BRK.B", price="30.0001", quantity=300)
    return [set_created_at(a, FIRST), set_created_at(b, SECOND), set_created_at(c, THIRD)]


@pytest.fixture
def people(superuser, make_user):
    a = make_user(username="zz_ann", email="ANN@example.org", name="Ann", gender="Female", age=20, is_verified=True)
    b = make_user(username="zzBob", name="Bob 50%", gender="Male", age=30, is_active=False, oauth_provider="hub")
    c = make_user(username="zz-cleo", name=None, age=None, is_staff=True, is_superuser=True)
    return [set_created_at(a, FIRST), set_created_at(b, SECOND), set_created_at(c, THIRD)]


def values_of(client, url, field="name"):
    response = client.get(url)
    assert response.status_code == 200, response.content
    return [item[field] for item in response.json()["items"]]


def error_message(client, query, name, path=STOCKS):
    response = client.get(f"{path}?{query}")
    assert response.status_code == 400, response.content
    return " ".join(response.json()["errors"][name])


@pytest.mark.parametrize(
    ("path", "query", "suggestion"),
    [
        (STOCKS, "pric=2", "price"),
        (STOCKS, "price__gtt=2", "price__gt"),
        (STOCKS, "sortby=price", "sort_by"),
        (STOCKS, "Page=2", "page"),
        (STOCKS, "serch=x", "search"),
        (USERS, "user_name=x", "username"),
        (USERS, "age__get=3", "age__gte"),
        (USERS, "is_super_user=true", "is_superuser"),
    ],
)
def test_unknown_parameter_gets_a_suggestion(superuser, path, query, suggestion):
    message = error_message(superuser, query, query.split("=")[0], path)
    assert query.split("=")[0] in message
    assert f"Did you mean '{suggestion}" in message


def test_all_unknown_parameters_are_named(owner):
    response = owner.get(f"{STOCKS}?xx=1&yy=2&size=2")
    assert response.json()["errors"].keys() == {"xx", "yy"}


@pytest.mark.parametrize("name", ["xxxxxx", "owner_id", "deleted_at__isnull", "pk", "password", "owner__password", ""])
def test_column_without_filter_is_refused_as_parameter(owner, name):
    assert owner.get(f"{STOCKS}?{name}=1").status_code == 400


@pytest.mark.parametrize("query", ["password=x", "stocks__id=1", "username__startswith=a", "is_deleted__x=1"])
def test_user_column_without_filter_is_refused_as_parameter(superuser, query):
    assert error_message(superuser, query, query.split("=")[0], USERS)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET"])
def test_unknown_parameter_is_refused_by_detail_and_create(owner, stocks, method):
    path = STOCKS if method == "POST" else f"{STOCKS}/{stocks[0].pk}"
    body = '{"name": "NEW", "price": 1, "quantity": 1}'
    response = owner.generic(method, f"{path}?dry=1", body, content_type="application/json")
    assert (response.status_code, list(response.json()["errors"])) == (400, ["dry"])
    assert [stock.name for stock in Stock.objects.filter(owner=owner.user).order_by("id")] == ["AAPL", "MSFT", "BRK.B"]


@pytest.mark.parametrize(
    ("path", "sort", "suggestion"),
    [(STOCKS, "pirce", "price"), (STOCKS, "name,-quantty", "quantity"), (USERS, "user_name", "username")],
)
def test_unknown_sort_key_gets_a_suggestion(superuser, path, sort, suggestion):
    message = error_message(superuser, f"sort_by={sort}", "sort_by", path)
    assert sort.split(",")[-1].lstrip("-") in message
    assert f"Did you mean '{suggestion}'" in message


@pytest.mark.parametrize(
    "sort", ["is_active", "user_id", "version", "--price", "price desc", "name,name", "price,-price"]
)
def test_unsupported_sort_is_refused(owner, sort):
    assert error_message(owner, f"sort_by={sort}", "sort_by")


@pytest.mark.parametrize("sort", ["password", "bio", "is_staff", "%3F"])
def test_unsupported_sort_of_users_is_refused(superuser, sort):
    assert error_message(superuser, f"sort_by={sort}", "sort_by", USERS)


@pytest.mark.parametrize("order", ["up", "", "DESC", "-1"])
def test_unknown_sort_order_is_refused(owner, order):
    assert error_message(owner, f"sort_order={order}", "sort_order")


@pytest.mark.parametrize(
    ("path", "name", "suggestion"),
    [(STOCKS, "nmae", "name"), (STOCKS, "owner_id", "user_id"), (USERS, "user_name", "username")],
)
def test_unknown_field_gets_a_suggestion(superuser, path, name, suggestion):
    message = error_message(superuser, f"fields=id,{name}", "fields", path)
    assert name in message
    assert f"Did you mean '{suggestion}'" in message


@pytest.mark.parametrize("path", [USERS, f"{USERS}/me"])
def test_password_cannot_be_selected(superuser, path):
    assert "password" in error_message(superuser, "fields=password", "fields", path)


@pytest.mark.parametrize("fields", ["", ",", "id,", "id,,name", "*", "owner__username", "deleted_at", "is_deleted"])
def test_unsupported_field_is_refused(owner, fields):
    assert error_message(owner, f"fields={fields}", "fields")


def test_fields_are_returned_in_the_given_order(owner, stocks):
    item = owner.get(f"{STOCKS}?fields=price,id,%20name").json()["items"][0]
    assert list(item.items()) == [("price", 10), ("id", stocks[0].pk), ("name", "AAPL")]


def test_fields_parameter_works_for_a_single_row(owner, stocks):
    assert owner.get(f"{STOCKS}/{stocks[1].pk}?fields=name,price").json() == {"name": "MSFT", "price": 20.5}
    assert "fields" in owner.get(f"{STOCKS}/{stocks[1].pk}?fields=nam").json()["errors"]


@pytest.mark.parametrize("query", ["price=1&price=2", "page=1&page=1", "sort_by=id&sort_by=price", "cursor=&cursor="])
def test_repeated_parameter_is_refused(owner, query):
    assert "twice" in error_message(owner, query, query.split("=")[0])


@pytest.mark.parametrize("value", ["%00", "a%00b", "%ff", "%c3", "%ed%a0%80", "%f4%90%80%80"])
@pytest.mark.parametrize(
    "name", ["name", "name__in", "search", "fields", "sort_by", "cursor", "page", "price", "count"]
)
def test_undecodable_value_is_refused(owner, name, value):
    assert error_message(owner, f"{name}={value}", name)


@pytest.mark.parametrize("name", ["%00", "%ff", "a%0d%0ab"])
def test_undecodable_name_is_refused(owner, name):
    response = owner.get(f"{STOCKS}?{name}=1")
    assert (response.status_code, response["Content-Type"]) == (400, "application/problem+json")


@pytest.mark.parametrize(
    "name", ["name", "name__in", "price", "quantity__gt", "is_active", "user_id", "created_at__date"]
)
def test_empty_filter_is_refused(owner, name):
    assert error_message(owner, f"{name}=", name)


@pytest.mark.parametrize(
    "name", ["username", "email", "gender", "age__lte", "is_staff", "oauth_provider", "is_deleted"]
)
def test_empty_filter_of_users_is_refused(superuser, name):
    assert error_message(superuser, f"{name}=", name, USERS)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("name=AAPL", {"AAPL"}),
        ("name=aapl", {"AAPL"}),
        ("name=AAP", set()),
        ("name__in=aapl,MSFT", {"AAPL", "MSFT"}),
        ("name__in=BRK.B", {"BRK.B"}),
        ("price=20.5", {"MSFT"}),
        ("price=30.0001", {"BRK.B"}),
        ("price__gt=20.5", {"BRK.B"}),
        ("price__gte=20.5", {"MSFT", "BRK.B"}),
        ("price__lt=20.5", {"AAPL"}),
        ("price__lte=20.5", {"AAPL", "MSFT"}),
        ("quantity=20", {"MSFT"}),
        ("quantity__gt=20", {"BRK.B"}),
        ("quantity__gte=20", {"MSFT", "BRK.B"}),
        ("quantity__lt=20", {"AAPL"}),
        ("quantity__lte=20", {"AAPL", "MSFT"}),
        (f"quantity__lte={2**63 - 1}", {"AAPL", "MSFT", "BRK.B"}),
        ("is_active=false", {"MSFT"}),
        ("is_active=True", {"AAPL", "BRK.B"}),
        ("is_active=0", {"MSFT"}),
        ("created_at__gte=2024-02-01T00:00:00Z", {"MSFT", "BRK.B"}),
        ("created_at__gte=2024-02-01T00:00:00%2B01:00", {"AAPL", "MSFT", "BRK.B"}),
        ("created_at__gte=2024-02-01T01:00:00+01:00", {"MSFT", "BRK.B"}),
        ("created_at__lte=2024-02-01T00:00:00", {"AAPL", "MSFT"}),
        ("created_at__date=2024-01-31", {"AAPL"}),
        ("created_at__date=2024-02-01", {"MSFT", "BRK.B"}),
        ("created_at__date=0001-01-01", set()),
        ("created_at__date=9999-12-31", set()),
        ("price__gt=5&quantity__lt=100&is_active=true", {"AAPL"}),
        ("search=b", {"BRK.B"}),
        ("search=sF", {"MSFT"}),
        ("search=BRK_B", set()),
        ("search=%25", set()),
    ],
)
def test_stock_filter(owner, stocks, query, expected):
    assert set(values_of(owner, f"{STOCKS}?{query}")) == expected


def test_staff_filter_stocks_by_owner(staff, owner, stranger, stocks, make_stock):
    make_stock(stranger.user, name="ELSE")
    assert values_of(staff, f"{STOCKS}?user_id={stranger.user.pk}") == ["ELSE"]


def test_filter_by_user_id_shows_no_rows_of_others(owner, stranger, stocks):
    assert values_of(stranger, f"{STOCKS}?user_id={owner.user.pk}") == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in ("price", "price__gt", "price__gte", "price__lt", "price__lte")
        for value in INVALID_NUMBERS
    ]
    + [(name, value) for name in ("quantity", "quantity__gt", "quantity__lte", "user_id") for value in INVALID_INTEGERS]
    + [("is_active", value) for value in INVALID_BOOLEANS]
    + [(name, value) for name in ("created_at__gte", "created_at__lte") for value in INVALID_DATETIMES]
    + [("created_at__date", value) for value in INVALID_DATES],
)
def test_stock_filter_refuses_invalid_values(owner, name, value):
    assert error_message(owner, f"{name}={value}", name)


def test_all_invalid_filters_are_named(owner):
    response = owner.get(f"{STOCKS}?price=x&quantity=y&is_active=z")
    assert response.json()["errors"].keys() == {"price", "quantity", "is_active"}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("username=ZZ_ANN", {"zz_ann"}),
        ("username=zz", set()),
        ("email=ann@EXAMPLE.org", {"zz_ann"}),
        ("gender=Male", {"zzBob"}),
        ("age=20", {"zz_ann"}),
        ("age__gte=20", {"zz_ann", "zzBob"}),
        ("age__gte=21", {"zzBob"}),
        ("age__lte=29", {"zz_ann"}),
        ("is_active=false", {"zzBob"}),
        ("is_verified=true", {"zz_ann"}),
        ("is_staff=true", {"zz-cleo"}),
        ("is_superuser=true", {"zz-cleo"}),
        ("oauth_provider=hub", {"zzBob"}),
        ("created_at__gte=2024-02-01T00:00:00Z", {"zzBob", "zz-cleo"}),
        ("created_at__lte=2024-02-01T00:00:00Z", {"zz_ann", "zzBob"}),
        ("created_at__date=2024-02-01", {"zzBob", "zz-cleo"}),
    ],
)
def test_user_filter(superuser, people, query, expected):
    assert set(values_of(superuser, f"{USERS}?search=zz&{query}", "username")) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in ("age", "age__gte", "age__lte") for value in INVALID_INTEGERS]
    + [
        (f"is_{name}", value)
        for name in ("active", "verified", "staff", "superuser", "deleted")
        for value in INVALID_BOOLEANS
    ]
    + [("gender", value) for value in ("male", "Other", "null", "M")]
    + [("created_at__gte", value) for value in INVALID_DATETIMES]
    + [("created_at__date", value) for value in INVALID_DATES],
)
def test_user_filter_refuses_invalid_values(superuser, name, value):
    assert error_message(superuser, f"{name}={value}", name, USERS)


@pytest.mark.parametrize("text", ["zz_a", "ZZ_ANN", "ann@", "ANN@EXAMPLE.ORG", " zz_ann "])
def test_search_is_case_insensitive(superuser, people, text):
    response = superuser.get(USERS, {"search": text})
    assert [item["username"] for item in response.json()["items"]] == ["zz_ann"]


@pytest.mark.parametrize("text", ["ÄNNE", "änne", "ЁЖ", "ёж"])
def test_search_is_case_insensitive_beyond_ascii(superuser, make_user, text):
    make_user(username="wanted", name="Änne Ёжик")
    response = superuser.get(USERS, {"search": text})
    assert [item["username"] for item in response.json()["items"]] == ["wanted"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("%", ["zzBob"]), ("50%", ["zzBob"]), ("5%", []), ("b_b", []), ("zz_", ["zz_ann"]), ("\\", []), ("'", [])],
)
def test_search_treats_wildcards_literally(superuser, people, text, expected):
    response = superuser.get(USERS, {"search": text})
    assert [item["username"] for item in response.json()["items"]] == expected


def test_search_ignores_hidden_columns(superuser, people):
    User.objects.filter(pk=people[0].pk).update(bio="needle", phone_number="+4930555", password="needle")
    assert values_of(superuser, f"{USERS}?search=needle") == values_of(superuser, f"{USERS}?search=4930555") == []


def test_deleted_rows_include_deletion_details(staff, owner, stocks):
    staff.delete(f"{STOCKS}/{stocks[1].pk}?reason=sold")
    [item] = staff.get(f"{STOCKS}?is_deleted=true").json()["items"]
    assert (item["id"], item["is_deleted"], item["deleted_by"]) == (stocks[1].pk, True, staff.user.pk)
    assert (item["deletion_reason"], item["deleted_at"][-1]) == ("sold", "Z")


def test_live_rows_have_no_deletion_details(staff, stocks):
    stocks[1].delete()
    for query in ("is_deleted=false", ""):
        items = staff.get(f"{STOCKS}?name__in=AAPL,MSFT&price__lt=100&{query}").json()["items"]
        assert [item["name"] for item in items] == ["AAPL"]
        assert not {"is_deleted", "deleted_at", "deleted_by", "deletion_reason"} & items[0].keys()


def test_fields_parameter_works_for_deleted_rows(staff, stocks):
    stocks[1].delete()
    items = staff.get(f"{STOCKS}?is_deleted=true&fields=name,is_deleted").json()["items"]
    assert items == [{"name": "MSFT", "is_deleted": True}]


def test_superuser_lists_deleted_users(superuser, people):
    people[0].delete()
    assert values_of(superuser, f"{USERS}?is_deleted=true", "username") == ["zz_ann"]
    assert "zz_ann" not in values_of(superuser, f"{USERS}?search=zz", "username")


@pytest.mark.parametrize("path", [STOCKS, USERS])
@pytest.mark.parametrize("value", ["true", "false"])
def test_owner_cannot_list_deleted_rows(owner, path, value):
    assert error_message(owner, f"is_deleted={value}", "is_deleted", path)


def test_staff_without_permission_cannot_list_deleted_rows(staff_with):
    assert error_message(staff_with("view_user"), "is_deleted=true", "is_deleted")


@pytest.mark.parametrize("key", ["age", "name"])
def test_nulls_come_last_ascending_and_first_descending(superuser, people, key):
    ascending = values_of(superuser, f"{USERS}?search=zz&sort_by={key}", "username")
    descending = values_of(superuser, f"{USERS}?search=zz&sort_by=-{key}", "username")
    assert (ascending, descending) == (["zz_ann", "zzBob", "zz-cleo"], ["zz-cleo", "zzBob", "zz_ann"])


def test_sort_order_applies_to_keys_without_a_sign(owner, make_stock):
    for name, price in (("A", 1), ("B", 1), ("C", 2)):
        make_stock(owner.user, name=name, price=price)
    assert values_of(owner, f"{STOCKS}?sort_by=price,-name&sort_order=asc") == ["B", "A", "C"]
    assert values_of(owner, f"{STOCKS}?sort_by=price,-name&sort_order=desc") == ["C", "B", "A"]
    assert values_of(owner, f"{STOCKS}?sort_order=desc") == ["C", "B", "A"]


def test_equal_rows_are_ordered_by_id(owner, make_stock):
    keys = [make_stock(owner.user).pk for _ in range(5)]
    assert values_of(owner, f"{STOCKS}?sort_by=price,name", "id") == keys


@pytest.mark.parametrize("sort", [",", "price,,name", "price,"])
def test_empty_sort_key_is_refused(owner, sort):
    assert error_message(owner, f"sort_by={sort}", "sort_by")


@pytest.mark.parametrize("path", ["/", "/ping", STOCKS])
def test_unknown_format_is_named(owner, path):
    answer = owner.get(f"{path}?format=xml")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["format"])


# Parameter names of other frameworks

AUDIT, SESSIONS = "/api/v1/admin/audit-logs", "/api/v1/auth/sessions"
COMMON_ALIASES = {
    "ordering": "sort_by", "order_by": "sort_by", "offset": "skip", "page_size": "size", "per_page": "size",
    "q": "search", "owner": "user_id", "owner_id": "user_id", "user": "user_id",
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "name"),
    [(path, name) for path in (STOCKS, USERS, f"{USERS}/#/stocks", SESSIONS) for name in COMMON_ALIASES]
    + [(path, name) for path in (AUDIT, f"{STOCKS}/@/history") for name in COMMON_ALIASES if name != "owner_id"],
)
def test_common_alias_gets_a_suggestion_if_the_list_supports_it(superuser, make_stock, path, name):
    path = path.replace("#", str(superuser.user.pk)).replace("@", str(make_stock(superuser.user).pk))
    errors = superuser.get(f"{path}?{COMMON_ALIASES[name]}=").json().get("errors", {})
    message = error_message(superuser, f"{name}=1", name, path)
    is_known = "Unknown parameter" not in str(errors)
    assert (f"Did you mean '{COMMON_ALIASES[name]}'?" in message) is is_known
    assert is_known or not any(f"'{parameter}'" in message for parameter in {"search", "user_id"})


@pytest.mark.parametrize("name", ["owner", "owner_id", "user"])
def test_common_alias_of_a_field_gets_a_suggestion(staff, name):
    body = {"name": "A", "price": 1, "quantity": 1, name: staff.user.pk}
    assert "Did you mean 'user_id'?" in staff.post(STOCKS, body).json()["errors"][name][0]
    assert "Did you mean 'user_id'?" in error_message(staff, f"fields={name}", "fields")


# date_created, the alias of created_at


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("date_created=2024-01-31", {"AAPL"}),
        ("date_created=2024-02-01", {"MSFT", "BRK.B"}),
        ("date_created__gte=2024-02-01T00:00:00Z", {"MSFT", "BRK.B"}),
        ("date_created__lte=2024-02-01T00:00:00Z", {"AAPL", "MSFT"}),
        ("date_created__gte=2024-02-01T00:00:00Z&created_at__lte=2024-02-01T00:00:00Z", {"MSFT"}),
    ],
)
def test_stocks_are_filtered_by_date_created(owner, stocks, query, expected):
    assert set(values_of(owner, f"{STOCKS}?{query}")) == expected
    assert set(values_of(owner, f"{USERS}/{owner.user.pk}/stocks?{query}")) == expected


def test_users_are_filtered_by_date_created(superuser, people):
    assert values_of(superuser, f"{USERS}?date_created=2024-01-31", "username") == ["zz_ann"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("date_created", value) for value in INVALID_DATES]
    + [(name, value) for name in ("date_created__gte", "date_created__lte") for value in ("", *INVALID_DATETIMES)],
)
@pytest.mark.parametrize("path", [STOCKS, USERS])
def test_invalid_date_created_is_refused(superuser, path, name, value):
    assert error_message(superuser, f"{name}={value}", name, path)


@pytest.mark.parametrize("direction", ["", "-"])
@pytest.mark.parametrize("secondary_sort", ["", ",price", ",-name"])
@pytest.mark.parametrize("paging", ["page=1", "cursor="])
def test_stocks_are_sorted_by_date_created(owner, stocks, make_stock, direction, secondary_sort, paging):
    set_created_at(make_stock(owner.user, name="TWIN", price=7), SECOND)
    created_at_values, date_created_values = (
        values_of(owner, f"{STOCKS}?sort_by={direction}{name}{secondary_sort}&{paging}")
        for name in ("created_at", "date_created")
    )
    assert created_at_values == date_created_values
    assert date_created_values[0 if direction == "" else -1] == "AAPL"


def test_cursor_accepts_created_at_and_date_created(owner, stocks):
    first = owner.get(f"{STOCKS}?sort_by=-date_created&cursor=&size=2").json()
    next_link = first["links"]["next"]
    assert "sort_by=-date_created" in next_link
    names = [values_of(owner, next_link.replace("date_created", name)) for name in ("date_created", "created_at")]
    assert names == [["AAPL"]] * 2
    assert owner.get(owner.get(next_link).json()["links"]["prev"]).json()["items"] == first["items"]
    assert error_message(owner, next_link.partition("?")[2].replace("-date_created", "date_created"), "cursor")


def test_sort_by_created_at_and_date_created_is_refused(owner):
    assert "twice" in error_message(owner, "sort_by=created_at,date_created", "sort_by")


def test_sessions_are_sorted_by_date_created(owner):
    assert owner.get(f"{SESSIONS}?sort_by=date_created").status_code == 200


def test_date_created_is_refused_as_field_and_in_the_audit_log(superuser):
    assert error_message(superuser, "fields=date_created", "fields")
    assert error_message(superuser, "sort_by=date_created", "sort_by", AUDIT)
    assert error_message(superuser, "date_created=2024-01-31", "date_created", AUDIT)


def test_date_created_is_documented_for_every_record(anonymous):
    schema = anonymous.get("/openapi.json").json()
    for path in (STOCKS, USERS, f"{USERS}/{{id}}/stocks"):
        parameters = {parameter["name"]: parameter for parameter in schema["paths"][path]["get"]["parameters"]}
        assert {"date_created", "date_created__gte", "date_created__lte"} <= parameters.keys()
        assert "date_created" in parameters["sort_by"]["description"]
    assert {"date_created", "date_created__gte", "date_created__lte"} <= RecordFilterSet.base_filters.keys()

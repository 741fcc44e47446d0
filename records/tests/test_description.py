"""The OpenAPI document matches the service: limits, examples, errors, names."""

import json
import keyword
import re
from decimal import Decimal

import pytest
from django.core.validators import MaxLengthValidator, MinLengthValidator, RegexValidator, URLValidator
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from config import documents
from conftest import Client, import_or_skip
from records.db.validators import BIGINT_MAX, GreaterThanValidator
from records.rest.fields import BigIntegerField, DecimalField
from records.rest.schema.auto_schema import RecordSchema
from records.rest.schema.examples import example_of

validators = import_or_skip("openapi_schema_validator.validators")
OAS30ReadValidator, OAS30WriteValidator = validators.OAS30ReadValidator, validators.OAS30WriteValidator

STOCKS, USERS, AUTH = "/api/v1/stocks", "/api/v1/users", "/api/v1/auth"
document = json.loads(documents._openapi())
components = document["components"]["schemas"]
operations = [
    pytest.param(path, method, operation, id=operation["operationId"])
    for path, item in document["paths"].items()
    for method, operation in item.items()
]
every_operation = pytest.mark.parametrize(("path", "method", "operation"), operations)


def schemas(value, location=""):
    """Yield the path and the definition of every schema in the document."""
    if isinstance(value, dict):
        if isinstance(value.get("type"), str) and "in" not in value:
            yield location, value
        for name, child in value.items():
            if name not in {"example", "examples"}:
                yield from schemas(child, f"{location}/{name}")
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from schemas(child, f"{location}/{index}")


def is_valid(name, value, validator=OAS30WriteValidator):
    """Return True if the value is valid against the component."""
    matches = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": components}}
    return validator(matches).is_valid(value)


def body_of(operation):
    content = operation.get("requestBody", {}).get("content", {})
    return content.get("application/json")


def name_of(schema):
    return schema["$ref"].rpartition("/")[2]


# Names


def test_operation_ids_are_unique_identifiers():
    names = [parameter.id for parameter in operations]
    assert len(set(names)) == len(names)
    assert [name for name in names if not name.isidentifier() or keyword.iskeyword(name)] == []


def test_operation_ids_are_stable():
    """Generated clients call operations by these names."""
    assert {
        "auth_register", "auth_login", "auth_refresh", "auth_logout", "auth_sessions_list", "auth_token",
        "users_list", "users_create", "users_retrieve", "users_update", "users_partial_update", "users_destroy",
        "users_restore_create", "users_me_retrieve", "users_me_update", "users_me_partial_update",
        "users_stocks_list", "users_stocks_create", "users_portfolio_retrieve", "users_history_list",
        "stocks_list", "stocks_create", "stocks_retrieve", "stocks_update", "stocks_partial_update", "stocks_destroy",
        "stocks_restore_create", "stocks_reprice_create", "stocks_history_list", "admin_audit_logs_list",
        "admin_audit_logs_retrieve", "admin_audit_logs_undo_entry", "admin_audit_logs_undo_request",
    } <= {parameter.id for parameter in operations}  # fmt: skip


def test_enums_are_named_after_their_field():
    named = {name for name, schema in components.items() if "enum" in schema}
    assert {"UserGenderEnum", "AuditEntryActionEnum", "AuditEntryOutcomeEnum", "CountEnum", "SortOrderEnum"} <= named
    inline = [location for location, schema in schemas(document) if "enum" in schema]
    assert sorted(location.rpartition("/")[2] for location in inline) == sorted(named - {"NullEnum"})


def test_every_tag_is_described():
    used = {tag for parameter in operations for tag in parameter.values[2]["tags"]}
    assert {tag["name"] for tag in document["tags"] if tag["description"].strip()} >= used


def test_document_contains_no_docstrings():
    text = json.dumps(document, ensure_ascii=False)
    classes = [serializers.BaseSerializer, serializers.Field, *(parameter_class for parameter_class in _views())]
    leaked = []
    while classes:
        current_class = classes.pop()
        classes += current_class.__subclasses__()
        line = (current_class.__doc__ or "").strip().partition("\n")[0]
        is_project_class = current_class.__module__.partition(".")[0] in {"config", "records", "stocks", "users"}
        if is_project_class and len(line) > 10 and json.dumps(line, ensure_ascii=False)[1:-1] in text:
            leaked.append(current_class.__name__)
    assert leaked == []


def _views():
    from records.rest.views import StrictMixin

    return StrictMixin.__subclasses__()


# Types


def test_every_array_has_an_item_schema():
    assert [
        location for location, schema in schemas(document) if schema["type"] == "array" and "items" not in schema
    ] == []


def test_integers_beyond_32_bits_have_format_int64():
    assert [
        location
        for location, schema in schemas(document)
        if schema["type"] == "integer"
        and schema.get("format") != "int64"
        and not -(2**31) <= schema.get("minimum", -(2**40)) <= schema.get("maximum", 2**40) < 2**31
    ] == []


@pytest.mark.parametrize("name", ["Stock", "User", "UserDetail", "Me", "AuditEntry"])
def test_ids_have_format_int64(name):
    ids = {"id", "version", "user_id", "owner_id", "deleted_by", "stocks_total"} & components[name]["properties"].keys()
    assert {components[name]["properties"][field]["format"] for field in ids} == {"int64"}


@every_operation
def test_path_ids_have_a_format(path, method, operation):
    for parameter in operation["parameters"]:
        if (parameter["in"], parameter["name"]) == ("path", "id"):
            is_uuid = "sessions" in path
            assert parameter["schema"]["format"] == ("uuid" if is_uuid else "int64")
            assert parameter["example"]


@every_operation
def test_no_parameter_has_a_default(path, method, operation):
    """Generated clients would send the defaults, and `page` together with `cursor` is refused."""
    assert [parameter["name"] for parameter in operation["parameters"] if "default" in parameter["schema"]] == []


def test_request_schemas_forbid_additional_properties():
    requests = {name: schema for name, schema in components.items() if name.endswith("Request")}
    assert len(requests) > 15
    assert [
        name
        for name, schema in requests.items()
        if "anyOf" not in schema and schema.get("additionalProperties") is not False
    ] == []


def test_response_schemas_require_all_columns():
    assert set(components["User"]["required"]) >= {"id", "email", "name", "is_active", "is_staff", "bio", "version"}
    assert {"stocks", "stocks_total"} <= set(components["UserDetail"]["required"])


@pytest.mark.parametrize("name", ["Stock", "User"])
def test_fields_visible_to_staff_are_documented(name):
    deletion = {"is_deleted", "deleted_at", "deleted_by", "deletion_reason"}
    assert deletion <= components[name]["properties"].keys()
    assert not deletion & set(components[name]["required"])


@pytest.mark.parametrize("name", ["StockRequest", "PatchedUserRequest", "PatchedMeRequest"])
def test_fields_writable_by_staff_are_documented(name):
    fields = {"user_id"} if name == "StockRequest" else {"is_active", "is_verified", "is_staff", "is_superuser"}
    for field in fields:
        assert "taff" in components[name]["properties"][field]["description"]


# Responses


@pytest.mark.parametrize("path", [STOCKS, USERS])
def test_deleted_rows_match_the_schema(superuser, make_user, make_stock, path):
    other = make_user()
    make_stock(other)
    assert superuser.delete(f"{USERS}/{other.pk}?reason=left").status_code == 204
    [row] = superuser.get(f"{path}?is_deleted=true").json()["items"]
    name = "Stock" if path == STOCKS else "User"
    assert is_valid(name, row, OAS30ReadValidator)
    assert row.keys() == components[name]["properties"].keys()


def test_user_detail_matches_the_schema(owner, make_stock):
    make_stock(owner.user)
    row = owner.get(f"{USERS}/{owner.user.pk}").json()
    assert is_valid("UserDetail", row, OAS30ReadValidator)
    assert row.keys() == components["UserDetail"]["properties"].keys()
    me = owner.get(f"{USERS}/me").json()
    assert me.keys() == components["Me"]["properties"].keys()


@every_operation
def test_errors_are_documented_as_problems_with_headers(path, method, operation):
    for status, answer in operation["responses"].items():
        assert answer["description"].strip(), status
        assert "X-Request-ID" in answer["headers"]
        if status in {"200", "201", "202", "204", "207", "302", "304"} or (
            status == "503" and not path.startswith("/api/")
        ):
            continue
        problem = answer["content"]["application/problem+json"]["schema"]
        assert problem == {"$ref": "#/components/schemas/Problem"}
        assert ("Retry-After" in answer["headers"]) == (status in {"429", "503"})
    if path.startswith("/api/v1/"):
        assert {"400", "406", "429", "503"} <= operation["responses"].keys()
        assert ("415" in operation["responses"]) == (method in {"post", "put", "patch"} or "requestBody" in operation)
        is_open = not operation["security"] or {} in operation["security"]
        assert is_open or "401" in operation["responses"]
    if "201" in operation["responses"]:
        assert "Location" in operation["responses"]["201"]["headers"]
    if "204" in operation["responses"]:
        assert "content" not in operation["responses"]["204"]


@pytest.mark.parametrize(
    ("path", "method", "accept", "status"),
    [(STOCKS, "get", "text/csv", 406), (f"{AUTH}/login", "post", "application/xml", 406), ("/ping", "get", "a/b", 406)],
)
def test_unsupported_media_types_are_documented_as_406(owner, path, method, accept, status):
    answer = getattr(owner, method)(path, headers={"accept": accept})
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")
    assert str(status) in document["paths"][path][method]["responses"]


# Limits


@pytest.mark.parametrize(
    "change",
    [
        {"price": 0}, {"price": -1}, {"price": 100_000_000_000}, {"price": 0.00001}, {"quantity": 0}, {"quantity": -1},
        {"quantity": BIGINT_MAX + 1}, {"quantity": 1.5}, {"name": ""}, {"name": "ABCDEFGHIJK"}, {"name": "A B"},
        {"unknown": 1}, {"id": 1}, {"is_active": 0}, {"is_active": None}, {"name": 5}, {"user_id": 0}, {"price": "x"},
        {"price": None}, {"quantity": True},
    ],
    ids=str,
)  # fmt: skip
def test_refused_body_violates_the_schema(superuser, change):
    body = {"name": "AAPL", "price": 175.5, "quantity": 10} | change
    assert superuser.post(STOCKS, body).status_code == 400
    assert not is_valid("StockRequest", body)


@pytest.mark.parametrize(
    "change",
    [{"price": 0.5}, {"price": 99_999_999_999}, {"quantity": 1}, {"quantity": BIGINT_MAX}, {"name": "brk.b"},
     {"is_active": False}],
    ids=str,
)  # fmt: skip
def test_accepted_body_matches_the_schema(superuser, change):
    body = {"name": "AAPL", "price": 175.5, "quantity": 10} | change
    assert superuser.post(STOCKS, body).status_code == 201
    assert is_valid("StockRequest", body)


@pytest.mark.parametrize(
    ("method", "path", "name", "body", "is_good"),
    [
        ("post", STOCKS, "StockRequest", {}, False),
        ("post", f"{STOCKS}/reprice", "PricesRequest", {}, False),
        ("post", f"{STOCKS}/reprice", "PricesRequest", {"prices": {}}, False),
        ("post", f"{STOCKS}/reprice", "PricesRequest", {"prices": {"AAPL": 0}}, False),
        ("post", f"{STOCKS}/reprice", "PricesRequest", {"prices": {"AAPL": 1}}, True),
        ("post", USERS, "NewUserRequest", {}, False),
        ("post", USERS, "NewUserRequest", {"gender": "Male"}, False),
        ("post", USERS, "NewUserRequest", {"name": None}, False),
        ("post", USERS, "NewUserRequest", {"username": "only"}, False),
        ("post", USERS, "NewUserRequest", {"name": "Only Name"}, True),
        ("post", USERS, "NewUserRequest", {"username": "both", "email": "both@example.com"}, True),
        ("post", USERS, "NewUserRequest", {"name": "lower case"}, False),
        ("post", USERS, "NewUserRequest", {"name": "Two\nlines"}, False),
        ("post", USERS, "NewUserRequest", {"name": "Some One", "password": "short-7"}, False),
        ("put", f"{USERS}/me", "PatchedMeRequest", {}, True),
        ("put", f"{USERS}/me", "PatchedMeRequest", {"age": 151}, False),
        ("patch", f"{USERS}/me", "PatchedMeRequest", {"gender": "Other"}, False),
        ("patch", f"{USERS}/me", "PatchedMeRequest", {"gender": None, "bio": None}, True),
        ("patch", f"{USERS}/me", "PatchedMeRequest", {"bio": "\0"}, False),
        ("patch", f"{USERS}/me", "PatchedMeRequest", {"bio": 5}, False),
        ("post", f"{AUTH}/register", "RegistrationRequest", {}, False),
        ("post", f"{AUTH}/login", "LoginRequest", {"username": " ", "password": "x"}, False),
    ],
)  # fmt: skip
def test_service_and_schema_accept_the_same_bodies(superuser, method, path, name, body, is_good):
    answer = getattr(superuser, method)(path, body)
    assert (answer.status_code < 300) == is_good, answer.content
    assert is_valid(name, body) == is_good


def matches(regex, **options):
    return RegexValidator(regex, **options)


@pytest.mark.parametrize(
    "field",
    [
        BigIntegerField(),
        BigIntegerField(validators=[GreaterThanValidator(0)]),
        serializers.IntegerField(min_value=-3, max_value=7),
        DecimalField(15, 4, validators=[GreaterThanValidator(0)]),
        DecimalField(3, 1),
        DecimalField(5, 0, min_value=Decimal(2)),
        serializers.FloatField(max_value=2.5),
        serializers.CharField(),
        serializers.CharField(allow_blank=True),
        serializers.CharField(allow_blank=True, min_length=3),
        serializers.CharField(trim_whitespace=False, allow_blank=True),
        serializers.CharField(min_length=2, max_length=4),
        serializers.CharField(validators=[matches(r"^[a-z]+\Z")]),
        serializers.CharField(allow_blank=True, validators=[matches(r"^[a-z]+\Z")]),
        serializers.CharField(validators=[matches(r"^[a-z]+\Z"), matches("[x]", inverse_match=True)]),
        serializers.CharField(validators=[matches("^[A-Z]"), matches(r"[\r\n]", inverse_match=True)]),
        serializers.CharField(validators=[matches("^[A-Z]"), matches("[0-9]"), matches("ab", inverse_match=True)]),
        serializers.CharField(validators=[MinLengthValidator(3), MaxLengthValidator(5)]),
        serializers.URLField(validators=[URLValidator()]),
        serializers.ListField(child=serializers.IntegerField(), min_length=1, max_length=2),
        serializers.DictField(child=serializers.CharField(), allow_empty=False),
        serializers.BooleanField(),
    ],
    ids=lambda field: re.sub(r"<[\w.]+ object at \w+>", "…", repr(field)),
)  # fmt: skip
def test_field_and_schema_accept_the_same_values(field):
    """Schema and field accept the same values of the right type."""
    field.bind("field", serializers.Serializer())
    schema = RecordSchema()._map_serializer_field(field, "request")
    numbers = [-(2**63) - 1, -(2**63), -100, -3, -4, -1, 0, 1, 2, 7, 8, 99, 100, 99999, 100000, BIGINT_MAX]
    numbers += [2.5, 2.6, 0.5, 0.05, 99.9, 99.95, 0.0001, 0.00001, 99_999_999_999.5, 100_000_000_000, 2**63]
    texts = [
        "",
        " ",
        "a",
        "ab",
        "abc",
        "abcdef",
        "A",
        "A1",
        "A1ab",
        "A\nb",
        "\0",
        "a\0",
        "x",
        "abx",
        "  ",
        "https://example.com/",
    ]
    lists = [[], [1], [1, 2], [1, 2, 3]]
    objects = [{}, {"a": "b"}, {"a": ""}]
    kinds = {"number": numbers, "string": texts, "array": lists, "object": objects, "boolean": [True, False]}
    kinds["integer"] = [number for number in numbers if number == int(number)]
    for value in kinds[schema["type"]]:
        if getattr(field, "trim_whitespace", False) and value != value.strip() and value.strip() in texts:
            continue  # the field strips it to another tested value
        if schema.get("format") == "uri" and value != "https://example.com/":
            continue  # the validator does not check `format`
        assert OAS30WriteValidator(schema).is_valid(value) == accepts(field, value), (value, schema)


def accepts(field, value):
    try:
        field.run_validation(value)
    except ValidationError:
        return False
    return True


def test_generated_example_is_valid_for_its_field():
    for field in (
        BigIntegerField(validators=[GreaterThanValidator(20)]),
        DecimalField(3, 1, max_value=Decimal("0.5")),
        serializers.CharField(validators=[matches(r"^[A-Z]+\Z")], max_length=3),
        serializers.CharField(min_length=8),
        serializers.ChoiceField(["a", "b"]),
        serializers.UUIDField(),
        serializers.DateTimeField(),
        serializers.EmailField(),
    ):
        assert accepts(field, example_of(field)), field


# Examples

#: Operations whose bodies contain a secret from a mail or a login.
NEEDS_SECRET = {
    "auth_refresh", "auth_verify_email", "auth_reset_password", "auth_confirm_account_deletion", "auth_token",
    "admin_audit_logs_undo_request",
}  # fmt: skip
operations_with_body = [operation for operation in operations if body_of(operation.values[2])]


@pytest.mark.parametrize(("path", "method", "operation"), operations_with_body)
def test_every_body_has_a_valid_example(path, method, operation):
    media = body_of(operation)
    schema = media["schema"] | {"components": {"schemas": components}}
    for example in media["examples"].values():
        assert OAS30WriteValidator(schema).is_valid(example["value"])


@pytest.mark.parametrize(
    ("path", "method", "operation"),
    [operation for operation in operations if operation.id not in NEEDS_SECRET and "oauth" not in operation.id],
)
def test_example_succeeds(path, method, operation, make_user, make_stock, superuser):
    """Send each example, as the user whom the registration example creates, or as a superuser."""
    registering = document["paths"][f"{AUTH}/register"]["post"]
    [person] = body_of(registering)["examples"].values()
    assert operation is registering or Client().post(f"{AUTH}/register", person["value"]).status_code == 201
    if path.startswith(AUTH):
        body = {name: person["value"][name] for name in ("username", "password")}
        token = Client().post(f"{AUTH}/login", body).json().get("access_token")
        client = Client()
        client.credentials(**{"HTTP_AUTHORIZATION": f"Bearer {token}"} if token else {})
    else:
        client = superuser
    stock = make_stock(make_user())
    if "{id}" in path:
        ids = {"stocks": stock.pk, "users": stock.owner_id, "sessions": None, "audit-logs": None}
        kind = re.search("([a-z-]+)/{id}", path)[1]
        if ids[kind] is None:
            return
        path = path.replace("{id}", str(ids[kind]))
    media = body_of(operation)
    for example in media["examples"].values() if media else [{"value": None}]:
        body = with_existing_ids(example["value"], make_stock(make_user()) if path == STOCKS else make_user())
        answer = getattr(client, method)(path, body)
        assert 200 <= answer.status_code < 300, answer.content


def with_existing_ids(body, row):
    """Return the body with the id of this row in an item of an array that names one."""
    return [item | {"id": row.pk} if "id" in item else item for item in body] if isinstance(body, list) else body


def test_session_deletion_has_no_reason_parameter(superuser):
    """Only soft deletion has a reason."""
    names = [parameter["name"] for parameter in document["paths"][f"{AUTH}/sessions/{{id}}"]["delete"]["parameters"]]
    assert "reason" not in names

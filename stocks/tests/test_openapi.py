"""Responses to valid and nearly valid requests match the OpenAPI document."""

import json
import unicodedata

import pytest
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, transaction

from config import documents
from config.wsgi import application
from conftest import PASSWORD, Client, import_or_skip
from records.db.text import NOT_IN_LINE
from stocks.models import Stock
from users.mail_tokens import DELETE_ACCOUNT, RESET_PASSWORD, VERIFY_EMAIL, mail_token

hypothesis = import_or_skip("hypothesis")
schemathesis = import_or_skip("schemathesis")
checks = import_or_skip("schemathesis.specs.openapi.checks")

AUTH = "/api/v1/auth/"
STRONG_PASSWORD = "glacier-Waltz-52-marble"
TOKENS = {
    f"{AUTH}verify-email": VERIFY_EMAIL,
    f"{AUTH}reset-password": RESET_PASSWORD,
    f"{AUTH}confirm-account-deletion": DELETE_ACCOUNT,
}


def load_schema(**config):
    """Return the OpenAPI schema with this configuration of schemathesis."""
    configuration = schemathesis.Config.from_dict({"seed": 1, **config})
    schema = schemathesis.openapi.from_dict(json.loads(documents._openapi()), config=configuration)
    schema.app = application
    return schema


def hypothesis_settings(examples):
    return hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )


api, anonymous_api = load_schema(), load_schema(phases={"coverage": {"enabled": False}})


@pytest.fixture
def superuser(make_user):
    make_user(is_staff=True, is_superuser=True)  # the last superuser cannot be deleted
    return Client(make_user(is_staff=True, is_superuser=True, password=PASSWORD))


@pytest.fixture
def rows(superuser, owner, make_stock):
    """Create live, changed and deleted stocks, and their audit entries."""
    for name in ("AAPL", "GOOG"):
        make_stock(owner.user, name=name)
    sold = make_stock(owner.user)
    headers = {"X-Request-ID": "sold"}
    assert superuser.patch(f"/api/v1/stocks/{sold.pk}", {"price": 3.5}, headers=headers).status_code == 200
    assert superuser.delete(f"/api/v1/stocks/{sold.pk}?reason=sold", headers=headers).status_code == 204


@pytest.fixture
def call(db):
    """Return a function that calls the service within the test's transaction and rolls back its changes."""

    def call(case, headers):
        headers = {
            "Accept-Encoding": "identity",
            **headers,
        }  # schemathesis does not decompress the responses of a WSGI application
        with transaction.atomic():
            response = case.call(headers=headers)
            try:
                # test_authorisation.py tests permissions for every route.
                case.validate_response(response, headers=headers, excluded_checks=[checks.ignored_auth])
            finally:
                transaction.set_rollback(True)

    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield call
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


def make_acceptable(case, user):
    """Replace values that match the schema but are refused, for example ids that do not exist."""
    query = dict(case.query or {})
    query.pop("fields", None)  # it omits fields that the schema requires
    if "cursor" in query:
        query["cursor"] = ""
    excluded = ("page", "skip", "limit", "count") if "cursor" in query else ("page", "size") if "skip" in query else ()
    if "limit" in query:
        excluded = ("page", "size", *excluded)
    query = {name: value for name, value in query.items() if name not in excluded}
    if int(query.get("page", 1)) > 500:
        query["page"] = 500  # a page after the last is 404, beyond the largest offset 400
    if "reason" in query:
        query["reason"] = visible(query["reason"])
    if not isinstance(case.body, list):
        query.pop("atomic", None)
    case.query = query
    if isinstance(case.body, list):
        # One row, because the values of several may be equal.
        case.body = [acceptable_row(case, case.body[0], user)]
    elif isinstance(case.body, dict):
        case.body = acceptable_object(case, case.body, user)


def visible(text):
    """Replace the characters that are refused although the pattern of the schema, which is simpler, allows them."""
    return "".join(
        "x" if unicodedata.category(character) in NOT_IN_LINE or ord(character) & 0xFFFE == 0xFFFE else character
        for character in text
    )


def acceptable_row(case, row, user):
    """Return an item of an array, with the id of an existing row and without a version."""
    if case.method == "POST":
        return acceptable_object(case, row, user)
    is_user = case.path == "/api/v1/users"
    key = user.pk if is_user else Stock.objects.values_list("pk", flat=True).order_by("pk").last() or 1
    if not isinstance(row, dict):
        return key
    values = {name: value for name, value in acceptable_object(case, row, user).items() if name != "version"}
    if is_user:
        values = {name: value for name, value in values.items() if name not in {"email", "is_active", "is_superuser"}}
    return values | {"id": key}


def acceptable_object(case, body, user):
    valid_values = {
        "user_id": user.pk,
        "current_password": PASSWORD,
        "password": STRONG_PASSWORD,
        "new_password": STRONG_PASSWORD,
        "request_id": "sold",
        "token": mail_token(TOKENS[case.path], user) if case.path in TOKENS else None,
    }
    body = {name: valid_values.get(name, value) for name, value in body.items()}
    if isinstance(body.get("name"), str):
        body["name"] = visible(body["name"])
    if case.path == "/api/v1/users/me" and "email" in body:
        body["current_password"] = PASSWORD
    elif case.path == "/api/v1/users/{id}":
        body.pop("current_password", None)  # allowed only for one's own row
    if "prices" in body:
        body["prices"] = {f"S{number}": price for number, price in enumerate(body["prices"].values())}
    return body


def replace_tags(case):
    """Replace the tags of conditional requests, which schemathesis makes without regard to their pattern."""
    for name in {"If-Match", "If-None-Match"} & (case.headers or {}).keys():
        case.headers[name] = "*"


@api.parametrize()
@hypothesis_settings(8)
def test_responses_match_the_openapi_document(case, superuser, rows, call):
    replace_tags(case)
    if case.meta is None or case.meta.generation.mode.is_positive:
        make_acceptable(case, superuser.user)
    elif isinstance(case.query, dict):
        for name in ("fields", "atomic"):  # with atomic=false, bad rows are reported with 207
            case.query.pop(name, None)
    call(case, {"Authorization": superuser._credentials["HTTP_AUTHORIZATION"]})


@anonymous_api.parametrize()
@hypothesis_settings(4)
def test_anonymous_responses_match_the_openapi_document(case, make_user, call):
    if case.meta is None or case.meta.generation.mode.is_positive:
        make_acceptable(case, make_user(password=PASSWORD))
    call(case, {})

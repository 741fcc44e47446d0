"""Invalid parameters of the admin are refused with 400 or ignored, on both databases."""

from urllib.parse import quote_plus

import pytest
from django.apps import apps
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Group
from django.contrib.contenttypes.models import ContentType
from django.db import models
from django.test import Client

from records.audit.models import AuditEntry
from stocks.models import Stock
from users.models import Identity, QueuedMail, RateLimit, Session

# Each request has its own transaction, so that an error in PostgreSQL does not affect the next request.
pytestmark = pytest.mark.django_db(transaction=True)

FAR_FUTURE = "2999-01-01T00:00:00Z"
TIME_FIELDS = ("created_at", "due_at", "expires_at")
HUGE, LONG = str(10**30), "9" * 5000
INVALID = [
    "", "abc", "-1", "1e400", "NaN", "a\0b", HUGE, LONG, "\ufffd", "'", "\\", "(a+)+$", "1,abc", f"1,{HUGE}",
    "2026-02-30", "0001-01-01T00:00:00+23:59", "::1", "00000000-0000-4000-8000-000000000001", "{}", "x" * 3000,
]  # fmt: skip
LOOKUPS = [
    "__iexact", "__isnull", "__regex", "__contains", "__range", "__date", "__year", "__nosuch", "__upper__regex",
    "__date__gte", "__0", "__", "__exact__exact", "__has_key", "__search", "__trigram_similar", "__deleted_at__regex",
    "__id__in", "__pk", "__password__regex",
]  # fmt: skip
PARAMETERS = [
    "o", "p", "q", "all", "e", "_popup", "_to_field", "_facets", "_changelist_filters", "deleted", "nosuch", "a b",
]  # fmt: skip
ALLOWED = {200, 302, 400}


@pytest.fixture
def superuser_client(make_user):
    client = Client(raise_request_exception=False)
    client.user = make_user(username="boss", is_staff=True, is_superuser=True)
    client.force_login(client.user)
    return client


@pytest.fixture
def rows(make_user, make_stock):
    user = make_user()
    stock = make_stock(user)
    created = [
        user,
        stock,
        Session.objects.create(user=user, expires_at=FAR_FUTURE, ip="::1"),
        Identity.objects.create(user=user, provider="example", subject="7"),
        RateLimit.objects.create(key="login-account:7", expires_at=FAR_FUTURE),
        QueuedMail.objects.create(
            kind="notice", user_id=user.pk, to="a@example.com", **dict.fromkeys(TIME_FIELDS, FAR_FUTURE)
        ),
        Group.objects.create(name="Clerks"),
        AuditEntry.objects.of_row(Stock, stock.pk).get(),
    ]
    assert {type(row) for row in created} == admin.site._registry.keys()
    return created


def list_path(model) -> str:
    return f"/admin/{model._meta.app_label}/{model._meta.model_name}/"


def failures(client, paths, allowed=ALLOWED) -> dict:
    codes = {path[:200]: client.get(path).status_code for path in paths}
    return {path: code for path, code in codes.items() if code not in allowed}


def columns(*model_classes) -> dict[type[models.Field], tuple]:
    """Return one model and field for each type of column."""
    return {type(field): (model, field) for model in model_classes for field in model._meta.get_fields()}


def test_filter_with_an_invalid_lookup_does_not_crash(rows, superuser_client):
    paths = [
        f"{list_path(model)}?{field.name}{lookup}=("
        for model, field in columns(*map(type, rows)).values()
        for lookup in LOOKUPS
    ]
    assert failures(superuser_client, paths) == {}


def test_filter_with_an_invalid_value_does_not_crash(rows, superuser_client):
    paths = [
        f"{list_path(model)}?{field.name}__{lookup}={quote_plus(value)}"
        for model, field in columns(*map(type, rows)).values()
        for value in INVALID
        for lookup in ("in", "gte")
    ]
    assert failures(superuser_client, paths) == {}


def test_invalid_parameter_of_a_list_does_not_crash(rows, superuser_client):
    lists = [list_path(model) for model in (Stock, Session, AuditEntry)]
    forms = [
        f"{list_path(Stock)}add/",
        f"{list_path(Stock)}{rows[1].pk}/change/",
        f"{list_path(Stock)}{rows[1].pk}/delete/",
    ]
    paths = [
        f"{path}?{name}={quote_plus(value)}"
        for path in [*lists, *forms]
        for name in PARAMETERS
        for value in INVALID[::3]
    ]
    assert failures(superuser_client, paths) == {}


def test_invalid_initial_value_of_a_form_does_not_crash(superuser_client):
    paths = [
        f"{list_path(model)}add/?{field.name}={quote_plus(value)}"
        for model, field in columns(type(superuser_client.user), Group, Stock).values()
        for value in INVALID[::2]
    ]
    assert failures(superuser_client, paths) == {}


@pytest.mark.parametrize("model", [Stock, Session, RateLimit])  # ids are integers, UUIDs and texts
def test_invalid_id_in_a_path_does_not_crash(rows, superuser_client, model):
    for value in INVALID:
        key = quote_plus(quote(value)) or "%20"
        pages = [f"{list_path(model)}{key}/{page}" for page in ("", "change/", "delete/", "history/")]
        pages += [f"/admin/users/user/{key}/password/", f"/admin/r/{key}/1/"]
        pages += [f"/admin/r/{ContentType.objects.get_for_model(model).pk}/{key}/"]
        assert failures(superuser_client, pages, ALLOWED | {403, 404}) == {}
        codes = {path: superuser_client.post(path, {"post": "yes"}).status_code for path in pages}
        assert {path: code for path, code in codes.items() if code >= 500} == {}


def test_invalid_autocomplete_parameter_does_not_crash(superuser_client):
    for value in INVALID:
        good = {"app_label": "stocks", "model_name": "stock", "field_name": "owner", "term": "b", "page": "1"}
        paths = [
            "/admin/autocomplete/?"
            + "&".join(f"{key}={quote_plus(text)}" for key, text in (good | {name: value}).items())
            for name in good
        ]
        assert failures(superuser_client, paths, ALLOWED | {403, 404}) == {}


def test_autocomplete_of_any_field_does_not_crash(superuser_client):
    for model in apps.get_models():
        for field in model._meta.get_fields():
            names = {"app_label": model._meta.app_label, "model_name": model._meta.model_name, "field_name": field.name}
            assert superuser_client.get("/admin/autocomplete/", names | {"term": "b"}).status_code in {200, 403, 404}, (
                names
            )


def test_invalid_selection_does_not_crash(rows, superuser_client):
    for value in INVALID:
        codes = {}
        for row in rows:
            for action in ("delete_selected", "restore_selected", "end", "undo_requests", value):
                body = {"action": action, "_selected_action": value, "post": "yes"}
                codes[type(row).__name__, action] = superuser_client.post(list_path(type(row)), body).status_code
        for name in ("confirmed_count", "select_across", "index"):
            body = {"action": "delete_selected", "_selected_action": rows[1].pk, name: value}
            codes[name, value] = superuser_client.post(list_path(Stock), body).status_code
        assert {call: code for call, code in codes.items() if code not in ALLOWED} == {}
        assert {type(row) for row in rows if not type(row).objects.filter(pk=row.pk).exists()} == set()


def test_invalid_values_in_a_form_do_not_crash(rows, superuser_client):
    for value in INVALID[::2]:
        for row in [row for row in rows if type(row) in {type(superuser_client.user), Stock, Group}]:
            names = [field.name for field in row._meta.get_fields()]
            body = dict.fromkeys(names, value) | {"_popup": value, "_saveasnew": value}
            for page in ("add/", f"{row.pk}/change/"):
                for path in (page, f"{page}?_changelist_filters={quote_plus(value)}"):
                    assert superuser_client.post(f"{list_path(type(row))}{path}", body).status_code in ALLOWED
            assert (
                superuser_client.post(f"{list_path(type(row))}{row.pk}/change/", {"_to_field": value}).status_code
                in ALLOWED
            )


@pytest.mark.parametrize(
    "path",
    [
        "/admin/?x={}", "/admin/login/?next={}", "/admin/jsi18n/?packages={}", "/admin/no/{}", "/docs?lang={}",
        "/docs?script={}", "/redoc?version={}", "/openapi.json?format={}", "/account/verify-email?token={}",
        "/account/reset-password?token={}", "/account/forgot-password?field={}", "/account/delete-account?{}=1",
        "/api/login?next={}",
    ],
)  # fmt: skip
def test_invalid_parameter_of_other_pages_does_not_crash(superuser_client, path):
    for value in INVALID[::3]:
        assert superuser_client.get(path.format(quote_plus(value))).status_code in ALLOWED | {404}
        assert Client(raise_request_exception=False).get(path.format(quote_plus(value))).status_code in ALLOWED | {404}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("name__regex=(", 400),
        ("name__iregex=(a%2B)%2B$", 400),
        ("owner__username__regex=(", 400),
        ("name__icontains=A", 400),
        ("created_at__date=2026-02-30", 400),
        ("price__gte=1e400", 400),
        (f"id__in={HUGE}", 400),
        ("id__exact=%00", 400),
        ("owner__id__exact=%00", 400),
        ("q=%00", 400),
        (f"q={'a+' * 30}", 400),
        ("&".join(["id__exact=1"] * 50), 400),
        ("id__exact=abc", 302),
        ("nosuch=1", 302),
        ("p=99999", 200),
        ("name__exact=aapl", 200),
        ("owner__id__exact=1", 200),
        ("price__gte=1&price__lt=2.5", 200),
        ("id__in=1,2,3", 200),
        ("deleted_at__isnull=maybe", 200),
        ("is_active__exact=1&deleted=1", 200),
        ("created_at__gte=2026-01-01+00:00:00%2B00:00", 200),
    ],
)
def test_filter_has_the_same_status_on_both_databases(superuser_client, query, code):
    assert superuser_client.get(f"/admin/stocks/stock/?{query}").status_code == code


@pytest.mark.parametrize(
    "query", ["ip__exact=abc", "ip__exact=1.2.3.4.5", "family_hash__gte=a", "refresh_hash__exact=a"]
)
def test_invalid_address_and_hidden_columns_are_refused(superuser_client, query):
    assert superuser_client.get(f"/admin/users/session/?{query}").status_code == 400


def test_filter_links_work(superuser_client, rows):
    """Follow every filter link that the lists offer."""
    for row in rows:
        changelist = superuser_client.get(list_path(type(row))).context["cl"]
        links = [choice["query_string"] for spec in changelist.filter_specs for choice in spec.choices(changelist)]
        assert failures(superuser_client, [f"{list_path(type(row))}{link}" for link in links], {200}) == {}

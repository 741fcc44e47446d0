"""Permissions of every persona, for every route of the URLconf and every method."""

import re
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from django.contrib.admindocs.views import simplify_regex
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.urls import URLPattern, get_resolver, resolve
from django.utils import timezone

from config.urls import router
from conftest import PASSWORD, Client
from records.audit.models import AuditEntry
from stocks.models import Stock
from users.mail_tokens import DELETE_ACCOUNT, RESET_PASSWORD, VERIFY_EMAIL, mail_token
from users.models import Identity, QueuedMail, RateLimit, User

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
PERSONAS = ("anonymous", "stranger", "owner", "bare_staff", "staff", "superuser", "deactivated")


def by_persona(cells: str) -> Callable[[int], dict[str, str]]:
    """Return a function that maps each persona to its outcome; `ok` stands for the status of success."""
    cell_of = dict(zip(PERSONAS, cells.split(), strict=True))
    return lambda ok: {persona: str(ok) if cell == "ok" else cell for persona, cell in cell_of.items()}


# `none`: a list without the owner's rows. `login`: a redirect to the admin's login. 200 instead of ok: a form error.
# fmt: off
#                              anonymous stranger owner bare_staff staff superuser deactivated
PUBLIC           = by_persona("ok        ok       ok    ok         ok    ok        ok")
OWN_TOKEN        = by_persona("ok        ok       ok    ok         ok    ok        401")
OWN_MAIL         = by_persona("ok        ok       ok    ok         ok    ok        400")
OWN_LOGIN        = by_persona("ok        ok       ok    ok         ok    ok        200")
SIGNED_IN        = by_persona("401       ok       ok    ok         ok    ok        401")
OWN_SESSION      = by_persona("401       404      ok    404        404   404       401")
OWN_SESSIONS     = by_persona("401       none     ok    none       none  none      401")
OWN_ROW          = by_persona("401       404      ok    404        ok    ok        401")
OWN_ROWS         = by_persona("401       none     ok    none       ok    ok        401")
STAFF            = by_persona("401       403      403   403        ok    ok        401")
OWN_ROW_OF_BODY  = by_persona("401       400      ok    400        ok    ok        401")  # a row that is not found
STAFF_ON_ROW     = by_persona("401       404      403   404        ok    ok        401")
STAFF_ON_DELETED = by_persona("401       404      404   404        ok    ok        401")
STAFF_ON_ACCOUNT = by_persona("401       404      401   404        ok    ok        401")  # the owner is deleted
AUDIT_LOG        = by_persona("401       403      403   403        403   ok        401")
AUDIT_ENTRY      = by_persona("401       404      404   404        404   ok        401")
ADMIN            = by_persona("login     login    login ok         ok    ok        login")
ADMIN_STAFF      = by_persona("login     login    login 403        ok    ok        login")
ADMIN_APP        = by_persona("login     login    login 404        ok    ok        login")
ADMIN_SUPERUSER  = by_persona("login     login    login 403        403   ok        login")
ADMIN_READ_ONLY  = by_persona("login     login    login 403        403   403       login")
ADMIN_LOGIN      = by_persona("200       200      200   ok         ok    ok        200")
ADMIN_LOGOUT     = by_persona("302       302      302   ok         ok    ok        302")
# fmt: on


def public(**methods) -> dict:
    return {"*": PUBLIC(405)} | methods


def protected(**methods) -> dict:
    return {"*": SIGNED_IN(405)} | methods


def page(**methods) -> dict:
    """Return the outcomes of an admin page, which handles PUT, PATCH and DELETE like GET."""
    return {"*": methods["GET"]} | methods


def model_pages(rows: str, readers: Callable, writers: Callable) -> dict[str, dict]:
    path = f"/admin/{rows}/"
    return {
        path: page(GET=readers(200), POST=readers(302)),
        f"{path}add/": page(GET=writers(200), POST=writers(302)),
        f"{path}{{object_id}}/": page(GET=ADMIN(302)),
        f"{path}{{object_id}}/change/": page(GET=readers(200), POST=writers(302)),
        f"{path}{{object_id}}/delete/": page(GET=readers(200), POST=readers(302)),
        f"{path}{{object_id}}/history/": page(GET=readers(200)),
    }


PUBLIC_PAGES = (
    "/", "/favicon.ico", "/ping", "/health/live", "/health/ready", "/openapi.json", "/docs", "/redoc", "/redoc.js",
    "/account/verify-email", "/account/forgot-password", "/account/reset-password", "/account/delete-account",
)  # fmt: skip

#: Route → method → persona → outcome; `*` stands for all other methods.
TABLE = {
    **dict.fromkeys(PUBLIC_PAGES, public(GET=PUBLIC(200))),
    "/api{var}": {"*": PUBLIC(404)},
    "/api/login": public(GET=PUBLIC(200), POST=OWN_LOGIN(302), PUT=PUBLIC(200)),
    "/api/logout": public(POST=PUBLIC(302)),
    "/api/v1": {"*": OWN_TOKEN(405), "GET": OWN_TOKEN(200)},
    "/api/v1/auth/register": public(POST=PUBLIC(201)),
    "/api/v1/auth/request-email-verification": protected(POST=SIGNED_IN(202)),
    "/api/v1/auth/verify-email": public(POST=OWN_MAIL(204)),
    "/api/v1/auth/login": public(POST=OWN_TOKEN(200)),
    "/api/v1/auth/oauth/{provider}/login": public(GET=PUBLIC(404)),
    "/api/v1/auth/oauth/{provider}/callback": public(GET=PUBLIC(404)),
    "/api/v1/auth/token": protected(POST=SIGNED_IN(200)),
    "/api/v1/auth/refresh": public(POST=OWN_TOKEN(200)),
    "/api/v1/auth/logout": protected(POST=SIGNED_IN(204)),
    "/api/v1/auth/sessions": protected(GET=OWN_SESSIONS(200), DELETE=SIGNED_IN(204)),
    "/api/v1/auth/sessions/{id}": protected(DELETE=OWN_SESSION(204)),
    "/api/v1/auth/change-password": protected(POST=SIGNED_IN(204)),
    "/api/v1/auth/request-password-reset": public(POST=PUBLIC(202)),
    "/api/v1/auth/reset-password": public(POST=OWN_MAIL(204)),
    "/api/v1/auth/request-account-deletion": protected(POST=SIGNED_IN(202)),
    "/api/v1/auth/confirm-account-deletion": public(POST=OWN_MAIL(200)),
    "/api/v1/auth/cancel-account-deletion": protected(POST=SIGNED_IN(204)),
    "/api/v1/users": protected(GET=OWN_ROWS(200), POST=STAFF(201), PATCH=OWN_ROW_OF_BODY(200), DELETE=STAFF(200)),
    "/api/v1/users/me": protected(GET=SIGNED_IN(200), PUT=SIGNED_IN(200), PATCH=SIGNED_IN(200)),
    "/api/v1/users/{id}": protected(GET=OWN_ROW(200), PUT=OWN_ROW(200), PATCH=OWN_ROW(200), DELETE=STAFF_ON_ROW(204)),
    "/api/v1/users/{id}/restore": protected(POST=STAFF_ON_ACCOUNT(200)),
    "/api/v1/users/{id}/stocks": {"*": OWN_ROW(405), "GET": OWN_ROW(200), "POST": OWN_ROW(201)},
    "/api/v1/users/{id}/portfolio": protected(GET=OWN_ROW(200)),
    "/api/v1/stocks": protected(
        GET=OWN_ROWS(200), POST=SIGNED_IN(201), PATCH=OWN_ROW_OF_BODY(200), DELETE=OWN_ROW_OF_BODY(200)
    ),
    "/api/v1/stocks/reprice": protected(POST=STAFF(200)),
    "/api/v1/stocks/{id}": protected(GET=OWN_ROW(200), PUT=OWN_ROW(200), PATCH=OWN_ROW(200), DELETE=OWN_ROW(204)),
    "/api/v1/stocks/{id}/restore": protected(POST=STAFF_ON_DELETED(200)),
    "/api/v1/users/{id}/history": protected(GET=OWN_ROW(200)),
    "/api/v1/stocks/{id}/history": protected(GET=OWN_ROW(200)),
    "/api/v1/admin/audit-logs": protected(GET=AUDIT_LOG(200)),
    "/api/v1/admin/audit-logs/{id}": protected(GET=AUDIT_ENTRY(200)),
    "/api/v1/admin/audit-logs/undo": protected(POST=AUDIT_LOG(200)),
    "/api/v1/admin/audit-logs/{id}/undo": protected(POST=AUDIT_ENTRY(200)),
    "/admin/": page(GET=ADMIN(200)),
    "/admin/login/": {"*": PUBLIC(405), "GET": ADMIN_LOGIN(302), "POST": ADMIN_LOGIN(302), "PUT": PUBLIC(200)},
    "/admin/logout/": {"*": ADMIN_LOGOUT(405), "POST": PUBLIC(302)},
    "/admin/password_change/": {"*": ADMIN(405), "GET": ADMIN(200), "POST": ADMIN(302), "PUT": ADMIN(200)},
    "/admin/password_change/done/": {"*": ADMIN(405), "GET": ADMIN(200)},
    "/admin/autocomplete/": {"*": ADMIN(405), "GET": ADMIN_STAFF(200)},
    "/admin/jsi18n/": {"*": ADMIN(405), "GET": ADMIN(200)},
    "/admin/r/{content_type_id}/{object_id}/": page(GET=ADMIN(404)),
    "/admin/{app_label}/": page(GET=ADMIN_APP(200)),
    "/admin/{url}": page(GET=ADMIN(404)),
    "/admin/users/user/{id}/password/": page(GET=ADMIN_STAFF(200), POST=ADMIN_STAFF(302)),
    **model_pages("users/user", ADMIN_STAFF, ADMIN_STAFF),
    **model_pages("stocks/stock", ADMIN_STAFF, ADMIN_STAFF),
    **model_pages("auth/group", ADMIN_SUPERUSER, ADMIN_SUPERUSER),
    **model_pages("users/session", ADMIN_SUPERUSER, ADMIN_READ_ONLY),
    **model_pages("users/identity", ADMIN_SUPERUSER, ADMIN_READ_ONLY),
    **model_pages("users/ratelimit", ADMIN_SUPERUSER, ADMIN_READ_ONLY),
    **model_pages("users/queuedmail", ADMIN_SUPERUSER, ADMIN_READ_ONLY),
    **model_pages("records/auditentry", ADMIN_SUPERUSER, ADMIN_READ_ONLY),
    "/admin/records/auditentry/{object_id}/delete/": page(GET=ADMIN_READ_ONLY(200)),
}

#: Route → method → outcome for staff with every permission on users, if the user has one more permission.
STRONGER_USER_TABLE = {
    "/api/v1/users/{id}": {"PUT": "403", "PATCH": "403", "DELETE": "403"},
    "/api/v1/users/{id}/restore": {"POST": "403"},
    "/api/v1/users/{id}/stocks": {"POST": "201"},
    "/api/v1/users": {"PATCH": "400", "DELETE": "400"},
    "/api/v1/auth/sessions/{id}": {"DELETE": "404"},
    "/admin/users/user/{id}/password/": {"POST": "403"},
    **{
        f"/admin/users/{kind}/{page}": {"POST": "403"}
        for kind in ("user", "session", "identity", "ratelimit", "queuedmail")
        for page in ("", "{object_id}/change/", "{object_id}/delete/")
    },
}

NEW_PASSWORD = "difference-engine-1822"
REQUEST_ID = "the-one-to-undo"
ACCOUNT = {"username": "ada", "email": "ada@example.com"}
STOCK = {"name": "MSFT", "price": 421.9, "quantity": 2}
#: Route → function that returns the request body for the caller, or for the owner if the caller is anonymous.
BODIES = {
    "/api/v1/auth/register": lambda user: ACCOUNT | {"password": NEW_PASSWORD},
    "/api/v1/auth/verify-email": lambda user: {"token": mail_token(VERIFY_EMAIL, user)},
    "/api/v1/auth/refresh": lambda user: {"refresh_token": user.sessions.get().next_refresh_token()},
    "/api/v1/auth/change-password": lambda user: {"current_password": PASSWORD, "new_password": NEW_PASSWORD},
    "/api/v1/auth/request-password-reset": lambda user: {"email": user.email},
    "/api/v1/auth/reset-password": lambda user: {
        "token": mail_token(RESET_PASSWORD, user),
        "new_password": NEW_PASSWORD,
    },
    "/api/v1/auth/confirm-account-deletion": lambda user: {"token": mail_token(DELETE_ACCOUNT, user)},
    "/api/v1/stocks/reprice": lambda user: {"prices": {"AAPL": 190.25}},
    "/api/v1/admin/audit-logs/undo": lambda user: {"request_id": REQUEST_ID},
    **dict.fromkeys(
        ("/api/login", "/api/v1/auth/login", "/admin/login/"),
        lambda user: {"username": user.username, "password": PASSWORD},
    ),
    **dict.fromkeys(("/api/v1/users", "/api/v1/users/me", "/api/v1/users/{id}"), lambda user: {"name": "Ada Lovelace"}),
    **dict.fromkeys(("/api/v1/stocks", "/api/v1/stocks/{id}", "/api/v1/users/{id}/stocks"), lambda user: STOCK),
}
#: The fields of all other admin forms.
ADMIN_FORM = ACCOUNT | STOCK | {
    "action": "delete_selected", "post": "yes", "usable_password": "true",
    "password1": NEW_PASSWORD, "password2": NEW_PASSWORD, "old_password": PASSWORD, "new_password1": NEW_PASSWORD,
    "new_password2": NEW_PASSWORD,
}  # fmt: skip
#: Routes whose PATCH and DELETE take an array with the ids of rows.
COLLECTIONS = ("/api/v1/users", "/api/v1/stocks")
QUERIES = {"/admin/autocomplete/": "?app_label=stocks&model_name=stock&field_name=owner"}


def route_template(pattern: str) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", simplify_regex(pattern))


def routes(patterns: list, prefix: str = "") -> Iterator[str]:
    for pattern in patterns:
        path = prefix + str(pattern.pattern)
        if isinstance(pattern, URLPattern):
            yield route_template(path)
        else:
            yield from routes(pattern.url_patterns, path)


PROJECT_APPS = ("users", "stocks", "records")
#: Paths of resources that startresource created; they have their own tests.
SCAFFOLDED_PATHS = {
    path
    for prefix, viewset, _ in router.registry
    if (meta := viewset.queryset.model._meta).app_label not in PROJECT_APPS
    for path in (f"/api/v1/{prefix}", f"/admin/{meta.app_label}/{meta.model_name}")
}
ROUTES = [
    route
    for route in routes(get_resolver().url_patterns)
    if not any(f"{route}/".startswith(f"{path}/") for path in SCAFFOLDED_PATHS)
]


def is_for_browsers(route: str) -> bool:
    return route.startswith("/admin/") or route in {"/api/login", "/api/logout", "/api/v1/auth/token"}


@pytest.fixture
def make_user(make_user):
    return partial(make_user, password=PASSWORD)


@pytest.fixture
def caller(request, route, persona, make_user, staff_with) -> Client:
    name = "stranger" if persona == "deactivated" else persona
    client = staff_with() if name == "bare_staff" else request.getfixturevalue(name)
    if client.user and is_for_browsers(route):
        client.force_login(client.user)
    if persona == "deactivated":
        client.user.is_active = False
        client.user.save()
    if persona == "superuser" and "account-deletion" in route:
        make_user(is_superuser=True)  # the last superuser cannot delete their account
    return client


def create_audit_entry(stock) -> AuditEntry:
    Client(User.objects.create_superuser("auditor", "auditor@example.com")).patch(
        f"/api/v1/stocks/{stock.pk}", {"price": 2}, HTTP_X_REQUEST_ID=REQUEST_ID
    )
    return AuditEntry.objects.get(request_id=REQUEST_ID)


def create_queued_mail(user) -> QueuedMail:
    now = timezone.now()
    return QueuedMail.objects.create(kind="notice", user_id=user.pk, created_at=now, due_at=now, expires_at=now)


@pytest.fixture
def row(request, route, make_stock):
    """Return the row that the route addresses; it belongs to the owner if such rows have one."""
    kind = route.partition("/{")[0].rstrip("s/").rpartition("/")[2]
    make = {
        "user": lambda owner: make_stock(owner).owner,
        "stock": make_stock,
        "session": lambda owner: owner.sessions.earliest("created_at"),
        "identity": lambda owner: Identity.objects.create(user=owner, provider="example", subject="1"),
        "group": lambda owner: Group.objects.create(name="analysts"),
        "queuedmail": create_queued_mail,
        "ratelimit": lambda owner: RateLimit.objects.create(key=f"login-account:{owner.pk}", expires_at=timezone.now()),
        **dict.fromkeys(("audit-log", "undo", "auditentry"), lambda owner: create_audit_entry(make_stock(owner))),
    }
    return make[kind](request.getfixturevalue("owner").user) if kind in make else None


@pytest.fixture
def body(request, route, row, caller):
    if route in BODIES:
        return BODIES[route](caller.user or request.getfixturevalue("owner").user)
    if route.startswith("/admin/"):
        chosen = {"_selected_action": row.pk if row else "", "owner": caller.user.pk if caller.user else ""}
        return ADMIN_FORM | chosen | opened_version(caller, route, row)
    return None


def opened_version(caller, route, row) -> dict[str, str]:
    """Return the hidden field of a change form, if the caller can open it."""
    page = caller.get(route.format(object_id=row.pk)).content.decode() if route.endswith("/change/") else ""
    return dict(re.findall('name="(opened_version)" value="([^"]+)"', page))


def outcome(answer, row) -> str:
    if answer.headers.get("Location", "").startswith("/admin/login/"):
        return "login"
    data = answer.json() if answer.headers.get("Content-Type") == "application/json" else {}
    is_list = "total" in data
    holders = (
        {str(item.get("owner_id") or item.get("user_id", item["id"])) for item in data["items"]} if is_list else ()
    )
    if row and is_list and str(getattr(row, "owner_id", row.pk)) not in holders:
        return "none"
    return str(answer.status_code)


def test_every_route_is_in_the_table():
    assert sorted(ROUTES) == sorted(TABLE)


@pytest.mark.parametrize("persona", PERSONAS)
@pytest.mark.parametrize(("route", "method"), [(route, method) for route in ROUTES for method in TABLE.get(route, ())])
def test_personas_get_the_outcomes_of_the_table(route, method, persona, row, caller, body):
    row_id = row.pk if row else 1
    kind = ContentType.objects.get_for_model(Stock).pk
    names = {"content_type_id": kind, "app_label": "stocks", "provider": "example", "var": "/unknown", "url": "unknown"}
    path = route.format(id=row_id, object_id=row_id, **names)
    assert route_template(resolve(path).route) == route
    if method == "POST" and route.endswith("/restore"):
        row.delete()
    if method in {"PATCH", "DELETE"} and route in COLLECTIONS:
        body = [{"id": row_id}]
    content = {"data": body, "format": "multipart" if is_for_browsers(route) else "json"}
    methods = [name for name in METHODS if name not in TABLE[route]] if method == "*" else [method]
    outcomes = {}
    for tested_method in methods:
        send = getattr(caller, tested_method.lower())
        outcomes[tested_method] = outcome(
            send(path + QUERIES.get(route, ""), **({} if tested_method == "GET" else content)), row
        )
    assert outcomes == dict.fromkeys(methods, TABLE[route][method][persona])


def test_every_account_write_is_in_the_stronger_user_table():
    accounts = ("/api/v1/users", "/api/v1/auth/sessions/{", "/admin/users/")
    writes = {
        (route, method)
        for route in ROUTES
        if route.startswith(accounts) and not route.endswith(("/add/", "/me"))
        for method in TABLE[route]
        if method not in {"GET", "*"} and (route, method) != ("/api/v1/users", "POST")
    }
    assert writes == {(route, method) for route, methods in STRONGER_USER_TABLE.items() for method in methods}


@pytest.mark.parametrize("persona", ["staff"])
@pytest.mark.parametrize(
    ("route", "method"), [(route, method) for route, cells in STRONGER_USER_TABLE.items() for method in cells]
)
def test_staff_cannot_act_on_users_with_more_permissions(route, method, persona, row, caller, body, owner):
    rights = Permission.objects.filter(content_type__app_label="users")
    caller.user.user_permissions.add(*rights)
    owner.user.user_permissions.add(Permission.objects.get(codename="change_group"))
    if route.endswith("/restore"):
        row.delete()
    if route == "/api/v1/users/{id}":
        body = {"email": "thief@example.com"}
    if route == "/api/v1/users":
        body = [{"id": row.pk} | ({"email": "thief@example.com"} if method == "PATCH" else {})]
    content = {"data": body, "format": "multipart" if is_for_browsers(route) else "json"}
    answer = getattr(caller, method.lower())(route.format(id=row.pk, object_id=row.pk), **content)
    assert outcome(answer, row) == STRONGER_USER_TABLE[route][method]

import json
import re

import pytest
from django.core.management import call_command
from django.db import InterfaceError, OperationalError, connection, connections
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client
from redis.exceptions import RedisError

from conftest import import_or_skip

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
PUBLIC = ["/ping", "/health/live", "/health/ready", "/openapi.json", "/docs", "/redoc", "/api/v1"]


@pytest.fixture(params=[OperationalError, InterfaceError])
def database_down(request, db, monkeypatch):
    def refuse(*args, **kwargs):
        raise request.param("connection to server at 127.0.0.1 failed: FATAL for user postgres")

    with monkeypatch.context() as patch:
        patch.setattr(connections["default"], "cursor", refuse)
        patch.setattr(connections["default"], "ensure_connection", refuse)
        yield


@pytest.fixture
def schema(anonymous):
    return json.loads(anonymous.get("/openapi.json").content)


# Health


def test_index_is_healthy(anonymous, settings):
    answer = anonymous.get("/")
    assert answer.status_code == 200
    expected = {"status": "healthy", "database": "connected", "version": "1.0.0"}
    assert answer.json() == expected | {
        "message": f"{settings.APP_NAME} is running",
        "links": answer.json()["links"],
    }


def test_index_contains_the_app_name(anonymous, settings):
    settings.APP_NAME = "Holdings"
    assert anonymous.get("/").json()["message"] == "Holdings is running"


def test_index_links_work(anonymous):
    links = anonymous.get("/").json()["links"]
    assert {"api", "docs", "redoc", "admin"} <= set(links)
    for link in links.values():
        assert anonymous.get(link, follow=True).status_code == 200


def test_index_costs_one_query(anonymous, django_assert_num_queries):
    with django_assert_num_queries(1):
        anonymous.get("/")


def test_index_is_unhealthy_without_database(anonymous, database_down):
    answer = anonymous.get("/")
    assert answer.status_code == 503
    assert (answer.json()["status"], answer.json()["database"]) == ("unhealthy", "disconnected")


def test_browser_gets_an_index_page(anonymous, settings):
    answer = anonymous.get("/", headers=BROWSER)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    page = answer.content.decode()
    assert all(text in page for text in (f"{settings.APP_NAME} is running", "healthy", "connected", "1.0.0"))
    assert all(f'href="{link}"' in page for link in ("/docs", "/redoc", "/admin/", "/api/v1"))


def test_browser_gets_an_index_page_without_database(anonymous, database_down):
    answer = anonymous.get("/", headers=BROWSER)
    assert (answer.status_code, answer.headers["Content-Type"]) == (503, "text/html; charset=utf-8")
    assert "disconnected" in answer.content.decode()


def test_ping_returns_the_configured_message(anonymous, settings, django_assert_num_queries):
    settings.PING_MESSAGE = "hello"
    with django_assert_num_queries(0):
        answer = anonymous.get("/ping")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "message": "hello"})


def test_default_ping_message_is_pong(anonymous):
    assert anonymous.get("/ping").json()["message"] == "pong"


@pytest.mark.parametrize("path", ["/ping", "/health/live"])
def test_liveness_is_ok_without_database(anonymous, database_down, path):
    answer = anonymous.get(path)
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
def test_health_is_ok(anonymous, path):
    answer = anonymous.get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_readiness_fails_without_database(anonymous, database_down):
    answer = anonymous.get("/health/ready")
    assert answer.status_code == 503
    assert "database" in answer.content.decode()


def test_readiness_fails_while_migrations_are_pending(anonymous):
    MigrationRecorder(connection).record_unapplied("stocks", "0002_default_users")
    answer = anonymous.get("/health/ready")
    assert answer.status_code == 503
    assert "stocks.0002_default_users" in answer.content.decode()
    assert "stocks.0001_stocks" not in answer.content.decode()


def test_readiness_fails_without_any_migration(anonymous, monkeypatch):
    monkeypatch.setattr(MigrationRecorder, "has_table", lambda self: False)
    answer = anonymous.get("/health/ready")
    assert answer.status_code == 503
    assert "users.0001_users" in answer.content.decode()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "/api/v1/stocks"),
        ("post", "/api/v1/stocks"),
        ("get", "/api/v1/users/me"),
        ("patch", "/api/v1/users/1"),
        ("get", "/api/v1/users/1/portfolio"),
        ("post", "/api/v1/auth/login"),
        ("post", "/api/v1/auth/register"),
    ],
)
def test_api_without_database_is_503_with_retry_after(owner, database_down, method, path):
    person = {"username": "ada", "password": "analytical-engine-1843"}
    body = person | {"email": "ada@example.com"} if path.endswith("register") else person
    answer = getattr(owner, method)(path, None if method == "get" else body)
    assert (answer.status_code, answer.headers["Content-Type"]) == (503, "application/problem+json")
    assert int(answer.headers["Retry-After"]) > 0
    assert "postgres" not in answer.content.decode()


@pytest.fixture
def administrator(anonymous, superuser):
    anonymous.force_login(superuser.user)
    return anonymous


def test_admin_without_database_is_503_with_retry_after(administrator, database_down):
    answer = administrator.get("/admin/", headers=BROWSER)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "postgres" not in answer.content.decode()


# Paths


@pytest.mark.parametrize("path", PUBLIC)
def test_public_path_works_with_and_without_slash(anonymous, path):
    assert [anonymous.get(path).status_code, anonymous.get(f"{path}/").status_code] == [200, 200]


def test_every_operation_works_with_and_without_slash(superuser, schema):
    operations = [(path, method) for path, item in schema["paths"].items() for method in item if path != "/"]
    assert len(operations) > 20
    for path, method in operations:
        paths = (path.replace("{id}", "0"), path.replace("{id}", "0") + "/")
        clients = (type(superuser)(superuser.user) for _ in paths)  # logging out ends a session
        plain, slashed = (
            client.generic(method.upper(), url, "{}", "application/json")
            for client, url in zip(clients, paths, strict=True)
        )
        assert (path, method, slashed.status_code) == (path, method, plain.status_code)
        assert plain.status_code not in {301, 302, 307, 308, 405, 500}


@pytest.mark.parametrize("path", ["/api/v1/stocks/", "/api/v1/stocks"])
def test_post_works_with_and_without_slash(owner, path):
    assert owner.post(path, {"name": "AAPL", "price": 1, "quantity": 1}).status_code == 201


@pytest.mark.parametrize("path", ["/api/v1/nothing", "/api/v1/nothing/", "/api/nothing", "/api", "/api/v1/stocks/1/2"])
@pytest.mark.parametrize("method", ["get", "post", "delete"])
def test_unknown_api_path_is_a_problem(anonymous, path, method):
    answer = getattr(anonymous, method)(path)
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("path", ["/ping", "/health/live", "/health/ready", "/"])
def test_service_refuses_unknown_parameters(anonymous, path):
    answer = anonymous.get(f"{path}?nonsense=1")
    assert (answer.status_code, list(answer.json()["errors"])) == (400, ["nonsense"])


@pytest.mark.parametrize("path", ["/", "/ping", "/api/v1/stocks", "/nowhere", "/docs"])
def test_every_response_contains_the_request_id(anonymous, path):
    answer = anonymous.get(path, headers={"X-Request-ID": "my-own.id:7"})
    assert answer.headers["X-Request-ID"] == "my-own.id:7"


def test_api_root_lists_every_collection(anonymous):
    answer = anonymous.get("/api/v1/").json()
    assert {"users", "stocks", "admin/audit-logs"} <= answer.keys()
    assert answer == {name: f"http://testserver/api/v1/{name}" for name in answer}


# Documentation


def test_openapi_is_valid(schema):
    import_or_skip("openapi_spec_validator").validate(schema)
    assert schema["openapi"].startswith("3.")


def test_openapi_is_generated_without_warnings(db, tmp_path):
    file = tmp_path / "openapi.yaml"
    call_command("spectacular", "--fail-on-warn", "--validate", "--file", str(file))
    assert file.stat().st_size > 0


def test_openapi_contains_every_endpoint(schema):
    expected = {
        "/", "/ping", "/health/live", "/health/ready", "/api/v1/auth/register", "/api/v1/auth/login", "/api/v1/users",
        "/api/v1/users/{id}", "/api/v1/users/me", "/api/v1/users/{id}/restore", "/api/v1/users/{id}/stocks",
        "/api/v1/users/{id}/portfolio", "/api/v1/stocks", "/api/v1/stocks/{id}", "/api/v1/stocks/{id}/restore",
        "/api/v1/stocks/reprice",
    }  # fmt: skip
    assert expected <= set(schema["paths"])


def test_every_property_has_a_description(schema):
    components = schema["components"]["schemas"]
    assert [
        f"{name}.{field}"
        for name, component in components.items()
        for field, definition in component.get("properties", {}).items()
        if not definition.get("description", "").strip()
    ] == []


def operations(schema):
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            yield f"{method} {path}", operation


def test_every_parameter_has_a_description(schema):
    assert [
        f"{name}: {parameter['name']}"
        for name, operation in operations(schema)
        for parameter in operation.get("parameters", [])
        if not parameter.get("description", "").strip()
    ] == []


def test_every_api_operation_documents_its_errors(schema):
    for name, operation in operations(schema):
        if " /api/v1/" in name:
            problem = operation["responses"]["503"]["content"]["application/problem+json"]["schema"]["$ref"]
            assert problem == "#/components/schemas/Problem", name


def test_stock_list_documents_its_parameters(schema):
    names = {parameter["name"] for parameter in schema["paths"]["/api/v1/stocks"]["get"]["parameters"]}
    paging = {"page", "size", "skip", "limit", "cursor", "count", "sort_by", "sort_order", "search", "fields"}
    filters = {"name", "name__in", "price__gte", "quantity__lt", "is_active", "user_id", "created_at__date"}
    assert paging | filters | {"is_deleted"} <= names


def test_protected_operations_document_authentication(schema):
    assert {"accessToken": []} in schema["paths"]["/api/v1/stocks"]["get"]["security"]
    assert schema["paths"]["/api/v1/auth/login"]["post"].get("security", []) in ([], [{}])
    assert schema["components"]["securitySchemes"]["accessToken"]["scheme"] == "bearer"


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/"])
def test_page_references_no_other_host(anonymous, path):
    page = anonymous.get(path, headers=BROWSER).content.decode()
    assert "<html" in page
    hosts = set(re.findall(r"""(?:https?:|["'(])//([^/\s"'<>)]+)""", page))
    assert hosts - {"testserver", "www.w3.org"} == set()


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_page_assets_are_served_locally(anonymous, path):
    page = anonymous.get(path, headers=BROWSER).content.decode()
    links = re.findall(r"""<(?:script|link|img)[^>]+(?:src|href)=["']([^"']+)""", page)
    assert any(link.endswith(".js") for link in links)
    for link in links:
        answer = anonymous.get(link)
        assert (link, answer.status_code) == (link, 200)
        answer.close()


@pytest.mark.parametrize("path", ["/docs", "/redoc/", "/openapi.json", "/favicon.ico"])
@pytest.mark.parametrize("method", ["post", "put", "patch", "delete", "options"])
def test_page_is_read_only(anonymous, path, method):
    answer = getattr(anonymous, method)(path)
    assert (answer.status_code, answer["Content-Type"]) == (405, "application/problem+json")


def test_csrf_failure_of_an_api_client_is_a_problem(db):
    answer = Client(enforce_csrf_checks=True).post("/admin/login/", {"username": "a"}, headers={"accept": "*/*"})
    assert (answer.status_code, answer["Content-Type"]) == (403, "application/problem+json")


def test_unavailable_cache_is_503(anonymous, monkeypatch):
    def refuse(*args, **kwargs):
        raise RedisError("refused")

    monkeypatch.setattr("records.rest.throttles.SlidingThrottle.allow_request", refuse)
    answer = anonymous.post("/api/v1/auth/login", {})
    assert (answer.status_code, answer["Retry-After"]) == (503, "2")

import pytest
from django.test import Client

PROBES = ["/ping", "/ping/", "/health/live", "/health/live/", "/health/ready", "/health/ready/"]
HOSTS = [
    "10.0.0.7:8000",
    "evil.example",
    "",
    "[::1",
    "a b",
    "under_score",
    "[::ffff:10.0.0.7]:8000",
    "x" * 300,
    "ü",
    "a:b",
]
OTHER_PATHS = [
    "/",
    "/docs",
    "/openapi.json",
    "/api/v1",
    "/api/v1/stocks",
    "/admin/login/",
    "/api/login",
    "/health",
    "/pings",
]


@pytest.fixture(params=[False, True], ids=["http", "https"])
def client(request, db, settings):
    settings.ALLOWED_HOSTS = ["stocks.example.com"]
    settings.SECURE_SSL_REDIRECT = request.param
    return Client(headers={"accept": "*/*"})


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("path", PROBES)
def test_probe_accepts_any_host(client, host, path):
    for method in ("get", "head"):
        answer = getattr(client, method)(path, HTTP_HOST=host)
        assert answer.status_code == 200
        assert host == "" or host.encode() not in answer.content
        assert answer.headers.keys() & {"Location", "Set-Cookie", "Server"} == set()
        assert set(answer.json() if method == "get" else {}) <= {"status", "message"}


@pytest.mark.parametrize("path", PROBES)
def test_probe_accepts_a_missing_host(client, path):
    assert client.get(path, SERVER_NAME="10.0.0.7").status_code == 200


@pytest.mark.parametrize("path", PROBES)
def test_probe_is_read_only(client, path):
    assert client.post(path, {}, HTTP_HOST="10.0.0.7").status_code == 405


@pytest.mark.parametrize("host", ["10.0.0.7:8000", "evil.example", "[::1", "under_score"])
@pytest.mark.parametrize("path", OTHER_PATHS)
def test_other_paths_refuse_unknown_hosts(client, host, path):
    answer = client.get(path, HTTP_HOST=host, HTTP_X_FORWARDED_PROTO="https", secure=True)
    assert answer.status_code == 400
    assert host.encode() not in answer.content


def test_probe_accepts_the_configured_host(client):
    assert client.get("/ping", HTTP_HOST="stocks.example.com").status_code == 200

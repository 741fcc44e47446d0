import socket
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from config.management.commands.serve import Command


@pytest.fixture
def run_serve(monkeypatch, settings):
    """Return a function that runs `serve` without serving and returns its output and warnings."""
    for name in ("prepare_database", "create_administrator", "collect_static"):
        monkeypatch.setattr(Command, name, lambda self: None)
    monkeypatch.setattr("config.management.commands.serve.connection.close", lambda: None)
    monkeypatch.setattr(
        "config.management.commands.serve.SharedSocketServer",
        lambda listener, **options: type("Server", (), {"serve": staticmethod(listener.close)}),
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings.PORT = server.getsockname()[1]
    settings.ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
    settings.APP_URL = "http://127.0.0.1:8000"

    def start(host):
        out, err = StringIO(), StringIO()
        call_command("serve", host=host, stdout=out, stderr=err)
        return out.getvalue(), err.getvalue()

    return start


@pytest.mark.parametrize(
    ("host", "displayed_host"),
    [
        ("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("::1", "[::1]"), ("[::1]", "[::1]"),
        ("0:0:0:0:0:0:0:1", "[::1]"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"),
    ],
)  # fmt: skip
def test_printed_address_works_in_browsers(run_serve, settings, host, displayed_host):
    output, warnings = run_serve(host)
    assert output.startswith(
        f"{settings.APP_NAME} is at http://{displayed_host}:{settings.PORT}  (API /api/v1, docs /docs,"
    )
    assert warnings == ""


@pytest.mark.parametrize(("https", "hosts"), [(True, ["127.0.0.1"]), (False, ["stocks.example.com"])])
def test_app_url_is_printed_if_the_local_address_is_refused_or_redirected(run_serve, settings, https, hosts):
    settings.HTTPS, settings.TRUSTED_PROXIES = https, 1
    settings.ALLOWED_HOSTS = ["stocks.example.com", *hosts]
    settings.APP_URL = "https://stocks.example.com"
    output, warnings = run_serve("0.0.0.0")
    assert f" is at https://stocks.example.com, behind 127.0.0.1:{settings.PORT}  (" in output
    assert warnings == ""


def test_several_workers_that_count_apart_get_a_warning(run_serve, settings):
    settings.WEB_WORKERS = 2
    assert "WEB_WORKERS=2, and each worker counts requests on its own" in run_serve("127.0.0.1")[1]
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache"}}
    assert run_serve("127.0.0.1")[1] == ""


def test_app_url_outside_allowed_hosts_gets_a_warning(run_serve, settings):
    settings.ALLOWED_HOSTS = ["stocks.example.com"]
    output, warnings = run_serve("127.0.0.1")
    assert f" is at http://127.0.0.1:{settings.PORT}  (" in output
    assert warnings == (
        "Warning: ALLOWED_HOSTS lacks 127.0.0.1, which APP_URL leads to: links in mails will not work.\n"
    )


def test_https_without_a_proxy_gets_a_warning(run_serve, settings):
    settings.HTTPS, settings.TRUSTED_PROXIES = True, 0
    settings.APP_URL = "https://localhost"
    assert run_serve("127.0.0.1")[1].startswith("Warning: HTTPS=true and TRUSTED_PROXIES=0")


def test_in_memory_database_is_refused(run_serve, settings, monkeypatch):
    monkeypatch.setitem(settings.DATABASES["default"], "NAME", ":memory:")
    with pytest.raises(CommandError, match="DATABASE_URL"):
        run_serve("127.0.0.1")

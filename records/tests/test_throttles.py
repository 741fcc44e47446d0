import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.filebased import FileBasedCache
from django.core.cache.backends.redis import RedisCache
from redis.exceptions import RedisError
from rest_framework.throttling import SimpleRateThrottle

from conftest import skip_or_fail
from records.rest import throttles


@pytest.fixture(autouse=True)
def _low_rates(monkeypatch):
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", {"anon": "2/min", "user": "3/min"})


def set_time(monkeypatch, moment: float) -> None:
    clock = type("Clock", (), {"time": staticmethod(lambda: moment)})
    monkeypatch.setattr(throttles, "time", clock)


def statuses(client, times: int, **headers: str) -> list[int]:
    return [client.get("/api/v1/stocks", **headers).status_code for _ in range(times)]


def test_anonymous_is_throttled(anonymous):
    assert statuses(anonymous, 3) == [401, 401, 429]


def test_invalid_token_is_throttled_as_anonymous(anonymous):
    assert statuses(anonymous, 3, HTTP_AUTHORIZATION="Bearer x") == [401, 401, 429]


def test_user_is_throttled_by_their_own_rate(owner, stranger):
    assert statuses(owner, 4) == [200, 200, 200, 429]
    assert statuses(stranger, 1) == [200]


def test_throttled_response_has_retry_after(anonymous):
    for _ in range(3):
        answer = anonymous.get("/api/v1/stocks")
    assert (answer.status_code, answer["Content-Type"]) == (429, "application/problem+json")
    assert 0 < int(answer["Retry-After"]) <= 60


def test_health_check_is_never_throttled(anonymous):
    assert {anonymous.get("/health/live").status_code for _ in range(5)} == {200}


def test_window_slides(anonymous, monkeypatch):
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", {"anon": "60/min", "user": "60/min"})
    start = 60 * (time.time() // 60)
    set_time(monkeypatch, start + 50)
    assert statuses(anonymous, 60) == [401] * 60
    set_time(monkeypatch, start + 61)  # an unused minute, and 59 s after 60 requests
    assert statuses(anonymous, 2) == [401, 429]
    set_time(monkeypatch, start + 90)
    assert statuses(anonymous, 31) == [401] * 29 + [429] * 2


def test_retry_after_is_sufficient(anonymous, monkeypatch):
    now = 60 * (time.time() // 60) + 10
    for _ in range(5):
        set_time(monkeypatch, now)
        while (answer := anonymous.get("/api/v1/stocks")).status_code == 401:
            pass
        for _ in range(2):  # two counters are less exact than a list of times
            now += int(answer["Retry-After"])
            set_time(monkeypatch, now)
            answer = anonymous.get("/api/v1/stocks")
            if answer.status_code == 401:
                break
        assert answer.status_code == 401


def test_ipv6_addresses_of_one_network_share_a_counter(anonymous):
    answers = [anonymous.get("/api/v1/stocks", REMOTE_ADDR=f"2001:db8::{number}").status_code for number in range(3)]
    assert answers == [401, 401, 429]
    assert anonymous.get("/api/v1/stocks", REMOTE_ADDR="2001:db8:0:1::1").status_code == 401


@pytest.mark.parametrize(("proxies", "status"), [(0, 429), (1, 401)])
def test_forwarded_address_counts_only_behind_trusted_proxies(anonymous, settings, proxies, status):
    settings.TRUSTED_PROXIES = proxies
    for number in range(2):
        anonymous.get("/api/v1/stocks", HTTP_X_FORWARDED_FOR=f"198.51.100.{number}")
    assert anonymous.get("/api/v1/stocks", HTTP_X_FORWARDED_FOR="203.0.113.1").status_code == status


# Unavailable cache


def use_cache(monkeypatch, cache) -> None:
    monkeypatch.setattr(throttles, "caches", {"default": cache})


def redis_at(port: int) -> RedisCache:
    """Return a Redis cache as CACHE_URL configures it."""
    command = "from config.settings import *; import json; print(json.dumps(CACHES['default']['OPTIONS']))"
    environment = {"PATH": os.environ["PATH"], "CACHE_URL": f"redis://127.0.0.1:{port}/0"}
    process = subprocess.run(
        [sys.executable, "-c", command], cwd=settings.BASE_DIR, env=environment, capture_output=True, check=True
    )
    return RedisCache(environment["CACHE_URL"], {"OPTIONS": json.loads(process.stdout)})


@pytest.fixture
def port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def logged_levels(caplog) -> list[str]:
    return [record.levelname for record in caplog.records if record.name == "records.rest.throttles"]


def test_unusable_file_disables_throttling(anonymous, monkeypatch, caplog, tmp_path):
    use_cache(monkeypatch, FileBasedCache(str(tmp_path / "cache"), {}))
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").touch()
    assert statuses(anonymous, 5) == [401] * 5
    assert logged_levels(caplog) == ["ERROR"]


def test_unreachable_redis_disables_throttling(owner, monkeypatch, caplog, port):
    use_cache(monkeypatch, redis_at(port))
    assert statuses(owner, 5) == [200] * 5
    assert owner.get("/health/ready").status_code == 200
    assert logged_levels(caplog) == ["ERROR"]


def test_failed_logins_are_counted_without_the_cache(anonymous, make_user, monkeypatch, port):
    make_user(username="ada", password="analytical-engine-1843")
    use_cache(monkeypatch, redis_at(port))
    wrong = {"username": "ada", "password": "difference"}
    answers = [anonymous.post("/api/v1/auth/login", wrong).status_code for _ in range(11)]
    assert (answers[0], answers[-1]) == (401, 429)


def test_hanging_redis_delays_one_request(owner, monkeypatch, caplog):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts connections and sends nothing
        use_cache(monkeypatch, redis_at(silent.getsockname()[1]))
        started = time.monotonic()
        assert statuses(owner, 1) == [200]
        assert 0.3 < time.monotonic() - started < 2
        started = time.monotonic()
        assert statuses(owner, 5) == [200] * 5
        assert time.monotonic() - started < 1
    assert logged_levels(caplog) == ["ERROR"]


def test_throttling_resumes_when_redis_returns(owner, monkeypatch, caplog, port, tmp_path):
    server = shutil.which("redis-server") or skip_or_fail("redis-server is not installed.")
    cache = redis_at(port)
    use_cache(monkeypatch, cache)

    @contextmanager
    def running():
        command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            for _ in range(100):
                try:
                    cache.get("up")
                    break
                except RedisError:
                    time.sleep(0.05)
            yield process
        finally:
            process.kill()
            process.wait()

    with running() as process:
        assert statuses(owner, 4) == [200, 200, 200, 429]
        process.send_signal(signal.SIGSTOP)  # Redis hangs
        assert statuses(owner, 2) == [200, 200]
        process.send_signal(signal.SIGCONT)
    assert statuses(owner, 2) == [200, 200]
    with running():
        monkeypatch.setattr(throttles, "monotonic", lambda: time.monotonic() + 6)
        assert statuses(owner, 4) == [200, 200, 200, 429]
    assert logged_levels(caplog) == ["ERROR", "WARNING"]


# Headers and messages


def quota(answer) -> tuple[str, int, int]:
    """Return policy, remaining requests and seconds from the headers of draft-ietf-httpapi-ratelimit-headers."""
    policy, limit, window = re.fullmatch(r'"(\w+)";q=(\d+);w=(\d+)', answer["RateLimit-Policy"]).groups()
    name, remaining, seconds = re.fullmatch(r'"(\w+)";r=(\d+);t=(\d+)', answer["RateLimit"]).groups()
    assert (name, int(window)) == (policy, 60)
    assert 0 < int(seconds) <= 60
    return f"{name}/{limit}", int(remaining), int(seconds)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/v1", None, 200),
        ("GET", "/api/v1/users/me", None, 200),
        ("POST", "/api/v1/stocks", {"name": "A", "price": 1, "quantity": 1}, 201),
        ("POST", "/api/v1/auth/logout", {}, 204),
        ("GET", "/api/v1/stocks?page=x", None, 400),
        ("POST", "/api/v1/stocks/reprice", {"prices": {"A": 1}}, 403),
        ("GET", "/api/v1/stocks/0", None, 404),
        ("PUT", "/api/v1/stocks", None, 405),
        ("OPTIONS", "/api/v1/stocks", None, 200),
    ],
)
def test_every_response_contains_the_quota_of_the_user(owner, method, path, body, status):
    answer = owner.generic(method, path, json.dumps(body), content_type="application/json")
    assert answer.status_code == status
    assert quota(answer)[:2] == ("user/3", 2)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/api/v1/stocks", {}, 401),
        ("GET", "/api/v1/stocks", {"HTTP_AUTHORIZATION": "Bearer x"}, 401),
        ("POST", "/api/v1/auth/login", {}, 400),
    ],
)
def test_anonymous_response_contains_the_quota_of_the_address(anonymous, method, path, headers, status):
    answer = anonymous.generic(method, path, "{}" if method == "POST" else "", "application/json", **headers)
    assert (answer.status_code, quota(answer)[:2]) == (status, ("anon/2", 1))


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/api", {}, 404),
        ("GET", "/api/v1/nope", {}, 404),
        ("GET", "/api/login", {}, 200),
        ("TRACE", "/api/v1/stocks", {}, 405),
        ("GET", "/api/v1/stocks", {"HTTP_ACCEPT": "image/png"}, 406),
        ("POST", "/api/v1/stocks", {"CONTENT_LENGTH": str(2**21)}, 413),
        ("GET", f"/api/v1/stocks?{'a' * 9000}", {}, 414),
        ("POST", "/api/v1/auth/login", {"content_type": "application/json; charset=utf-16"}, 415),
        ("GET", "/api/v1/stocks", {"HTTP_COOKIE": "a" * 40_000}, 431),
        ("GET", "/api/v1/stocks", {"HTTP_HOST": "elsewhere.example"}, 400),
    ],
)
def test_early_refusal_contains_the_quota_and_uses_none(anonymous, method, path, headers, status):
    for _ in range(3):
        answer = anonymous.generic(method, path, "{}" if method == "POST" else "", **headers)
        assert (answer.status_code, quota(answer)[:2]) == (status, ("anon/2", 2))


def test_retry_after_equals_the_quota_reset(owner):
    answers = [owner.get("/api/v1/stocks") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2
    assert [quota(answer)[1] for answer in answers] == [2, 1, 0, 0, 0]
    assert [quota(answer)[2] for answer in answers[3:]] == [int(answer["Retry-After"]) for answer in answers[3:]]
    assert quota(answers[2])[2] == quota(answers[3])[2]


def test_quota_recovers_as_the_window_slides(owner, monkeypatch):
    start = 60 * (time.time() // 60) + 60
    set_time(monkeypatch, start)
    assert [quota(owner.get("/api/v1/stocks"))[1:] for _ in range(2)] == [(2, 60), (1, 60)]
    set_time(monkeypatch, start + 60 + 45)  # a quarter of the two requests is still in the window
    assert quota(owner.get("/api/v1/stocks"))[1:] == (1, 15)


@pytest.mark.parametrize("path", ["/", "/ping", "/health/live", "/docs", "/admin/login/"])
def test_unthrottled_response_contains_no_quota(anonymous, path):
    assert not {"RateLimit", "RateLimit-Policy"} & anonymous.get(path).headers.keys()


@pytest.mark.parametrize("path", ["/api/v1/nope", "/api/login"])
def test_response_contains_no_quota_without_counters(anonymous, monkeypatch, path, port):
    use_cache(monkeypatch, redis_at(port))
    answer = anonymous.get(path)
    assert answer.status_code in {200, 404}
    assert "RateLimit" not in answer.headers


def test_quota_costs_no_cache_call(owner, monkeypatch):
    calls = []
    for name in ("get", "add", "incr", "decr"):
        call = getattr(caches["default"], name)
        monkeypatch.setattr(caches["default"], name, lambda *a, call=call, **k: calls.append(call) or call(*a, **k))
    owner.get("/api/v1/stocks")
    assert len(calls) <= 4  # in the first request of a period; incr and get in all others

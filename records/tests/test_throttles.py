import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from rest_framework.throttling import SimpleRateThrottle

from records.rest import throttles
from records.rest.throttles import SharedCounters


@pytest.fixture(autouse=True)
def _slow(monkeypatch):
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", {"anon": "2/min", "user": "3/min"})


def at(monkeypatch, moment: float) -> None:
    clock = type("Clock", (), {"time": staticmethod(lambda: moment)})
    monkeypatch.setattr(throttles, "time", clock)


def statuses(client, times: int, **headers: str) -> list[int]:
    return [client.get("/api/v1/stocks", **headers).status_code for _ in range(times)]


def test_stranger_is_throttled_though_refused_anyway(anonymous):
    assert statuses(anonymous, 3) == [401, 401, 429]


def test_bad_token_is_throttled_as_a_stranger(anonymous):
    assert statuses(anonymous, 3, HTTP_AUTHORIZATION="Bearer x") == [401, 401, 429]


def test_user_is_throttled_by_their_own_rate(owner, stranger):
    assert statuses(owner, 4) == [200, 200, 200, 429]
    assert statuses(stranger, 1) == [200]


def test_throttled_answer_says_when_to_return(anonymous):
    for _ in range(3):
        answer = anonymous.get("/api/v1/stocks")
    assert (answer.status_code, answer["Content-Type"]) == (429, "application/problem+json")
    assert 0 < int(answer["Retry-After"]) <= 60


def test_health_is_never_throttled(anonymous):
    assert {anonymous.get("/health/live").status_code for _ in range(5)} == {200}


def test_window_slides(anonymous, monkeypatch):
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", {"anon": "60/min", "user": "60/min"})
    start = 60 * (time.time() // 60)
    at(monkeypatch, start + 50)
    assert statuses(anonymous, 60) == [401] * 60
    at(monkeypatch, start + 61)  # another minute, of which nothing was used, and 59 s after 60 requests
    assert statuses(anonymous, 2) == [401, 429]
    at(monkeypatch, start + 90)
    assert statuses(anonymous, 31) == [401] * 29 + [429] * 2


def test_whoever_comes_when_told_is_let_in(anonymous, monkeypatch):
    now = 60 * (time.time() // 60) + 10
    for _ in range(5):
        at(monkeypatch, now)
        while (answer := anonymous.get("/api/v1/stocks")).status_code == 401:
            pass
        for _ in range(2):  # two counters are a little less exact than a list of times
            now += int(answer["Retry-After"])
            at(monkeypatch, now)
            answer = anonymous.get("/api/v1/stocks")
            if answer.status_code == 401:
                break
        assert answer.status_code == 401


def test_neighbours_in_one_ipv6_network_are_one_caller(anonymous):
    answers = [anonymous.get("/api/v1/stocks", REMOTE_ADDR=f"2001:db8::{number}").status_code for number in range(3)]
    assert answers == [401, 401, 429]
    assert anonymous.get("/api/v1/stocks", REMOTE_ADDR="2001:db8:0:1::1").status_code == 401


@pytest.mark.parametrize(("proxies", "status"), [(0, 429), (1, 401)])
def test_forwarded_address_counts_through_trusted_proxies_only(anonymous, settings, proxies, status):
    settings.TRUSTED_PROXIES = proxies
    for number in range(2):
        anonymous.get("/api/v1/stocks", HTTP_X_FORWARDED_FOR=f"198.51.100.{number}")
    assert anonymous.get("/api/v1/stocks", HTTP_X_FORWARDED_FOR="203.0.113.1").status_code == status


@pytest.fixture
def shared(tmp_path):
    """Two workers' views of the same counters."""
    return [SharedCounters(str(tmp_path / "counters.sqlite3"), {}) for _ in range(2)]


def test_workers_count_together(shared):
    one, other = shared
    assert (one.add("a", 0, 60), other.add("a", 0, 60)) == (True, False)
    assert [one.incr("a"), other.incr("a"), one.decr("a"), other.get("a")] == [1, 2, 1, 1]
    assert one.get("b", 7) == 7
    with pytest.raises(ValueError, match="no counter"):
        one.incr("b")


def test_nothing_that_is_counted_at_the_same_time_is_lost(shared):
    shared[0].add("a", 0, 60)
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda number: shared[number % 2].incr("a"), range(200)))
    assert sorted(counts) == list(range(1, 201))


def test_workers_that_start_at_once_share_one_file(tmp_path):
    def start(_):
        counters = SharedCounters(str(tmp_path / "counters.sqlite3"), {})
        counters.add("a", 0, 60)
        return counters.incr("a")

    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(start, range(32))) == list(range(1, 33))


def test_counters_that_cannot_be_reached_are_said_so(anonymous, monkeypatch):
    monkeypatch.setattr(throttles, "caches", {"throttles": SharedCounters("/nowhere/counters.sqlite3", {})})
    assert anonymous.get("/api/v1/stocks").status_code == 503


def test_counters_of_former_times_are_removed(shared, monkeypatch):
    for key in "abc":
        shared[0].add(key, 0, 60)
    at(monkeypatch, time.time() + 61)
    for key in "de":
        shared[0].add(key, 0, 60)
    assert [shared[0].get(key) for key in "abcde"] == [None, None, None, 0, 0]

import pytest
from rest_framework.throttling import SimpleRateThrottle


@pytest.fixture(autouse=True)
def _slow(monkeypatch):
    monkeypatch.setattr(SimpleRateThrottle, "THROTTLE_RATES", {"anon": "2/min", "user": "3/min"})


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

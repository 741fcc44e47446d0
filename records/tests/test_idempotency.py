"""Idempotency keys: a repeated write is answered again and not done again."""

import contextlib
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.utils import timezone

from conftest import Client
from records.audit.models import AuditEntry
from records.models import IdempotencyKey
from stocks.models import Stock
from users.models import User

STOCKS = "/api/v1/stocks"
STOCK = {"name": "AAPL", "price": 1, "quantity": 1}


@pytest.fixture
def stock(owner, make_stock):
    return make_stock(owner.user)


def keyed(send, path, body=None, *, key="k", **options):
    return send(path, body, HTTP_IDEMPOTENCY_KEY=key, **options)


def post_twice(client, path, body, **options):
    return keyed(client.post, path, body, **options), keyed(client.post, path, body, **options)


def is_replay(answer):
    return answer.headers.get("Idempotent-Replayed") == "true"


def assert_replayed(first, second):
    assert (second.status_code, second.content) == (first.status_code, first.content)
    assert {"Content-Type", "ETag", "Location"} & first.headers.keys() <= second.headers.keys()
    assert not is_replay(first)
    assert is_replay(second)


# Replays


def test_repeated_creation_creates_once(owner):
    first, second = post_twice(owner, STOCKS, STOCK)
    assert first.status_code == 201
    assert_replayed(first, second)
    assert second.headers["Location"] == first.headers["Location"]
    assert second.headers["ETag"] == first.headers["ETag"]
    assert Stock.objects.filter(owner=owner.user).count() == 1


def test_repeated_change_changes_once(owner, stock):
    path = f"{STOCKS}/{stock.pk}"
    assert_replayed(*(keyed(owner.patch, path, {"price": 2}) for _ in range(2)))
    assert Stock.objects.get(pk=stock.pk).version == 2


def test_repeated_replacement_replaces_once(owner, stock):
    path = f"{STOCKS}/{stock.pk}"
    assert_replayed(*(keyed(owner.put, path, STOCK) for _ in range(2)))
    assert Stock.objects.get(pk=stock.pk).version == 2


def test_repeated_deletion_is_answered_like_the_first(owner, stock):
    assert_replayed(*(keyed(owner.delete, f"{STOCKS}/{stock.pk}") for _ in range(2)))


def test_repeated_undo_and_reprice_run_once(superuser, owner, stock):
    assert_replayed(*post_twice(superuser, f"{STOCKS}/reprice", {"prices": {"AAPL": 5}}, key="reprice"))
    entry = AuditEntry.objects.of_row(Stock, stock.pk).latest("id")
    assert_replayed(*post_twice(superuser, f"/api/v1/admin/audit-logs/{entry.pk}/undo", None, key="undo"))
    assert Stock.objects.get(pk=stock.pk).version == 3


def test_repeated_permanent_deletion_is_answered_like_the_first(superuser, owner):
    path = f"/api/v1/users/{owner.user.pk}?permanent=true"
    assert_replayed(*(keyed(superuser.delete, path) for _ in range(2)))


def test_rows_under_a_user_who_is_gone_are_answered_again(staff, owner):
    path = f"/api/v1/users/{owner.user.pk}/stocks"
    first = keyed(staff.post, path, STOCK)
    owner.user.delete()
    assert_replayed(first, keyed(staff.post, path, STOCK))


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (STOCKS, {"name": "AAPL", "price": 0, "quantity": 1}, 400),
        (STOCKS, {}, 400),
        (f"{STOCKS}/999999/restore", None, 404),
    ],
)
def test_error_of_the_write_is_answered_again(staff, path, body, status):
    first, second = post_twice(staff, path, body)
    assert first.status_code == status
    assert_replayed(first, second)


def test_error_leaves_nothing_but_the_key(owner, stock):
    keyed(owner.patch, f"{STOCKS}/{stock.pk}", {"price": -1})
    assert Stock.objects.get(pk=stock.pk).version == 1
    assert IdempotencyKey.objects.get().status == 400


def test_trailing_slash_is_the_same_request(owner):
    first = keyed(owner.post, STOCKS, STOCK)
    assert_replayed(first, keyed(owner.post, f"{STOCKS}/", STOCK))


def test_keyed_write_is_audited_once(owner):
    [first, _] = post_twice(owner, STOCKS, STOCK)
    entries = AuditEntry.objects.of_row(Stock, first.json()["id"])
    assert list(entries.values_list("action", flat=True)) == ["create"]


# Keys


@pytest.mark.parametrize("key", ["", "x" * 256, "ä", "tab\t", "new\nline"])
def test_invalid_key_is_400(owner, key):
    answer = keyed(owner.post, STOCKS, STOCK, key=key)
    assert answer.status_code == 400
    assert "Idempotency-Key" in answer.json()["detail"]
    assert not Stock.objects.filter(owner=owner.user).exists()


@pytest.mark.parametrize("key", ["x", "x" * 255, '"quoted"', " ~!"])
def test_valid_key_is_accepted(owner, key):
    assert_replayed(*post_twice(owner, STOCKS, STOCK, key=key))


def test_key_belongs_to_its_caller(owner, stranger):
    answers = [keyed(client.post, STOCKS, STOCK) for client in (owner, stranger)]
    assert [is_replay(answer) for answer in answers] == [False, False]


def test_other_keys_are_other_requests(owner):
    answers = [keyed(owner.post, STOCKS, STOCK, key=key) for key in ("a", "b", "A")]
    assert len({answer.json()["id"] for answer in answers}) == 3


def other_requests(client, stock):
    """Yield requests that each differ in one respect from the first."""
    yield keyed(client.post, STOCKS, {**STOCK, "price": 2})
    yield keyed(client.post, f"{STOCKS}?format=json", STOCK)
    yield keyed(client.post, f"/api/v1/users/{client.user.pk}/stocks", STOCK)
    yield keyed(client.patch, f"{STOCKS}/{stock.pk}", STOCK)
    yield keyed(client.delete, f"{STOCKS}/{stock.pk}")


def test_key_of_another_request_is_422(owner, stock):
    keyed(owner.post, STOCKS, STOCK)
    answers = list(other_requests(owner, stock))
    assert [answer.status_code for answer in answers] == [422] * len(answers)
    assert Stock.objects.filter(owner=owner.user).count() == 2


def test_key_is_ignored_by_reads(owner):
    keyed(owner.post, STOCKS, STOCK)
    assert owner.get(STOCKS, HTTP_IDEMPOTENCY_KEY="k").status_code == 200


def test_key_expires_after_24_hours(owner):
    first = keyed(owner.post, STOCKS, STOCK)
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=24, seconds=1))
    second = keyed(owner.post, STOCKS, {**STOCK, "price": 2})
    assert (second.status_code, is_replay(second)) == (201, False)
    assert second.json()["id"] != first.json()["id"]


def test_key_is_kept_for_24_hours(owner):
    first = keyed(owner.post, STOCKS, STOCK)
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=23, minutes=59))
    call_command("purge_deleted")
    assert_replayed(first, keyed(owner.post, STOCKS, STOCK))


def test_purge_deletes_expired_keys(owner, capsys):
    keyed(owner.post, STOCKS, STOCK)
    IdempotencyKey.objects.update(created_at=timezone.now() - timedelta(hours=25))
    call_command("purge_deleted", "--dry-run")
    assert IdempotencyKey.objects.count() == 1
    call_command("purge_deleted")
    assert IdempotencyKey.objects.count() == 0
    assert "1 expired idempotency key removed." in capsys.readouterr().out


def test_keys_of_purged_users_are_deleted(owner):
    keyed(owner.post, STOCKS, STOCK)
    User.all_objects.filter(pk=owner.user.pk).purge()
    assert not IdempotencyKey.objects.exists()


def test_former_secret_key_is_recognised(owner, settings):
    first = keyed(owner.post, STOCKS, STOCK)
    token = owner._credentials["HTTP_AUTHORIZATION"]
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "another" * 10
    assert_replayed(first, keyed(owner.post, STOCKS, STOCK, HTTP_AUTHORIZATION=token))


# What is not stored


def test_secrets_are_never_stored(anonymous, owner):
    body = {"email": "a@example.com", "username": "new-person", "password": "glacier-Tango-41-velvet"}
    for path in ("register", "login"):
        keyed(anonymous.post, f"/api/v1/auth/{path}", body if path == "register" else {**body, "email": None})
    keyed(owner.delete, "/api/v1/auth/sessions")
    assert not IdempotencyKey.objects.exists()


def test_password_of_a_new_user_is_not_stored(staff):
    body = {"email": "a@example.com", "username": "new-person", "password": "glacier-Tango-41-velvet"}
    assert keyed(staff.post, "/api/v1/users", body).status_code == 201
    stored = IdempotencyKey.objects.get()
    text = repr({name: value for name, value in vars(stored).items() if name != "body"}) + bytes(stored.body).decode()
    assert "glacier" not in text


def not_stored(owner, stranger, anonymous, staff_with, stock):
    path = f"{STOCKS}/{stock.pk}"
    yield 401, keyed(anonymous.post, STOCKS, STOCK)
    yield 403, keyed(staff_with("view_stock").patch, path, {"price": 2})
    yield 403, keyed(owner.post, "/api/v1/users", {"name": "Ann"})
    yield 412, keyed(owner.patch, path, {"price": 2}, HTTP_IF_MATCH='"99"')
    yield 405, keyed(owner.post, path, {"price": 2})
    yield 400, keyed(owner.post, f"{STOCKS}?pirce=1", STOCK)


def test_answers_that_do_not_come_from_the_write_are_not_stored(owner, stranger, anonymous, staff_with, stock):
    for status, answer in not_stored(owner, stranger, anonymous, staff_with, stock):
        assert answer.status_code == status
        assert not IdempotencyKey.objects.exists(), status


def test_failed_precondition_may_be_repeated(owner, stock):
    path = f"{STOCKS}/{stock.pk}"
    assert keyed(owner.patch, path, {"price": 2}, HTTP_IF_MATCH='"99"').status_code == 412
    assert keyed(owner.patch, path, {"price": 2}, HTTP_IF_MATCH='"1"').status_code == 200


def test_missing_precondition_may_be_repeated(owner, stock, settings):
    settings.REQUIRE_IF_MATCH = True
    path = f"{STOCKS}/{stock.pk}"
    assert keyed(owner.patch, path, {"price": 2}).status_code == 428
    assert keyed(owner.patch, path, {"price": 2}, HTTP_IF_MATCH='"1"').status_code == 200


@pytest.mark.parametrize(("error", "status"), [(RuntimeError, 500), (OperationalError, 503)])
def test_failure_of_the_service_may_be_repeated(owner, monkeypatch, error, status):
    def fail(*args, **kwargs):
        raise error("the connection was lost")

    with monkeypatch.context() as patch:
        patch.setattr("records.rest.views.viewsets.RecordViewSet.perform_create", fail)
        answer = keyed(owner.post, STOCKS, STOCK)
    assert answer.status_code in {status, 500}
    assert keyed(owner.post, STOCKS, STOCK).status_code == 201


def test_answer_that_is_too_large_writes_nothing(owner, stock, monkeypatch):
    monkeypatch.setattr("records.rest.idempotency.MAX_ANSWER_SIZE", 100)
    answer = keyed(owner.patch, f"{STOCKS}/{stock.pk}", {"price": 2})
    assert answer.status_code == 422
    assert "100" in answer.json()["detail"]
    assert Stock.objects.get(pk=stock.pk).version == 1
    assert not IdempotencyKey.objects.exists()


# Concurrency


@pytest.mark.django_db(transaction=True)
def test_one_of_ten_simultaneous_requests_writes(owner, run_concurrently):
    def post():
        return keyed(Client(owner.user).post, STOCKS, STOCK)

    answers = run_concurrently(*[post] * 10)
    assert Stock.objects.filter(owner=owner.user).count() == 1
    written = [answer for answer in answers if answer.status_code == 201]
    assert len({answer.content for answer in written}) == 1
    assert sum(not is_replay(answer) for answer in written) == 1
    for answer in answers:
        assert answer.status_code in {201, 409}
        assert answer.status_code == 201 or answer.headers["Retry-After"] == "1"


@pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite serializes writes")
@pytest.mark.django_db(transaction=True)
def test_running_request_is_409(owner):
    with other_connection_lock(owner.user.pk):
        answer = keyed(owner.post, STOCKS, STOCK)
    assert (answer.status_code, answer.headers["Retry-After"]) == (409, "1")
    assert not IdempotencyKey.objects.exists()
    assert keyed(owner.post, STOCKS, STOCK).status_code == 201


@contextlib.contextmanager
def other_connection_lock(user_id):
    """Hold the key in a transaction of another connection, as a request that is still running does."""
    other = connection.copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [IdempotencyKey.lock_id(user_id, "k")])
        yield
    finally:
        other.close()


# Bulk writes


def test_bulk_change_composes_with_versions_keys_and_dry_runs(owner, make_stock):
    stocks = [make_stock(owner.user) for _ in range(3)]
    body = [{"id": stock.pk, "version": 1, "price": 5} for stock in stocks]
    rehearsed = keyed(owner.patch, f"{STOCKS}?dry_run=true", body)
    assert (rehearsed.status_code, rehearsed.headers["X-Dry-Run"]) == (200, "true")
    assert not IdempotencyKey.objects.exists()
    assert set(Stock.objects.filter(owner=owner.user).values_list("version", flat=True)) == {1}
    assert_replayed(*(keyed(owner.patch, STOCKS, body) for _ in range(2)))
    assert set(Stock.objects.filter(owner=owner.user).values_list("version", flat=True)) == {2}
    assert keyed(owner.patch, STOCKS, body, key="other").status_code == 400


def test_bulk_answer_that_is_too_large_for_a_key_writes_nothing(owner):
    assert keyed(owner.post, STOCKS, [STOCK] * 1000).status_code == 422
    assert not Stock.objects.filter(owner=owner.user).exists()
    assert owner.post(STOCKS, [STOCK] * 1000).status_code == 201


def test_partly_successful_bulk_write_is_answered_again(owner):
    first, second = post_twice(owner, f"{STOCKS}?atomic=false", [STOCK, {**STOCK, "price": 0}])
    assert first.status_code == 207
    assert_replayed(first, second)
    assert Stock.objects.filter(owner=owner.user).count() == 1

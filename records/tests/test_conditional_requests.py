"""Conditional requests: entity tags of single rows, If-None-Match, If-Match, and 428 where it is required."""

import pytest
from django.db import connection

from conftest import Client
from records.audit.models import AuditEntry
from stocks.models import Stock
from users.models import User

STOCKS = "/api/v1/stocks"
USERS = "/api/v1/users"
ME = "/api/v1/users/me"


@pytest.fixture
def stock(owner, make_stock):
    return make_stock(owner.user)


@pytest.fixture
def path(stock):
    return f"{STOCKS}/{stock.pk}"


def version_of(path):
    return Stock.objects.get(pk=path.rpartition("/")[2]).version


def tag_of(client, path):
    return client.get(path).headers["ETag"]


# Tags


def test_row_has_a_strong_tag(owner, path):
    assert tag_of(owner, path).startswith('"1-')


def test_response_without_a_row_has_no_tag(owner, path):
    for other in (STOCKS, f"{path}/history", f"{USERS}/{owner.user.pk}/portfolio", "/api/v1"):
        assert "ETag" not in owner.get(other).headers, other


def test_page_has_no_tag(owner, path):
    assert "ETag" not in owner.get(path, HTTP_ACCEPT="text/html").headers


def test_error_has_no_tag(owner, path):
    assert "ETag" not in owner.patch(path, {"price": 0}).headers


def test_every_write_of_a_row_returns_the_tag_of_the_row(owner, staff, path):
    tags = [
        owner.patch(path, {"price": 2}).headers["ETag"],
        owner.put(path, {"name": "AAPL", "price": 3, "quantity": 1}).headers["ETag"],
    ]
    owner.delete(path)
    tags.append(staff.post(f"{path}/restore").headers["ETag"])
    assert [tag.split("-")[0] for tag in tags] == ['"2', '"3', '"5']
    assert tags[-1] == tag_of(owner, path)


def test_created_row_has_its_tag(owner):
    answer = owner.post(STOCKS, {"name": "AAPL", "price": 1, "quantity": 1})
    assert answer.headers["ETag"] == tag_of(owner, answer.headers["Location"])


def test_selected_fields_have_another_tag(owner, path):
    tags = {tag_of(owner, path), tag_of(owner, f"{path}?fields=id"), tag_of(owner, f"{path}?fields=id,version")}
    assert len(tags) == 3


def test_tag_of_selected_fields_names_the_version(owner, path):
    owner.patch(path, {"price": 2})
    assert tag_of(owner, f"{path}?fields=price").startswith('"2-')


def test_tag_of_a_user_changes_with_their_stocks(owner, make_stock):
    path = f"{USERS}/{owner.user.pk}"
    before = tag_of(owner, path)
    make_stock(owner.user)
    after = tag_of(owner, path)
    assert before != after
    assert before.split("-")[0] == after.split("-")[0]


def test_audit_entry_has_a_tag(superuser, path, stock):
    entry = AuditEntry.objects.of_row(Stock, stock.pk).get()
    answer = superuser.get(f"/api/v1/admin/audit-logs/{entry.pk}")
    again = superuser.get(f"/api/v1/admin/audit-logs/{entry.pk}", HTTP_IF_NONE_MATCH=answer.headers["ETag"])
    assert again.status_code == 304


# If-None-Match


@pytest.mark.parametrize("pattern", ["{tag}", "W/{tag}", '"other", {tag}', "{tag},", "*", " {tag} "])
def test_known_row_is_304_without_a_body(owner, path, pattern):
    tag = tag_of(owner, path)
    answer = owner.get(path, HTTP_IF_NONE_MATCH=pattern.format(tag=tag))
    assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", tag)
    assert "Content-Type" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-store"


def test_changed_row_is_sent_again(owner, path):
    tag = tag_of(owner, path)
    owner.patch(path, {"price": 2})
    answer = owner.get(path, HTTP_IF_NONE_MATCH=tag)
    assert (answer.status_code, answer.json()["price"]) == (200, 2)


def test_other_fields_are_sent_again(owner, path):
    assert owner.get(f"{path}?fields=id", HTTP_IF_NONE_MATCH=tag_of(owner, path)).status_code == 200


def test_known_tag_does_not_replace_authorisation(owner, stranger, anonymous, path):
    tag = tag_of(owner, path)
    assert stranger.get(path, HTTP_IF_NONE_MATCH=tag).status_code == 404
    assert anonymous.get(path, HTTP_IF_NONE_MATCH=tag).status_code == 401


def test_own_row_is_conditional(owner):
    assert owner.get(ME, HTTP_IF_NONE_MATCH=tag_of(owner, ME)).status_code == 304


# If-Match


MALFORMED = ["", "7", '"7', '7"', "*,", '*, "7"', "W/*", '"a" "b"', 'w/"7"', '"\x01"', ",", '"a", b']


@pytest.mark.parametrize("header", MALFORMED)
def test_malformed_header_is_400(owner, path, header):
    answers = [
        owner.patch(path, {"price": 2}, HTTP_IF_MATCH=header),
        owner.delete(path, HTTP_IF_MATCH=header),
        owner.get(path, HTTP_IF_NONE_MATCH=header),
    ]
    assert [answer.status_code for answer in answers] == [400, 400, 400]
    assert version_of(path) == 1


@pytest.mark.parametrize("pattern", ["{tag}", '"other", {tag}', "*", '"1"', "{tag} , "])
def test_matching_tag_passes(owner, path, pattern):
    header = pattern.format(tag=tag_of(owner, path))
    assert owner.patch(path, {"price": 2}, HTTP_IF_MATCH=header).status_code == 200


@pytest.mark.parametrize("pattern", ['"99"', "W/{tag}", '"99-x", W/{tag}', '""', '"-"', '"11"', '"1x"'])
def test_other_tag_is_412_and_stores_nothing(owner, path, pattern):
    tag = tag_of(owner, path)
    answer = owner.patch(path, {"price": 2}, HTTP_IF_MATCH=pattern.format(tag=tag))
    assert (answer.status_code, answer.headers["ETag"]) == (412, tag)
    assert list(answer.json()["errors"]) == ["version"]
    assert version_of(path) == 1


def test_message_says_which_version_was_found(owner, path):
    owner.patch(path, {"price": 2})
    answer = owner.patch(path, {"price": 3}, HTTP_IF_MATCH='"1-x"')
    assert answer.json()["errors"] == {"version": ["Expected 1, found 2."]}


def stale_requests(owner, staff, path, user_path):
    yield owner.put(path, {"name": "AAPL", "price": 3, "quantity": 1}, HTTP_IF_MATCH='"99"')
    yield owner.patch(path, {"price": 3}, HTTP_IF_MATCH='"99"')
    yield owner.delete(path, HTTP_IF_MATCH='"99"')
    yield staff.post(f"{path}/restore", HTTP_IF_MATCH='"99"')
    yield owner.put(user_path, {"age": 3}, HTTP_IF_MATCH='"99"')
    yield owner.patch(user_path, {"age": 3}, HTTP_IF_MATCH='"99"')
    yield owner.patch(ME, {"age": 3}, HTTP_IF_MATCH='"99"')
    yield staff.delete(user_path, HTTP_IF_MATCH='"99"')


def test_every_write_of_a_row_checks_the_tag(owner, staff, path):
    answers = list(stale_requests(owner, staff, path, f"{USERS}/{owner.user.pk}"))
    assert [answer.status_code for answer in answers] == [412] * len(answers)
    assert (version_of(path), User.objects.get(pk=owner.user.pk).version) == (1, 1)


def test_permanent_deletion_checks_the_tag(owner, superuser):
    path = f"{USERS}/{owner.user.pk}?permanent=true"
    assert superuser.delete(path, HTTP_IF_MATCH='"99"').status_code == 412
    assert superuser.delete(path, HTTP_IF_MATCH='"1"').status_code == 204


def test_tag_of_a_user_stays_good_when_only_their_stocks_change(owner, make_stock):
    path = f"{USERS}/{owner.user.pk}"
    tag = tag_of(owner, path)
    make_stock(owner.user)
    assert owner.patch(path, {"age": 30}, HTTP_IF_MATCH=tag).status_code == 200


@pytest.mark.parametrize("path", ["me", "id"])
def test_412_names_the_tag_of_the_same_path(owner, make_stock, path):
    make_stock(owner.user)
    path = ME if path == "me" else f"{USERS}/{owner.user.pk}"
    answer = owner.patch(path, {"age": 30}, HTTP_IF_MATCH='"99"')
    assert answer.headers["ETag"] == tag_of(owner, path)


def test_tag_is_checked_after_authorisation(stranger, owner, path):
    answer = stranger.patch(path, {"price": 2}, HTTP_IF_MATCH='"99"')
    missing = stranger.patch(f"{STOCKS}/999", {"price": 2}, HTTP_IF_MATCH='"99"')
    assert answer.status_code == missing.status_code == 404


def test_tag_is_checked_before_the_body(owner, path):
    assert owner.patch(path, {"price": 0}, HTTP_IF_MATCH='"99"').status_code == 412


def test_header_is_refused_where_no_row_of_the_path_is_written(owner, staff, superuser, path):
    body = {"name": "AAPL", "price": 1, "quantity": 1}
    assert owner.post(STOCKS, body, HTTP_IF_MATCH="*").status_code == 400
    assert staff.post(f"{STOCKS}/reprice", {"prices": {"AAPL": 1}}, HTTP_IF_MATCH='"1"').status_code == 400
    assert version_of(path) == 1


# REQUIRE_IF_MATCH


def test_header_is_required_by_the_setting(owner, staff, path, settings):
    settings.REQUIRE_IF_MATCH = True
    answers = [
        owner.put(path, {"name": "AAPL", "price": 3, "quantity": 1}),
        owner.patch(path, {"price": 3}),
        owner.delete(path),
        staff.post(f"{path}/restore"),
        owner.patch(ME, {"age": 3}),
        staff.delete(f"{USERS}/{owner.user.pk}"),
    ]
    assert [answer.status_code for answer in answers] == [428] * len(answers)
    assert owner.patch(path, {"price": 3}, HTTP_IF_MATCH=tag_of(owner, path)).status_code == 200
    assert owner.post(STOCKS, {"name": "AAPL", "price": 1, "quantity": 1}).status_code == 201


def test_required_header_does_not_reveal_rows(stranger, path, settings):
    settings.REQUIRE_IF_MATCH = True
    assert stranger.patch(path, {"price": 3}).status_code == 404


# Races


@pytest.mark.django_db(transaction=True)
def test_one_of_many_writers_with_one_tag_wins(owner, path, run_concurrently):
    tag = tag_of(owner, path)
    write = lambda price: Client(owner.user).patch(path, {"price": price}, HTTP_IF_MATCH=tag).status_code  # noqa: E731
    codes = run_concurrently(*(lambda price=price: write(price) for price in range(1, 17)))
    assert sorted(codes) == [200, *[412] * 15]
    assert version_of(path) == 2


def increment(client, path):
    """Add 1 to the quantity, as often as it takes."""
    while True:
        row = client.get(path)
        quantity = row.json()["quantity"] + 1
        answer = client.patch(path, {"quantity": quantity}, HTTP_IF_MATCH=row.headers["ETag"])
        if answer.status_code != 412:
            assert answer.status_code == 200, answer.content
            return


@pytest.mark.django_db(transaction=True)
def test_concurrent_increments_lose_nothing(owner, path, run_concurrently):
    clients, times = 4, 10 if connection.vendor == "postgresql" else 3
    loops = [lambda: [increment(client, path) for client in [Client(owner.user)] for _ in range(times)]] * clients
    run_concurrently(*loops)
    assert Stock.objects.get(pk=path.rpartition("/")[2]).quantity == 10 + clients * times

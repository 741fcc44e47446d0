"""Paging by number and by offset."""

from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from records.rest.pagination import counting

STOCKS = "/api/v1/stocks"
INVALID_NUMBERS = ["abc", "", "1.5", "-1", "+1", "%C2%B2", "0x10"]
can_estimate = connection.vendor == "postgresql"


@pytest.fixture
def stock_ids(owner, make_stock):
    return [make_stock(owner.user, quantity=quantity).pk for quantity in range(1, 6)]


def ids(response):
    assert response.status_code == 200, response.content
    return [item["id"] for item in response.json()["items"]]


def error_message(response, name):
    assert response.status_code == 400, response.content
    return " ".join(response.json()["errors"][name])


def test_page_contains_all_metadata(owner, stock_ids):
    body = owner.get(f"{STOCKS}?page=2&size=2").json()
    assert [item["id"] for item in body.pop("items")] == stock_ids[2:4]
    assert body == {
        "total": 5,
        "total_is_estimate": False,
        "page": 2,
        "size": 2,
        "pages": 3,
        "has_next": True,
        "has_prev": True,
        "links": {
            "first": "/api/v1/stocks?page=1&size=2",
            "prev": "/api/v1/stocks?page=1&size=2",
            "next": "/api/v1/stocks?page=3&size=2",
            "last": "/api/v1/stocks?page=3&size=2",
        },
    }


def test_default_is_the_first_page_of_twenty(owner, stock_ids):
    body = owner.get(STOCKS).json()
    assert (body["page"], body["size"], body["pages"]) == (1, 20, 1)


def test_first_page_has_no_previous(owner, stock_ids):
    body = owner.get(f"{STOCKS}?size=2").json()
    assert (body["has_prev"], body["links"]["prev"], body["has_next"]) == (False, None, True)


def test_last_page_has_no_next(owner, stock_ids):
    body = owner.get(f"{STOCKS}?page=3&size=2").json()
    assert (body["has_next"], body["links"]["next"], len(body["items"])) == (False, None, 1)


def test_full_last_page_has_no_next(owner, stock_ids):
    body = owner.get(f"{STOCKS}?size=5").json()
    assert (body["has_next"], body["total"], body["pages"]) == (False, 5, 1)


@pytest.mark.parametrize("query", ["size=2", "limit=2", "skip=0&limit=2&sort_by=-quantity", "size=2&count=none"])
def test_next_links_return_every_row_once(owner, stock_ids, query):
    link, seen_ids = f"{STOCKS}?{query}", []
    while link:
        response = owner.get(link)
        seen_ids += ids(response)
        link = response.json()["links"]["next"]
    assert sorted(seen_ids) == stock_ids


def test_last_link_returns_the_last_rows(owner, stock_ids):
    for query in ("size=2", "limit=2"):
        last = owner.get(f"{STOCKS}?{query}").json()["links"]["last"]
        assert ids(owner.get(last)) == stock_ids[4:]


@pytest.mark.parametrize("slash", ["", "/"])
def test_links_use_the_requested_path(owner, stock_ids, slash):
    for path in (f"{STOCKS}{slash}", f"/api/v1/users/{owner.user.pk}/stocks{slash}"):
        links = owner.get(f"{path}?page=2&size=2").json()["links"]
        assert {link.split("?")[0] for link in links.values()} == {path}


@pytest.mark.parametrize("window", ["page=2&size=1", "skip=1&limit=1", "cursor=&size=1"])
def test_links_keep_other_parameters(owner, stock_ids, window):
    others = "sort_by=-price,quantity&search=a&name__in=AAPL,MSFT&created_at__gte=2020-01-01T00:00:00%2B01:00"
    link = owner.get(f"{STOCKS}?{window}&{others}").json()["links"]["next"]
    parameters = parse_qs(urlsplit(link).query)
    assert {name: values for name, values in parameters.items() if name in parse_qs(others)} == parse_qs(others)
    assert parameters.keys() - parse_qs(others) == parse_qs(window, keep_blank_values=True).keys()


@pytest.mark.parametrize("text", ["a&page=7", "A #?/", "50%", "Ä+ö", 'a"b<c>'])
def test_links_escape_parameters(superuser, make_user, text):
    make_user(name=f"Abc{text}")
    make_user(name=f"Abd{text}")
    body = superuser.get("/api/v1/users", {"search": text, "size": 1}).json()
    assert parse_qs(urlsplit(body["links"]["next"]).query)["search"] == [text]
    assert superuser.get(body["links"]["next"]).json()["page"] == 2


def test_page_past_the_end_is_not_found(owner, stock_ids):
    response = owner.get(f"{STOCKS}?page=4&size=2")
    assert (response.status_code, response["Content-Type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("count", ["exact", "estimated", "none"])
def test_page_past_the_end_is_not_found_with_any_count(owner, stock_ids, count):
    assert owner.get(f"{STOCKS}?page=4&size=2&count={count}").status_code == 404


def test_first_page_of_an_empty_list_is_empty(owner):
    body = owner.get(STOCKS).json()
    assert (body["items"], body["total"], body["page"], body["pages"]) == ([], 0, 1, 0)
    assert (body["has_next"], body["has_prev"], body["links"]["next"]) == (False, False, None)


def test_second_page_of_an_empty_list_is_not_found(owner):
    assert owner.get(f"{STOCKS}?page=2").status_code == 404


def test_skip_and_limit_select_a_window(owner, stock_ids):
    response = owner.get(f"{STOCKS}?skip=1&limit=2")
    body = response.json()
    assert ids(response) == stock_ids[1:3]
    assert (body["total"], body["size"], body["has_next"], body["has_prev"]) == (5, 2, True, True)
    assert parse_qs(urlsplit(body["links"]["next"]).query) == {"skip": ["3"], "limit": ["2"]}


@pytest.mark.parametrize("query", ["skip=0", "limit=100"])
def test_default_limit_is_a_hundred(owner, stock_ids, query):
    assert owner.get(f"{STOCKS}?{query}").json()["size"] == 100


def test_previous_window_starts_at_zero_or_later(owner, stock_ids):
    previous = owner.get(f"{STOCKS}?skip=1&limit=3").json()["links"]["prev"]
    assert parse_qs(urlsplit(previous).query)["skip"] == ["0"]


def test_window_past_the_end_is_empty_and_has_a_total(owner, stock_ids):
    body = owner.get(f"{STOCKS}?skip=9&limit=3").json()
    assert (body["items"], body["total"], body["has_next"]) == ([], 5, False)


@pytest.mark.parametrize("query", ["page=1&skip=0", "size=5&skip=0", "page=1&limit=5", "size=5&limit=5"])
def test_paging_styles_cannot_be_mixed(owner, query):
    assert "mixed" in error_message(owner.get(f"{STOCKS}?{query}"), query.split("=")[0])


@pytest.mark.parametrize("query", ["page=100002&size=1", "page=502&size=200", "skip=100001", f"skip={10**17}"])
def test_offset_beyond_the_maximum_suggests_cursor(owner, stock_ids, query):
    assert "cursor" in error_message(owner.get(f"{STOCKS}?{query}"), query.split("=")[0])


@pytest.mark.parametrize("name", ["page", "skip"])
@pytest.mark.parametrize("digits", [19, 30, 5000])
def test_huge_offset_suggests_cursor(owner, name, digits):
    assert "cursor" in error_message(owner.get(f"{STOCKS}?{name}={'9' * digits}"), name)


def test_maximum_offset_is_served(owner, stock_ids):
    assert ids(owner.get(f"{STOCKS}?skip=100000")) == []


@pytest.mark.parametrize("name", ["page", "size", "skip", "limit"])
@pytest.mark.parametrize("value", INVALID_NUMBERS)
def test_invalid_number_is_named(owner, name, value):
    assert error_message(owner.get(f"{STOCKS}?{name}={value}"), name)


@pytest.mark.parametrize("query", ["page=0", "size=0", "size=201", "limit=0", "limit=201", f"size={10**30}"])
def test_number_out_of_range_is_named(owner, query):
    assert error_message(owner.get(f"{STOCKS}?{query}"), query.split("=")[0])


def test_maximum_page_size_is_two_hundred(owner, stock_ids):
    assert owner.get(f"{STOCKS}?size=200").json()["size"] == 200


def test_exact_count_has_no_limit(owner, stock_ids, monkeypatch):
    monkeypatch.setattr(counting, "MAX_EXACT_COUNT", 3)
    body = owner.get(f"{STOCKS}?size=1&count=exact").json()
    assert (body["total"], body["total_is_estimate"], body["pages"]) == (5, False, 5)


def test_count_none_leaves_totals_null(owner, stock_ids):
    body = owner.get(f"{STOCKS}?size=2&count=none").json()
    assert (body["total"], body["pages"], body["total_is_estimate"]) == (None, None, False)
    assert (body["links"]["last"], body["has_next"]) == (None, True)


@pytest.mark.parametrize("query", ["size=1", "size=1&count=estimated", "limit=1"])
def test_count_above_the_limit_is_estimated_on_postgresql(owner, stock_ids, monkeypatch, query):
    monkeypatch.setattr(counting, "MAX_EXACT_COUNT", 3)
    body = owner.get(f"{STOCKS}?{query}").json()
    assert body["total_is_estimate"] is can_estimate
    assert (body["links"]["last"] is None) is can_estimate
    assert body["total"] >= 2 if can_estimate else body["total"] == 5


@pytest.mark.parametrize(
    ("estimate", "query", "total"),
    [(1, "size=1", 2), (1, "page=2&size=2", 5), (9, "skip=8&limit=1", 8), (3, "skip=8", 3)],
)
def test_estimate_is_consistent_with_the_page(owner, stock_ids, monkeypatch, estimate, query, total):
    monkeypatch.setattr(counting, "estimated_count", lambda queryset: estimate)
    body = owner.get(f"{STOCKS}?{query}&count=estimated").json()
    assert body["total"] == (total if can_estimate else 5)


@pytest.mark.skipif(not can_estimate, reason="SQLite counts every list.")
def test_estimate_is_reused_for_a_few_seconds(owner, stranger, stock_ids, make_stock, monkeypatch):
    monkeypatch.setattr(counting, "MAX_EXACT_COUNT", 3)
    clock = [100.0]
    monkeypatch.setattr(counting.time, "monotonic", lambda: clock[0])
    for _ in range(4):
        make_stock(stranger.user)

    def statements(client, query="size=1"):
        with CaptureQueriesContext(connection) as queries:
            body = client.get(f"{STOCKS}?{query}").json()
        assert body["total_is_estimate"] is ("count=exact" not in query)
        return [query["sql"].split()[0] for query in queries if 'FROM "stocks"' in query["sql"]]

    assert statements(owner) == ["SELECT", "EXPLAIN"]
    assert statements(owner) == statements(owner, "size=1&count=estimated") == ["SELECT"]
    assert statements(owner, "size=2&page=2") == ["SELECT"]
    # Another filter, another caller, or an exact count: the estimate is not theirs.
    assert statements(owner, "size=1&price__gt=0") == statements(stranger) == ["SELECT", "EXPLAIN"]
    assert statements(owner, "size=1&count=exact") == ["SELECT"]
    clock[0] += counting.REUSE_SECONDS
    assert statements(owner) == ["SELECT", "EXPLAIN"]


def test_default_count_is_exact_up_to_the_limit(owner, stock_ids, monkeypatch):
    monkeypatch.setattr(counting, "MAX_EXACT_COUNT", 5)
    body = owner.get(f"{STOCKS}?size=1").json()
    assert (body["total"], body["total_is_estimate"]) == (5, False)


def test_count_is_exact_on_the_last_page(owner, stock_ids, monkeypatch):
    monkeypatch.setattr(counting, "MAX_EXACT_COUNT", 3)
    body = owner.get(f"{STOCKS}?page=3&size=2&count=estimated").json()
    assert (body["total"], body["total_is_estimate"]) == (5, False)


def test_count_includes_only_filtered_rows(owner, stock_ids, stranger, make_stock):
    make_stock(stranger.user)
    assert owner.get(f"{STOCKS}?quantity__lte=3&size=1").json()["total"] == 3


@pytest.mark.parametrize("value", ["all", "", "EXACT"])
def test_unknown_count_is_named(owner, value):
    assert "exact" in error_message(owner.get(f"{STOCKS}?count={value}"), "count")


@pytest.mark.parametrize("rows", [0, 1, 30])
def test_list_costs_one_query_beside_the_session(owner, make_stock, rows, django_assert_num_queries):
    for _ in range(rows):
        make_stock(owner.user)
    with django_assert_num_queries(2):
        owner.get(STOCKS)


@pytest.mark.parametrize(
    "query",
    ["count=exact", "count=estimated&size=1", "skip=1&limit=2", "page=2&size=2", "search=a&sort_by=-price", "skip=90"],
)
def test_list_costs_at_most_two_queries_beside_the_session(owner, stock_ids, query, django_assert_max_num_queries):
    with django_assert_max_num_queries(3):
        assert owner.get(f"{STOCKS}?{query}").status_code == 200


@pytest.mark.parametrize("path", ["/api/v1/stocks", "/api/v1/users"])
def test_list_costs_staff_one_more_query_for_permissions(staff, stock_ids, path, django_assert_num_queries):
    with django_assert_num_queries(3):
        staff.get(path)

"""Creating, changing and deleting many stocks by one request."""

import re
from html import unescape

import pytest
from django.test import override_settings

from conftest import PASSWORD, Client
from records.audit.models import AuditEntry
from stocks.models import Stock

STOCKS = "/api/v1/stocks"
REQUEST = {"HTTP_X_REQUEST_ID": "many-rows"}


def values(name="AAPL", **fields):
    return {"name": name, "price": 175.5, "quantity": 10} | fields


def errors(answer):
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json"), answer.content
    return answer.json()["errors"]


def statuses(answer):
    assert answer.status_code == 207, answer.content
    results = answer.json()["results"]
    assert [result["index"] for result in results] == list(range(len(results)))
    return [result["status"] for result in results]


# Success


def test_owner_creates_stocks_in_the_order_of_the_request(owner):
    answer = owner.post(STOCKS, [values("MSFT"), values("aapl"), values("IBM", is_active=False)])
    items = answer.json()["items"]
    assert (answer.status_code, [item["name"] for item in items]) == (201, ["MSFT", "AAPL", "IBM"])
    assert [owner.get(f"{STOCKS}/{item['id']}").json() for item in items] == items
    assert answer.headers["Location"] == STOCKS


def test_owner_changes_different_fields_of_stocks(owner, make_stock):
    first, second, third = (make_stock(owner.user) for _ in range(3))
    body = [{"id": third.pk, "price": 3.5}, {"id": first.pk, "quantity": 7, "name": "ibm"}, {"id": second.pk}]
    answer = owner.patch(STOCKS, body)
    items = answer.json()["items"]
    assert (answer.status_code, [item["id"] for item in items]) == (200, [third.pk, first.pk, second.pk])
    assert [(item["name"], item["price"], item["quantity"], item["version"]) for item in items] == [
        ("AAPL", 3.5, 10, 2), ("IBM", 175.5, 7, 2), ("AAPL", 175.5, 10, 1),
    ]  # fmt: skip
    assert [owner.get(f"{STOCKS}/{item['id']}").json() for item in items] == items


@pytest.mark.parametrize("as_objects", [False, True])
def test_owner_deletes_stocks(owner, make_stock, as_objects):
    keys = [make_stock(owner.user).pk for _ in range(3)]
    answer = owner.delete(f"{STOCKS}?reason=sold", [{"id": key} for key in keys[:2]] if as_objects else keys[:2])
    assert (answer.status_code, answer.json()) == (200, {"deleted": 2})
    assert set(Stock.all_objects.filter(pk__in=keys).values_list("pk", "deletion_reason")) == {
        (keys[0], "sold"), (keys[1], "sold"), (keys[2], ""),
    }  # fmt: skip


def test_good_rows_are_stored_without_the_bad_ones(owner):
    answer = owner.post(f"{STOCKS}?atomic=false", [values("IBM"), values(price=0), values("MSFT")])
    body = answer.json()
    assert (statuses(answer), body["succeeded"], body["failed"]) == ([201, 400, 201], 2, 1)
    assert body["results"][1]["errors"] == {"price": ["Ensure this value is greater than 0."]}
    assert owner.get(f"{STOCKS}/{body['results'][2]['item']['id']}").json() == body["results"][2]["item"]
    assert sorted(item["name"] for item in owner.get(STOCKS).json()["items"]) == ["IBM", "MSFT"]


def test_rows_are_deleted_without_the_bad_ones(owner, make_stock):
    keys = [make_stock(owner.user).pk for _ in range(2)]
    answer = owner.delete(f"{STOCKS}?atomic=false", [keys[0], 10**9, {"id": keys[1], "version": 5}])
    assert statuses(answer) == [204, 404, 412]
    assert answer.json()["results"] == [
        {"index": 0, "status": 204},
        {"index": 1, "status": 404, "errors": {"id": ["Stock with ID 1000000000 not found"]}},
        {"index": 2, "status": 412, "errors": {"version": ["Expected 5, found 1."]}},
    ]
    assert [item["id"] for item in owner.get(STOCKS).json()["items"]] == keys[1:]


def test_no_row_is_stored_if_all_are_bad(owner):
    answer = owner.post(f"{STOCKS}?atomic=false", [values(price=0), 7])
    assert (statuses(answer), answer.json()["succeeded"]) == ([400, 400], 0)
    assert owner.get(STOCKS).json()["total"] == 0


# Bad rows


def test_all_errors_of_all_rows_are_returned_at_once(owner):
    body = [values(price=0, quantity="x"), values(), [], values("a b", colour="red"), {"name": "IBM"}, 7, None]
    answer = owner.post(STOCKS, body)
    assert errors(answer) == {
        "0.price": ["Ensure this value is greater than 0."],
        "0.quantity": ["A valid integer is required."],
        "2": ["An object is expected, not a list."],
        "3.colour": ["Unknown field."],
        "3.name": ["Use letters, digits and the characters . - ^ = & / : _ only."],
        "4.price": ["This field is required."],
        "4.quantity": ["This field is required."],
        "5": ["An object is expected, not a number."],
        "6": ["An object is expected, not null."],
    }
    assert answer.json()["detail"] == "6 of 7 rows are at fault: nothing was stored."
    assert owner.get(STOCKS).json()["total"] == 0


def test_errors_of_a_thousand_rows_are_complete(owner):
    assert len(errors(owner.post(STOCKS, [{"price": 0}] * 1000))) == 3000


def test_rows_of_different_faults_are_refused_by_patch(owner, stranger, make_stock):
    own, other, foreign = make_stock(owner.user), make_stock(owner.user), make_stock(stranger.user)
    body = [
        {"id": own.pk, "price": 3}, {"id": other.pk, "price": 0}, {"id": foreign.pk, "price": 3}, {"id": 10**9},
        {"price": 3}, {"id": "x"}, {"id": None}, {"id": 10**30}, {"id": True}, 7,
    ]  # fmt: skip
    assert errors(owner.patch(STOCKS, body)) == {
        "1.price": ["Ensure this value is greater than 0."],
        "2.id": [f"Stock with ID {foreign.pk} not found"],
        "3.id": ["Stock with ID 1000000000 not found"],
        "4.id": ["This field is required."],
        "5.id": ["A valid integer is required."],
        "6.id": ["This field may not be null."],
        "7.id": [f"Ensure this value is less than or equal to {2**63 - 1}."],
        "8.id": ["A valid integer is required."],
        "9": ["An object is expected, not a number."],
    }
    assert Stock.objects.get(pk=own.pk).version == 1
    answer = owner.patch(f"{STOCKS}?atomic=false", body)
    assert statuses(answer) == [200, 400, 404, 404, 400, 400, 400, 400, 400, 400]
    assert Stock.objects.get(pk=own.pk).price == 3


@pytest.mark.parametrize("method", ["patch", "delete"])
def test_deleted_row_is_not_found(owner, make_stock, method):
    stock = make_stock(owner.user)
    stock.delete()
    assert errors(getattr(owner, method)(STOCKS, [{"id": stock.pk}])) == {
        "0.id": [f"Stock with ID {stock.pk} not found"]
    }


def test_item_of_delete_has_id_and_version_only(owner, make_stock):
    stock = make_stock(owner.user)
    body = [{"id": stock.pk, "verison": 1, "price": 2}]
    assert errors(owner.delete(STOCKS, body)) == {
        "0.verison": ["Unknown field. Did you mean 'version'?"],
        "0.price": ["Unknown field."],
    }
    assert Stock.objects.filter(pk=stock.pk).exists()


@pytest.mark.parametrize("query", ["", "?atomic=false"])
@pytest.mark.parametrize("method", ["patch", "delete"])
def test_same_id_twice_refuses_the_request(owner, make_stock, method, query):
    keys = [make_stock(owner.user).pk for _ in range(2)]
    answer = getattr(owner, method)(STOCKS + query, [{"id": key} for key in (*keys, keys[0], keys[0])])
    expected = ["Row 0 has the same id."]
    assert errors(answer) == {"2.id": expected, "3.id": expected}
    assert Stock.objects.filter(pk__in=keys).count() == 2


@pytest.mark.parametrize("query", ["", "?atomic=false"])
@pytest.mark.parametrize("method", ["post", "patch", "delete"])
@pytest.mark.parametrize("count", [0, 1001])
def test_number_of_rows_is_limited(owner, method, query, count):
    answer = getattr(owner, method)(STOCKS + query, [{"id": 1}] * count)
    assert (answer.status_code, answer.json()["detail"]) == (400, f"Expected 1 to 1,000 rows, got {count:,}.")


@pytest.mark.parametrize("body", [{}, {"id": 1}, "x", 7])
@pytest.mark.parametrize("method", ["patch", "delete"])
def test_collection_expects_an_array(owner, method, body):
    answer = getattr(owner, method)(STOCKS, body)
    assert (answer.status_code, answer.json()["detail"]) == (400, "Expected an array of rows in the request body.")
    assert getattr(owner, method)(STOCKS).status_code == 400


@pytest.mark.parametrize("method", ["post", "patch", "delete"])
def test_atomic_is_true_or_false(owner, method):
    answer = getattr(owner, method)(f"{STOCKS}?atomic=maybe", [{"id": 1}])
    assert errors(answer) == {"atomic": ["Must be true or false."]}


def test_atomic_is_for_arrays_only(owner):
    assert errors(owner.post(f"{STOCKS}?atomic=true", values())) == {
        "atomic": ["This parameter is for an array of rows only."]
    }


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
def test_atomic_is_unknown_elsewhere(owner, make_stock, method):
    path = STOCKS if method == "get" else f"{STOCKS}/{make_stock(owner.user).pk}"
    assert list(errors(getattr(owner, method)(f"{path}?atomic=true"))) == ["atomic"]


def test_permanent_is_unknown_for_many_rows(superuser):
    assert list(errors(superuser.delete("/api/v1/users?permanent=true", [1]))) == ["permanent"]


def test_reason_is_checked(owner, make_stock):
    stock = make_stock(owner.user)
    assert list(errors(owner.delete(f"{STOCKS}?reason={'a' * 201}", [stock.pk]))) == ["reason"]


# Versions


def test_version_is_a_precondition(owner, make_stock):
    first, second = make_stock(owner.user), make_stock(owner.user)
    body = [{"id": first.pk, "version": 1, "price": 2}, {"id": second.pk, "version": 3, "price": 2}]
    assert errors(owner.patch(STOCKS, body)) == {"1.version": ["Expected 3, found 1."]}
    answer = owner.patch(f"{STOCKS}?atomic=false", body)
    assert statuses(answer) == [200, 412]
    assert answer.json()["results"][0]["item"]["version"] == 2
    assert errors(owner.delete(STOCKS, [{"id": first.pk, "version": 1}])) == {"0.version": ["Expected 1, found 2."]}


@pytest.mark.parametrize("version", ["x", None, 1.5, [], True])
def test_version_of_another_type_is_refused(owner, make_stock, version):
    body = [{"id": make_stock(owner.user).pk, "version": version}]
    assert list(errors(owner.patch(STOCKS, body))) == ["0.version"]
    assert list(errors(owner.delete(STOCKS, body))) == ["0.version"]


@override_settings(REQUIRE_IF_MATCH=True)
def test_version_may_be_required(owner, make_stock):
    first, second = make_stock(owner.user), make_stock(owner.user)
    assert errors(owner.delete(STOCKS, [first.pk])) == {"0.version": ["This field is required."]}
    answer = owner.patch(f"{STOCKS}?atomic=false", [{"id": first.pk}, {"id": second.pk, "version": 1}])
    assert statuses(answer) == [428, 200]


# Permissions


def test_invisible_row_is_answered_like_a_missing_one(owner, stranger, make_stock):
    stock = make_stock(stranger.user)
    before = [
        getattr(owner, method)(f"{STOCKS}?{query}", [{"id": stock.pk}]).json()
        for method in ("patch", "delete")
        for query in ("", "atomic=false")
    ]
    Stock.all_objects.filter(pk=stock.pk).purge()
    after = [
        getattr(owner, method)(f"{STOCKS}?{query}", [{"id": stock.pk}]).json()
        for method in ("patch", "delete")
        for query in ("", "atomic=false")
    ]
    for answer in (*before, *after):
        answer.pop("request_id", None)
    assert before == after


def test_staff_who_may_only_view_change_their_own_rows(staff_with, owner, make_stock):
    viewer = staff_with("view_stock")
    own, other = make_stock(viewer.user), make_stock(owner.user)
    refusal = ["You do not have permission to perform this action."]
    for method in (viewer.patch, viewer.delete):
        body = [{"id": own.pk}, {"id": other.pk}]
        assert errors(method(STOCKS, body)) == {"1.id": refusal}
        answer = method(f"{STOCKS}?atomic=false", body)
        assert (statuses(answer)[1], answer.json()["results"][1]["errors"]) == (403, {"id": refusal})
    assert set(Stock.objects.filter(pk__in=[own.pk, other.pk])) == {other}


@pytest.mark.parametrize("query", ["", "?atomic=false"])
def test_refused_rows_are_in_the_audit_log(staff_with, owner, make_stock, query):
    viewer, stocks = staff_with("view_stock"), [make_stock(owner.user) for _ in range(12)]
    viewer.delete(STOCKS + query, [stock.pk for stock in stocks[:2]])
    viewer.patch(STOCKS + query, [{"id": stock.pk, "price": 1} for stock in stocks])
    failures = AuditEntry.objects.filter(outcome="failure", user_id=viewer.user.pk).order_by("id")
    assert [(entry.action, entry.object_id, entry.owner_id) for entry in failures] == [
        (action, str(stock.pk), owner.user.pk)
        for action, stock in [
            ("delete", stocks[0]),
            ("delete", stocks[1]),
            *(("update", stock) for stock in stocks[:8]),
        ]
    ]


def test_only_staff_name_another_owner(owner, stranger, staff):
    body = [values(), values(user_id=stranger.user.pk)]
    assert errors(owner.post(STOCKS, body)) == {"1.user_id": ["This field is read-only."]}
    items = staff.post(STOCKS, body).json()["items"]
    assert [item["user_id"] for item in items] == [staff.user.pk, stranger.user.pk]


def test_owners_must_exist(staff, owner, make_stock):
    stock = make_stock(owner.user)
    assert errors(staff.post(STOCKS, [values(user_id=10**9), values(user_id=owner.user.pk)])) == {
        "0.user_id": ["User with ID 1000000000 not found"]
    }
    assert errors(staff.patch(STOCKS, [{"id": stock.pk, "user_id": 10**9}])) == {
        "0.user_id": ["User with ID 1000000000 not found"]
    }


def test_staff_give_stocks_to_other_users(staff, owner, stranger, make_stock):
    first, second = make_stock(owner.user), make_stock(owner.user)
    body = [{"id": first.pk, "user_id": stranger.user.pk}, {"id": second.pk, "price": 2}]
    assert [item["user_id"] for item in staff.patch(STOCKS, body).json()["items"]] == [
        stranger.user.pk, owner.user.pk,
    ]  # fmt: skip


def test_anonymous_must_log_in(anonymous):
    for method in (anonymous.post, anonymous.patch, anonymous.delete):
        assert method(STOCKS, [{"id": 1}]).status_code == 401


# The stocks of a user


def test_stocks_of_a_user_are_created_together(owner, stranger, staff):
    path = f"/api/v1/users/{owner.user.pk}/stocks"
    for client in (owner, staff):
        answer = client.post(path, [values("IBM"), values("MSFT")])
        assert (answer.status_code, {item["user_id"] for item in answer.json()["items"]}) == (201, {owner.user.pk})
        assert answer.headers["Location"] == path
    assert errors(owner.post(path, [values(user_id=owner.user.pk)])) == {"0.user_id": ["This field is read-only."]}
    assert stranger.post(path, [values()]).status_code == 404
    assert [method(path, []).status_code for method in (owner.patch, owner.delete)] == [405, 405]


# The audit log


def test_each_row_has_its_entry(owner, superuser, make_stock):
    stocks = [make_stock(owner.user) for _ in range(3)]
    owner.patch(STOCKS, [{"id": stock.pk, "price": price} for stock, price in zip(stocks, (2, 3, 175.5), strict=True)])
    entries = [
        entry for stock in stocks for entry in AuditEntry.objects.of_row(Stock, stock.pk).filter(action="update")
    ]
    assert [(entry.object_id, entry.changes, entry.user_id, entry.owner_id) for entry in entries] == [
        (str(stocks[0].pk), {"price": [175.5, 2]}, owner.user.pk, owner.user.pk),
        (str(stocks[1].pk), {"price": [175.5, 3]}, owner.user.pk, owner.user.pk),
    ]
    assert len({entry.request_id for entry in entries}) == 1


def undo(superuser):
    answer = superuser.post("/api/v1/admin/audit-logs/undo", {"request_id": REQUEST["HTTP_X_REQUEST_ID"]})
    assert answer.status_code == 200, answer.content
    return answer.json()["undone"]


def test_creation_is_undone_at_once(owner, superuser):
    owner.post(STOCKS, [values("IBM"), values("MSFT")], **REQUEST)
    assert (undo(superuser), owner.get(STOCKS).json()["total"]) == (2, 0)


def test_change_is_undone_at_once(owner, superuser, make_stock):
    stocks = [make_stock(owner.user, price=price) for price in (1, 2)]
    body = [{"id": stocks[0].pk, "price": 7}, {"id": stocks[1].pk, "price": 8, "quantity": 5}]
    owner.patch(STOCKS, body, **REQUEST)
    assert undo(superuser) == 2
    assert [(stock["price"], stock["quantity"]) for stock in owner.get(STOCKS).json()["items"]] == [(1, 10), (2, 10)]


def test_deletion_is_undone_at_once(owner, superuser, make_stock):
    owner.delete(STOCKS, [make_stock(owner.user).pk for _ in range(2)], **REQUEST)
    assert (undo(superuser), owner.get(STOCKS).json()["total"]) == (2, 2)


# The browsable API


def test_page_of_a_collection_shows_an_array_and_no_button_to_delete(make_user, make_stock):
    user = make_user(password=PASSWORD)
    browser = Client()
    assert browser.login(username=user.username, password=PASSWORD)
    stock = make_stock(user)
    page, detail = (
        unescape(browser.get(path, headers={"accept": "text/html"}).content.decode())
        for path in (STOCKS, f"{STOCKS}/{stock.pk}")
    )
    assert re.search(r'<textarea[^>]*>\s*\[\s*\{\s*"name": ""', page)
    assert re.search(r'<textarea[^>]*>\s*\[\s*\{\s*"id": null,\s*"name": ""', page)
    assert ('data-method="PATCH"' in page, 'data-method="DELETE"' in page) == (True, False)
    assert 'data-method="DELETE"' in detail
    assert not re.search(r"<textarea[^>]*>\s*\[", detail)


def test_options_name_the_methods_of_a_collection(owner):
    assert owner.options(STOCKS).headers["Allow"] == "GET, POST, PATCH, DELETE, HEAD, OPTIONS"

"""The audit log over the API: which entries and values each user sees, and `/history` of a row."""

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from config.urls import router
from records import context
from records.audit.models import AuditEntry
from records.models.changes import Change
from records.tests.factories import create_row
from stocks.models import Stock
from users.models import User

LOG = "/api/v1/admin/audit-logs"
#: Path → model of the resources whose rows belong to users, scaffolded ones too.
OWNED_MODELS = {
    prefix: viewset.queryset.model
    for prefix, viewset, _ in router.registry
    if getattr(viewset.queryset.model, "owned_by", None) not in {None, "id"}
    and not viewset.queryset.model.same_owner_fields()  # these are transferred together with their references
}


@pytest.fixture
def auditor(staff_with):
    return staff_with("view_auditentry")


@pytest.fixture
def stock(owner):
    return owner.post("/api/v1/stocks", {"name": "AAPL", "price": 175.5, "quantity": 10}).json()


def entry(auditor, query):
    [item] = auditor.get(f"{LOG}?{query}").json()["items"]
    return item


def ids(client, path):
    return [item["id"] for item in client.get(path).json()["items"]]


# The list


def test_entry_contains_user_action_and_row(auditor, owner, stock):
    answer = owner.patch(f"/api/v1/stocks/{stock['id']}", {"price": 190.25})
    item = entry(auditor, "action=update&object_type=stocks")
    assert item == {
        "id": item["id"],
        "at": item["at"],
        "action": "update",
        "outcome": "success",
        "user_id": owner.user.pk,
        "object_type": "stocks",
        "object_id": stock["id"],
        "owner_id": owner.user.pk,
        "changes": {"price": [175.5, 190.25]},
        "ip": "127.0.0.1",
        "request_id": answer.headers["X-Request-ID"],
    }
    assert item["at"].endswith("Z")


def test_changes_use_api_field_names(auditor, staff, stranger, stock):
    staff.patch(f"/api/v1/stocks/{stock['id']}", {"user_id": stranger.user.pk})
    assert list(entry(auditor, "action=update&object_type=stocks&fields=changes")["changes"]) == ["user_id"]


def test_fields_parameter_selects_fields(auditor, stock):
    assert entry(auditor, "object_type=stocks&fields=object_id") == {"object_id": stock["id"]}


def test_newest_entries_come_first(auditor, owner, stock):
    keys = ids(auditor, LOG)
    assert keys == sorted(keys, reverse=True)
    assert ids(auditor, f"{LOG}?sort_by=id") == keys[::-1]


@pytest.mark.parametrize("query", ["size=2", "limit=2", "cursor=&size=2"])
def test_pages_show_every_entry_once(auditor, owner, stock, query):
    for price in range(1, 6):
        owner.patch(f"/api/v1/stocks/{stock['id']}", {"price": price})
    expected, keys = ids(auditor, f"{LOG}?size=200"), []
    link = f"{LOG}?{query}"
    while link:
        page = auditor.get(link).json()
        keys += [item["id"] for item in page["items"]]
        link = page["links"]["next"]
    assert keys == expected


FILTERS = {
    "user_id": lambda owner, stock: owner.user.pk,
    "action": lambda owner, stock: "create",
    "outcome": lambda owner, stock: "success",
    "object_type": lambda owner, stock: "stocks",
    "object_id": lambda owner, stock: stock["id"],
    "owner_id": lambda owner, stock: owner.user.pk,
}


@pytest.mark.parametrize("name", FILTERS)
def test_filter(auditor, owner, stock, name):
    value = FILTERS[name](owner, stock)
    others = {item[name] for item in auditor.get(LOG).json()["items"]} - {value}
    items = auditor.get(f"{LOG}?{name}={value}").json()["items"]
    assert items
    assert {item[name] for item in items} == {value}
    assert others or name == "outcome"


def test_filter_by_request(auditor, owner):
    body = {"name": "AAPL", "price": 1, "quantity": 1}
    answer = owner.post("/api/v1/stocks", body, HTTP_X_REQUEST_ID="import-7")
    assert answer.headers["X-Request-ID"] == "import-7"
    assert entry(auditor, "request_id=import-7")["object_id"] == answer.json()["id"]


def test_filter_by_time(auditor, owner, stock):
    later = timezone.now().isoformat().replace("+00:00", "Z")
    owner.patch(f"/api/v1/stocks/{stock['id']}", {"price": 2})
    assert entry(auditor, f"at__gte={later}")["action"] == "update"
    assert entry(auditor, f"at__lte={later}&object_type=stocks")["action"] == "create"


@pytest.mark.parametrize(
    "query",
    ["action=steal", "outcome=maybe", "user_id=x", "at__gte=yesterday", "objct_id=1", "sort_by=at", "object_id="],
)
def test_invalid_parameter_is_named(auditor, query):
    answer = auditor.get(f"{LOG}?{query}")
    assert (answer.status_code, query.partition("=")[0] in answer.json()["errors"]) == (400, True)


@pytest.mark.parametrize("rows", [1, 30])
def test_list_costs_one_query_beside_session_and_permissions(
    auditor, owner, make_stock, rows, django_assert_num_queries
):
    for _ in range(rows):
        make_stock(owner.user)
    with django_assert_num_queries(3):  # session, permissions, entries
        assert auditor.get(LOG).status_code == 200


def test_entry_can_be_retrieved(auditor, stock):
    item = entry(auditor, "object_type=stocks")
    assert auditor.get(f"{LOG}/{item['id']}").json() == item


def test_missing_entry_is_404(auditor):
    assert auditor.get(f"{LOG}/9999999").json()["detail"] == "Audit entry with ID 9999999 not found"


@pytest.mark.parametrize("method", ["put", "patch", "delete", "post"])
def test_audit_log_is_read_only(superuser, stock, method):
    item = entry(superuser, "object_type=stocks")
    path = LOG if method == "post" else f"{LOG}/{item['id']}"
    assert getattr(superuser, method)(path, {"action": "login"}).status_code == 405


def test_audit_log_requires_permission(staff_with, stranger, anonymous):
    assert staff_with("view_stock", "view_user").get(LOG).status_code == 403
    assert staff_with("change_auditentry").get(LOG).status_code == 200
    stranger.user.user_permissions.set(Permission.objects.filter(codename="view_auditentry"))
    assert stranger.get(LOG).status_code == 403
    assert anonymous.get(LOG).status_code == 401


# Indexes


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="asks PostgreSQL's planner")
@pytest.mark.parametrize(
    "query",
    [
        "", "user_id=7", "action=purge", "outcome=failure", "object_type=users", "object_id=7",
        "object_type=stocks&object_id=7", "owner_id=7", "request_id=x", "at__gte=2030-01-01T00:00:00Z",
        "at__lte=2001-01-01T00:00:00Z",
    ],
)  # fmt: skip
def test_every_filter_uses_an_index(auditor, query):
    AuditEntry.objects.record(User, "update", [Change(number, number) for number in range(2000)])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE audit_log")
        cursor.execute("SET LOCAL enable_seqscan = off")
    with CaptureQueriesContext(connection) as queries:
        auditor.get(f"{LOG}?{query}")
        sql = queries[-1]["sql"]
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {sql}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Seq Scan" not in plan
    assert "Index" in plan


# History


@pytest.mark.parametrize("slash", ["", "/"])
def test_history_contains_the_entries_of_one_row(owner, stock, slash):
    owner.post("/api/v1/stocks", {"name": "GOOG", "price": 1, "quantity": 1})
    owner.patch(f"/api/v1/stocks/{stock['id']}", {"price": 2})
    items = owner.get(f"/api/v1/stocks/{stock['id']}/history{slash}").json()["items"]
    assert [(item["action"], item["object_id"]) for item in items] == [("update", stock["id"]), ("create", stock["id"])]


def test_history_is_paged_and_filtered(owner, stock):
    owner.patch(f"/api/v1/stocks/{stock['id']}", {"price": 2})
    path = f"/api/v1/stocks/{stock['id']}/history"
    assert owner.get(f"{path}?size=1").json()["pages"] == 2
    assert len(ids(owner, f"{path}?action=create")) == 1
    assert owner.get(f"{path}?pric=1").status_code == 400


def test_user_reads_own_history(owner):
    owner.patch("/api/v1/users/me", {"name": "Ada"})
    item = owner.get(f"/api/v1/users/{owner.user.pk}/history?size=1").json()["items"][0]
    assert (item["action"], item["changes"], item["ip"]) == ("update", {"name": [None, "Ada"]}, "127.0.0.1")


def test_history_of_another_users_row_is_not_found(stranger, stock):
    answer, missing = (stranger.get(f"/api/v1/stocks/{number}/history") for number in (stock["id"], 10**9))
    assert (answer.status_code, missing.status_code) == (404, 404)
    assert answer.json()["detail"] == f"Stock with ID {stock['id']} not found"


def test_history_of_a_deleted_row_is_visible_only_to_staff(owner, staff, stock):
    owner.delete(f"/api/v1/stocks/{stock['id']}")
    path = f"/api/v1/stocks/{stock['id']}/history"
    assert owner.get(path).status_code == 404
    assert [item["action"] for item in staff.get(path).json()["items"]] == ["delete", "create"]


def test_owner_cannot_see_address_of_staff(owner, staff, superuser, stock):
    staff.patch(f"/api/v1/stocks/{stock['id']}", {"price": 2})
    path = f"/api/v1/stocks/{stock['id']}/history?fields=ip"
    assert owner.get(path).json()["items"] == [{"ip": None}, {"ip": "127.0.0.1"}]
    assert superuser.get(path).json()["items"] == [{"ip": "127.0.0.1"}, {"ip": "127.0.0.1"}]


def test_owner_cannot_see_deletion_reason_of_staff(owner, superuser, stock):
    superuser.delete(f"/api/v1/stocks/{stock['id']}?reason=suspected-fraud")
    superuser.post(f"/api/v1/stocks/{stock['id']}/restore")
    path = f"/api/v1/stocks/{stock['id']}/history"
    assert "suspected-fraud" not in owner.get(path).content.decode()
    assert "suspected-fraud" in superuser.get(path).content.decode()


def test_owner_cannot_see_request_ids_of_others(owner, superuser, stock):
    superuser.patch(f"/api/v1/stocks/{stock['id']}", {"price": 2})
    others, own = owner.get(f"/api/v1/stocks/{stock['id']}/history?fields=request_id").json()["items"]
    assert (others["request_id"], own["request_id"] is None) == (None, False)
    assert owner.get(f"/api/v1/stocks/{stock['id']}/history?request_id=x").status_code == 400


@pytest.mark.parametrize("bad", ["abc", "9" * 30, "%00"])
def test_history_of_an_invalid_id_is_404(owner, bad):
    assert owner.get(f"/api/v1/stocks/{bad}/history").status_code == 404


def test_history_costs_three_queries(owner, stock, django_assert_num_queries):
    with django_assert_num_queries(3):  # session, ownership of the row, entries
        owner.get(f"/api/v1/stocks/{stock['id']}/history")


# History of a transferred row


@pytest.fixture
def history_path(owner, stranger, staff, stock):
    """Transfer the owner's stock to the stranger with a new price; return the path of its history."""
    path = f"/api/v1/stocks/{stock['id']}"
    owner.patch(path, {"price": 11})
    owner.patch(path, {"price": 12, "quantity": 77})
    staff.patch(path, {"user_id": stranger.user.pk, "price": 13})
    stranger.patch(path, {"price": 14})
    return f"{path}/history"


def changes_visible_to(client, path):
    return [(item["action"], item["changes"]) for item in client.get(path).json()["items"]]


def test_new_owner_cannot_see_earlier_history(stranger, history_path):
    assert changes_visible_to(stranger, history_path) == [
        ("update", {"price": [13, 14]}),
        ("update", {"price": [None, 13], "user_id": [None, stranger.user.pk]}),
    ]


def test_former_owner_cannot_see_history(owner, history_path):
    assert owner.get(history_path).status_code == 404


@pytest.mark.parametrize("query", ["size=1", "limit=1", "cursor=&size=1"])
def test_pages_of_a_new_owner_contain_only_visible_entries(stranger, history_path, query):
    link, items = f"{history_path}?{query}", []
    while link:
        page = stranger.get(link).json()
        items += page["items"]
        link = page["links"]["next"]
    assert len(items) == 2
    assert stranger.get(history_path).json()["total"] == 2


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("action=create", 0),
        ("action=update", 2),
        ("user_id={owner}", 0),
        ("owner_id={owner}", 0),
        ("user_id={stranger}", 1),
        ("owner_id={stranger}", 2),
        ("at__lte=2100-01-01T00:00:00Z", 2),
        ("sort_by=id", 2),
    ],
)
def test_filters_of_a_new_owner_match_only_visible_entries(owner, stranger, history_path, query, count):
    query = query.format(owner=owner.user.pk, stranger=stranger.user.pk)
    assert stranger.get(f"{history_path}?{query}").json()["total"] == count


def test_staff_see_complete_history_of_a_transferred_row(auditor, superuser, staff, owner, stranger, history_path):
    changed = ("update", {"price": [12, 13], "user_id": [owner.user.pk, stranger.user.pk]})
    for client in (superuser, staff):
        assert len(changes_visible_to(client, history_path)) == 5
        assert changes_visible_to(client, history_path)[1] == changed


def test_new_owner_with_view_permission_sees_complete_history(stranger, history_path):
    User.objects.filter(pk=stranger.user.pk).update(is_staff=True)
    stranger.user.user_permissions.set(Permission.objects.filter(codename="view_auditentry"))
    assert len(changes_visible_to(stranger, history_path)) == 5


def test_owner_of_a_returned_row_cannot_see_other_ownership(owner, stranger, staff, history_path):
    staff.patch(history_path.removesuffix("/history"), {"user_id": owner.user.pk})
    values = [changes for _, changes in changes_visible_to(owner, history_path)]
    assert values[0] == {"user_id": [None, owner.user.pk]}
    assert not any(13 in change.get("price", ()) or 14 in change.get("price", ()) for change in values)


@pytest.mark.parametrize("prefix", OWNED_MODELS)
def test_every_owned_resource_hides_history_of_former_owners(owner, stranger, superuser, prefix):
    model = OWNED_MODELS[prefix]
    row = create_row(model, **{model.owned_by: owner.user.pk})
    model.objects.filter(pk=row.pk).update(**{model.owned_by: stranger.user.pk})
    path = f"/api/v1/{prefix}/{row.pk}/history"
    [item] = stranger.get(path).json()["items"]
    assert [old for old, _ in item["changes"].values()] == [None]
    assert len(superuser.get(path).json()["items"]) == 2


@pytest.mark.parametrize("way", ["queryset", "undo", "save"])
def test_new_owner_cannot_see_earlier_history_after_any_transfer(owner, stranger, superuser, stock, way):
    path = f"/api/v1/stocks/{stock['id']}"
    owner.patch(path, {"price": 11})
    if way == "queryset":
        Stock.objects.filter(pk=stock["id"]).update(owner=stranger.user)
    elif way == "save":
        row = Stock.objects.get(pk=stock["id"])
        row.owner = stranger.user
        row.save()
    else:
        Stock.objects.filter(pk=stock["id"]).update(owner=superuser.user)
        Stock.objects.filter(pk=stock["id"]).update(owner=stranger.user)
        superuser.patch(path, {"user_id": superuser.user.pk})
        entry = superuser.get(f"{path}/history?size=1").json()["items"][0]
        assert superuser.post(f"{LOG}/{entry['id']}/undo").status_code == 200
    changes_seen = changes_visible_to(stranger, f"{path}/history")
    assert changes_seen[0][1] == {"user_id": [None, stranger.user.pk]}
    assert all("price" not in changes for _, changes in changes_seen)


def test_history_of_a_new_owner_costs_three_queries(stranger, history_path, django_assert_num_queries):
    with django_assert_num_queries(3):
        assert stranger.get(history_path).status_code == 200


def test_user_sees_complete_own_history(owner, superuser):
    superuser.patch(f"/api/v1/users/{owner.user.pk}", {"name": "Ada"})
    assert [action for action, _ in changes_visible_to(owner, f"/api/v1/users/{owner.user.pk}/history")][::-1][:1] == [
        "create"
    ]


# Commands


def test_entries_of_a_command_have_no_user(db, make_user, make_stock):
    [entry] = AuditEntry.objects.of_row(Stock, make_stock(make_user()).pk)
    assert (entry.user_id, entry.ip, entry.request_id) == (None, None, context.request_id())

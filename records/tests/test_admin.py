"""Requests to the admin that its forms never send."""

import pytest
from django.test import Client

from users.models import LAST_SUPERUSER_MESSAGE, User

BAD_IDS = ["abc", "9" * 30, "\x00"]


@pytest.fixture
def admin(make_user) -> Client:
    client = Client(raise_request_exception=False)
    client.user = make_user(is_staff=True, is_superuser=True)
    client.force_login(client.user)
    return client


@pytest.mark.parametrize("owner", BAD_IDS)
def test_invalid_owner_does_not_crash(admin, owner):
    stock = {"owner": owner, "name": "AAPL", "price": "1", "quantity": "1"}
    assert admin.post("/admin/stocks/stock/add/", stock).status_code in {200, 400}


@pytest.mark.parametrize("action", ["delete_selected", "restore_selected"])
@pytest.mark.parametrize("row", BAD_IDS)
def test_invalid_selection_does_not_crash(admin, action, row):
    answer = admin.post("/admin/stocks/stock/", {"action": action, "_selected_action": row})
    assert answer.status_code in {200, 302, 400}


def test_filter_with_nul_does_not_crash(admin):
    assert admin.get("/admin/users/user/?gender__exact=%00").status_code in {200, 302, 400}


def test_taken_username_has_the_message_of_the_api(admin, make_user):
    make_user(username="taken").delete()
    password = {"usable_password": "false"}
    answer = admin.post("/admin/users/user/add/", {"username": "TAKEN", "email": "", **password})
    assert "Username already in use" in answer.content.decode()


def test_last_superuser_cannot_be_deleted(admin):
    selected = {"action": "delete_selected", "_selected_action": admin.user.pk, "post": "yes"}
    assert LAST_SUPERUSER_MESSAGE in admin.post("/admin/users/user/", selected).content.decode()
    assert User.objects.filter(pk=admin.user.pk).exists()


def test_list_needs_a_constant_number_of_queries(admin, make_user, make_stock, django_assert_max_num_queries):
    for _ in range(5):
        make_stock(make_user())
    with django_assert_max_num_queries(6):
        assert admin.get("/admin/stocks/stock/").status_code == 200

"""OPTIONS, methods that are not allowed, and changes without a body."""

import pytest

from conftest import PASSWORD, Client
from records.rest.views import StrictMixin

STOCKS, USERS, AUTH = "/api/v1/stocks", "/api/v1/users", "/api/v1/auth"

# OPTIONS

FORMS = ["application/x-www-form-urlencoded", "multipart/form-data"]


@pytest.mark.parametrize("path", [STOCKS, USERS, f"{USERS}/me", f"{STOCKS}/reprice", f"{AUTH}/change-password"])
def test_options_list_json_for_api_clients(superuser, path):
    assert superuser.options(path).json()["parses"] == ["application/json"]
    for form in FORMS:
        method = superuser.patch if path.endswith("/me") else superuser.post
        assert method(path, "a=b", content_type=f"{form}; boundary=x").status_code == 415


def test_options_of_login_list_form_types(anonymous):
    assert anonymous.options(f"{AUTH}/login").json()["parses"] == ["application/json", *FORMS]


def test_options_list_form_types_for_a_browser(make_user, db):
    make_user(username="browser", password=PASSWORD)
    browser = Client()
    assert browser.login(username="browser", password=PASSWORD)
    assert browser.options(STOCKS).json()["parses"] == ["application/json", *FORMS]
    assert browser.post(STOCKS, {"name": "AAPL", "price": "1", "quantity": "2"}, format="multipart").status_code == 201


@pytest.mark.parametrize("path", [STOCKS, f"{AUTH}/sessions", "/api/v1/admin/audit-logs", f"{USERS}/me"])
def test_options_contain_no_docstrings(superuser, path):
    description = superuser.options(path).json()["description"]
    classes, docstrings = [StrictMixin], []
    while classes:
        current_class = classes.pop()
        classes += current_class.__subclasses__()
        docstrings.append(current_class.__doc__)
    assert description not in [text for text in docstrings if text]


@pytest.mark.parametrize("method", ["put", "patch"])
@pytest.mark.parametrize("path", [f"{USERS}/me", "own"])
def test_change_requires_a_body(owner, make_stock, method, path):
    path = f"{STOCKS}/{make_stock(owner.user).pk}" if path == "own" else path
    answer = getattr(owner, method)(path)
    assert answer.status_code == 400
    assert owner.patch(path, {}).status_code == 200


@pytest.mark.parametrize("method", ["put", "trace"])
def test_method_is_checked_before_parameters(superuser, method):
    assert getattr(superuser, method)(f"{STOCKS}?size=1").status_code == 405

"""User tasks in a real browser."""

import pytest
from django.contrib.auth.models import Permission

from conftest import PASSWORD
from stocks.models import Stock
from users.mail_tokens import DELETE_ACCOUNT, RESET_PASSWORD, VERIFY_EMAIL, mail_token

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def page(chromium, live_server):
    context = chromium.new_context(base_url=live_server.url)
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.external_requests = []
    page.on(
        "request",
        lambda request: (
            page.external_requests.append(request.url) if is_external(request.url, live_server.url) else None
        ),
    )
    yield page
    context.close()


def is_external(url: str, own_url: str) -> bool:
    return not url.startswith((own_url, "data:", "blob:"))


@pytest.fixture
def log_in(page):
    def submit_login(user, path: str = "/api/v1/stocks") -> None:
        page.goto(f"/api/login?next={path}")
        page.fill("input[name=username]", user.username)
        page.fill("input[name=password]", PASSWORD)
        page.click("[type=submit]")
        page.wait_for_url(lambda url: "/api/login" not in url)

    return submit_login


def test_front_page_links_to_the_api(page):
    page.goto("/")
    page.click("text=Browse the API")
    page.wait_for_url("**/api/v1")
    assert page.inner_text("h1") == "API"


def test_user_pages_through_stocks(page, log_in, make_user, make_stock):
    user = make_user(password=PASSWORD)
    for _ in range(21):
        make_stock(user)
    log_in(user)
    page.click("text=Next")
    page.wait_for_url("**page=2**")
    assert '"has_prev": true' in page.inner_text(".response-info")


def test_field_error_is_displayed_beside_its_field(page, log_in, make_user):
    log_in(make_user(password=PASSWORD))
    fill_in(page, name="AAPL", price="0", quantity="3")
    assert "greater than 0" in page.inner_text("#post-object-form .form-group.has-error")


def test_user_creates_a_stock_with_the_form(page, log_in, make_user):
    user = make_user(password=PASSWORD)
    log_in(user)
    fill_in(page, name="brk.b", price="12.5", quantity="3")
    assert "HTTP 201" in page.inner_text(".response-info")
    assert Stock.objects.get(owner=user).name == "BRK.B"


def fill_in(page, **fields: str) -> None:
    for name, value in fields.items():
        page.fill(f"#post-object-form [name={name}]", value)
    page.click("#post-object-form button")


def test_stock_form_is_prefilled(page, log_in, make_user, make_stock):
    user = make_user(password=PASSWORD)
    stock = make_stock(user, name="TSLA")
    log_in(user, f"/api/v1/stocks/{stock.pk}")
    assert page.input_value("form [name=name]") == "TSLA"


def test_docs_send_a_request_and_load_nothing_external(page):
    page.goto("/docs")
    page.click("#operations-service-ping .opblock-summary-control")
    page.click("#operations-service-ping .try-out__btn")
    page.click("#operations-service-ping .execute")
    page.wait_for_selector("#operations-service-ping .live-responses-table >> text=pong")
    assert page.external_requests == []


def test_redoc_loads_nothing_external(page):
    page.goto("/redoc")
    page.wait_for_selector("h2:has-text('Create an account')")
    page.wait_for_load_state("networkidle")
    assert page.external_requests == []


def test_superuser_adds_a_stock_in_the_admin_with_autocomplete(page, log_in, make_user):
    admin = make_user(password=PASSWORD, is_staff=True, is_superuser=True)
    make_user(username="grace")
    log_in(admin, "/admin/stocks/stock/add/")
    page.click(".field-owner .select2-selection")
    page.fill(".select2-search__field", "grac")
    page.click(".select2-results__option >> text=grace")
    for name, value in {"name": "msft", "price": "421.9", "quantity": "2"}.items():
        page.fill(f"[name={name}]", value)
    page.click("[name=_save]")
    page.wait_for_selector(".messagelist .success")
    assert Stock.objects.get(name="MSFT").owner.username == "grace"


@pytest.mark.parametrize("keeps_input", [True, False])
def test_second_tab_of_the_admin_sees_what_the_first_has_changed(page, log_in, make_user, make_stock, keeps_input):
    stock = make_stock(make_user(username="grace", password=PASSWORD, is_staff=True, is_superuser=True))
    path = f"/admin/stocks/stock/{stock.pk}/change/"
    log_in(stock.owner, path)
    first = page.context.new_page()
    first.goto(path)
    for tab, price in ((first, "11"), (page, "12")):
        tab.fill("[name=price]", price)
        tab.click("[name=_save]")
    assert "Changed by grace" in page.inner_text(":focus")
    assert page.inner_text(".field-price .errorlist") == "Stored now: 11"
    page.click("[name=_save]" if keeps_input else "text=Discard your input")
    page.wait_for_selector(".messagelist .success" if keeps_input else "form:not(:has(.concurrent-change))#stock_form")
    assert Stock.objects.get(pk=stock.pk).price == (12 if keeps_input else 11)


def test_staff_delete_and_restore_in_the_admin(page, log_in, make_user, make_stock):
    staff = make_user(password=PASSWORD, is_staff=True)
    staff.user_permissions.set(Permission.objects.filter(content_type__app_label="stocks"))
    stock = make_stock(staff)
    log_in(staff, "/admin/stocks/stock/")
    run_action(page, "delete_selected")
    page.click("[type=submit] >> text=Yes")
    page.wait_for_selector(".messagelist .success")
    assert not Stock.objects.filter(pk=stock.pk).exists()
    page.goto("/admin/stocks/stock/?deleted=1")
    run_action(page, "restore_selected")
    page.wait_for_selector(".messagelist .success")
    assert Stock.objects.filter(pk=stock.pk).exists()


def run_action(page, action: str) -> None:
    page.check("input.action-select")
    page.select_option("[name=action]", action)
    page.click("[name=index]")


@pytest.fixture
def page_errors(page):
    """Return the list of Content-Security-Policy violations and script errors of the page."""
    errors = []
    page.on("console", lambda message: errors.append(message.text) if "Content Security" in message.text else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    return errors


def test_pages_work_under_their_content_security_policy(page, page_errors, log_in, superuser, make_stock):
    superuser.user.set_password(PASSWORD)
    superuser.user.save()
    stock = make_stock(superuser.user)
    log_in(superuser.user)
    for path in (
        "/", "/docs", "/redoc", "/api/v1", "/api/v1/stocks", f"/api/v1/stocks/{stock.pk}", "/api/v1/auth/sessions",
        "/admin/", "/admin/stocks/stock/", f"/admin/stocks/stock/{stock.pk}/change/", "/admin/users/user/add/",
        "/admin/users/session/", "/account/reset-password", "/admin/password_change/",
    ):  # fmt: skip
        page.goto(path)
        page.wait_for_load_state("networkidle")
    assert page_errors == []
    assert page.external_requests == []


def test_user_logs_out_on_the_page(page, log_in, make_user):
    log_in(make_user(password=PASSWORD))
    page.click("text=Log out")
    page.goto("/api/v1/users/me")
    assert "401" in page.text_content(".response-info")


def test_user_resets_a_forgotten_password_with_the_mailed_link(page, make_user, log_in, page_errors):
    user = make_user(password=PASSWORD)
    page.goto("/api/login")
    page.click("text=Forgot your password?")
    page.fill("input[name=email]", user.email)
    page.click("text=Send the link")
    page.wait_for_selector("text=a mail is on its way")
    link = f"/account/reset-password#token={mail_token(RESET_PASSWORD, user)}"
    page.goto(link)
    page.fill("input[name=new_password]", "12345678")
    page.click("button[type=submit]")
    page.wait_for_selector("text=too common")
    page.fill("input[name=new_password]", "nanoseconds-of-wire-1952")
    page.click("button[type=submit]")
    page.wait_for_selector("text=Your new password is set.")
    user.refresh_from_db()
    assert user.check_password("nanoseconds-of-wire-1952")
    assert page_errors == []


@pytest.mark.parametrize(
    ("name", "purpose", "button", "message"),
    [
        ("verify-email", VERIFY_EMAIL, "Confirm", "is confirmed"),
        ("delete-account", DELETE_ACCOUNT, "Remove my account", "will be removed"),
    ],
)
def test_user_follows_the_mailed_link(page, make_user, name, purpose, button, message):
    page.goto(f"/account/{name}#token={mail_token(purpose, make_user())}")
    page.click(f"button:has-text('{button}')")
    page.wait_for_selector(f"#message:has-text('{message}')")


def test_page_without_a_token_displays_a_hint(page):
    page.goto("/account/verify-email")
    page.wait_for_selector("text=by the link in the mail")
    assert page.query_selector("form") is None

"""What a person would write with a client made by openapi-python-client: type-checked, and run by test_clients.py."""

import sys
from urllib.parse import parse_qs, urlsplit

from stocks_client import AuthenticatedClient, Client
from stocks_client.api.auth import auth_login, auth_register
from stocks_client.api.stocks import (
    stocks_create,
    stocks_destroy,
    stocks_list,
    stocks_partial_update,
    stocks_reprice_create,
    stocks_retrieve,
)
from stocks_client.api.users import users_me_retrieve, users_retrieve
from stocks_client.models import (
    LoginRequest,
    Me,
    PaginatedStockList,
    PatchedStockRequest,
    PricesRequest,
    PricesRequestPrices,
    Problem,
    Registered,
    RegistrationRequest,
    Stock,
    StockRequest,
    Tokens,
    UserDetail,
)

NAMES = ["AAPL", "GOOG", "MSFT", "IBM", "ORCL"]
PASSWORD = "glacier-Tango-41-velvet"


def next_cursor(page: PaginatedStockList) -> str | None:
    link = page.links.next_
    return None if link is None else parse_qs(urlsplit(link).query)["cursor"][0]


def main(url: str) -> None:
    public = Client(base_url=url, raise_on_unexpected_status=True)
    person = RegistrationRequest(email="py@example.com", username="py-client", password=PASSWORD, name="Py Client")
    registered = auth_register.sync(client=public, body=person)
    assert isinstance(registered, Registered), registered
    twice = auth_register.sync(client=public, body=person)
    assert isinstance(twice, Problem), twice
    assert twice.status == 400
    assert twice.errors
    assert set(twice.errors.additional_properties) == {"email", "username"}

    tokens = auth_login.sync(client=public, body=LoginRequest(username="py-client", password=PASSWORD))
    assert isinstance(tokens, Tokens), tokens
    client = AuthenticatedClient(base_url=url, token=tokens.access_token, raise_on_unexpected_status=True)
    me = users_me_retrieve.sync(client=client)
    assert isinstance(me, Me), me
    assert (me.id, me.is_staff, me.gender, me.deletion_at) == (registered.id, False, None, None)

    created: list[Stock] = []
    for name in NAMES:
        stock = stocks_create.sync(client=client, body=StockRequest(name=name, price=175.5, quantity=10))
        assert isinstance(stock, Stock), stock
        created.append(stock)

    walked: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = stocks_list.sync(client=client, cursor=cursor, size=2, sort_by="-name")
        assert isinstance(page, PaginatedStockList), page
        walked += [stock.name for stock in page.items]
        cursor = next_cursor(page)
    assert walked == sorted(NAMES, reverse=True), walked
    numbered = stocks_list.sync(client=client)
    assert isinstance(numbered, PaginatedStockList), numbered
    assert (numbered.total, numbered.page, numbered.size) == (len(NAMES), 1, 20)

    first = created[0]
    patched = stocks_partial_update.sync(first.id, client=client, body=PatchedStockRequest(price=190.25))
    assert isinstance(patched, Stock), patched
    assert (patched.price, patched.version) == (190.25, first.version + 1)
    assert patched.updated_at > first.updated_at

    user = users_retrieve.sync(registered.id, client=client)
    assert isinstance(user, UserDetail), user
    assert (user.stocks_total, [stock.name for stock in user.stocks]) == (len(NAMES), NAMES)

    refused = stocks_create.sync_detailed(client=client, body=StockRequest(name="AAPL", price=0, quantity=10))
    assert isinstance(refused.parsed, Problem), refused
    assert refused.parsed.errors
    assert refused.parsed.errors["price"] == ["Ensure this value is greater than 0."]
    assert refused.headers["X-Request-ID"] == refused.parsed.request_id
    prices = PricesRequest(prices=PricesRequestPrices.from_dict({"AAPL": 1.5}))
    forbidden = stocks_reprice_create.sync(client=client, body=prices)
    assert isinstance(forbidden, Problem), forbidden
    assert forbidden.status == 403

    assert stocks_destroy.sync_detailed(first.id, client=client).status_code == 204
    gone = stocks_retrieve.sync(first.id, client=client)
    assert isinstance(gone, Problem), gone
    assert gone.detail == f"Stock with ID {first.id} not found"


main(sys.argv[1])

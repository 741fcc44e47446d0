"""The requests that compare.py sends to every service."""

from dataclasses import dataclass

LIST = "list of 100 stocks"
STOCK = "one stock"
USER = "a user with 11 stocks"
USER_STOCKS = "a user's 11 stocks"
CREATE = "create a stock"
LOADS = [LIST, STOCK, USER, USER_STOCKS, CREATE]

#: The body of CREATE.
NEW_STOCK = {"name": "AAPL", "price": 175.5, "quantity": 10}
#: Fields of a new stock that differ between two requests.
VARYING = ("id", "created_at", "updated_at")


@dataclass(frozen=True)
class Targets:
    """What the requests refer to, as targets.py prints it."""

    #: The access token of a superuser.
    token: str
    #: The id of the superuser, who owns new stocks.
    owner: int
    #: Ids of stocks, and of users with 11 stocks.
    stocks: list[int]
    users: list[int]


def paths(load: str, targets: Targets) -> list[str]:
    """Return the paths that a load requests, without the prefix of the service."""
    return {
        LIST: ["/stocks?size=100"],
        STOCK: [f"/stocks/{stock}" for stock in targets.stocks],
        USER: [f"/users/{user}" for user in targets.users],
        USER_STOCKS: [f"/users/{user}/stocks" for user in targets.users],
        CREATE: ["/stocks"],
    }[load]

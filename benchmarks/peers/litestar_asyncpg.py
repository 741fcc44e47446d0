"""Litestar with msgspec and asyncpg: no ORM, hand-written SQL.

https://docs.litestar.dev/2/usage/applications.html
https://magicstack.github.io/asyncpg/current/usage.html
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

import asyncpg
from litestar import Litestar, get, post
from litestar.datastructures import State
from litestar.exceptions import NotFoundException
from litestar.params import Parameter
from msgspec import Meta, Struct

#: Owner of new stocks, because the peers do not authenticate.
OWNER_ID = int(os.environ["OWNER_ID"])

STOCK_COLUMNS = "id, name, price::float8, quantity, is_active, owner_id, created_at, updated_at, version"
USER_COLUMNS = (
    "id, username, email, name, gender, age, bio, phone_number, is_active, is_verified, is_staff, is_superuser, "
    "oauth_provider, created_at, updated_at, version"
)
LIST = f"SELECT {STOCK_COLUMNS} FROM stocks WHERE deleted_at IS NULL ORDER BY id OFFSET $1 LIMIT $2"
ONE = f"SELECT {STOCK_COLUMNS} FROM stocks WHERE deleted_at IS NULL AND id = $1"
USER = f"SELECT {USER_COLUMNS} FROM users WHERE deleted_at IS NULL AND id = $1"
OF_USER = (
    f"SELECT {STOCK_COLUMNS} FROM stocks WHERE deleted_at IS NULL AND owner_id = $1 ORDER BY id OFFSET $2 LIMIT $3"
)
CREATE = f"""
    INSERT INTO stocks (created_at, updated_at, version, deletion_reason, owner_id, name, price, quantity, is_active)
    VALUES ($1, $1, 1, '', $2, $3, $4, $5, true) RETURNING {STOCK_COLUMNS}
"""

Limit = Annotated[int, Parameter(le=100)]


class StockCreate(Struct):
    name: Annotated[str, Meta(pattern=r"^[A-Z0-9.^=&/:_-]{1,10}$")]
    price: Decimal
    quantity: Annotated[int, Meta(gt=0)]


class Stock(Struct):
    id: int
    name: str
    price: float
    quantity: int
    is_active: bool
    user_id: int
    created_at: datetime
    updated_at: datetime
    version: int


class User(Struct):
    id: int
    username: str
    email: str | None
    name: str | None
    gender: str | None
    age: int | None
    bio: str | None
    phone_number: str | None
    is_active: bool
    is_verified: bool
    is_staff: bool
    is_superuser: bool
    oauth_provider: str | None
    created_at: datetime
    updated_at: datetime
    version: int
    stocks: list[Stock]


@asynccontextmanager
async def pool(app: Litestar) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["DATABASE_URL"]) as app.state.pool:
        yield


@get("/stocks")
async def read_stocks(state: State, offset: int = 0, size: Limit = 100) -> list[Stock]:
    return [Stock(*row) for row in await state.pool.fetch(LIST, offset, size)]


@get("/stocks/{stock_id:int}")
async def read_stock(state: State, stock_id: int) -> Stock:
    row = await state.pool.fetchrow(ONE, stock_id)
    if row is None:
        raise NotFoundException("Stock not found")
    return Stock(*row)


@post("/stocks")
async def create_stock(state: State, data: StockCreate) -> Stock:
    now = datetime.now(UTC)
    return Stock(*await state.pool.fetchrow(CREATE, now, OWNER_ID, data.name, data.price, data.quantity))


@get("/users/{user_id:int}")
async def read_user(state: State, user_id: int) -> User:
    async with state.pool.acquire() as connection:
        user = await connection.fetchrow(USER, user_id)
        if user is None:
            raise NotFoundException("User not found")
        stocks = await connection.fetch(OF_USER, user_id, 0, 100)
    return User(*user, stocks=[Stock(*row) for row in stocks])


@get("/users/{user_id:int}/stocks")
async def read_user_stocks(state: State, user_id: int, offset: int = 0, size: Limit = 100) -> list[Stock]:
    return [Stock(*row) for row in await state.pool.fetch(OF_USER, user_id, offset, size)]


app = Litestar([read_stocks, read_stock, create_stock, read_user, read_user_stocks], lifespan=[pool])

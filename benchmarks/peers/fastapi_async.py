"""FastAPI with SQLAlchemy's asyncio extension and asyncpg.

https://fastapi.tiangolo.com/tutorial/sql-databases/
https://docs.sqlalchemy.org/en/20/orm/extensions/asyncio.html
"""

import os
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi_models import OWNER_ID, Stock, StockCreate, StockPublic, User, UserWithStocks
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import selectinload

engine = create_async_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://"))
async_session = async_sessionmaker(engine, expire_on_commit=False)


async def get_session() -> AsyncIterator[AsyncSession]:
    async with async_session() as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session)]
Limit = Annotated[int, Query(le=100)]

app = FastAPI()


@app.get("/stocks", response_model=list[StockPublic])
async def read_stocks(session: SessionDep, offset: int = 0, size: Limit = 100) -> Sequence[Stock]:
    statement = select(Stock).where(Stock.deleted_at.is_(None)).order_by(Stock.id).offset(offset).limit(size)
    return (await session.scalars(statement)).all()


@app.get("/stocks/{stock_id}", response_model=StockPublic)
async def read_stock(stock_id: int, session: SessionDep) -> Stock:
    stock = await session.get(Stock, stock_id)
    if stock is None or stock.deleted_at is not None:
        raise HTTPException(status_code=404, detail="Stock not found")
    return stock


@app.post("/stocks", response_model=StockPublic, status_code=201)
async def create_stock(stock: StockCreate, session: SessionDep) -> Stock:
    db_stock = Stock(**stock.model_dump(), user_id=OWNER_ID)
    session.add(db_stock)
    # expire_on_commit is off, as the documentation advises, so that the row need not be read again.
    await session.commit()
    return db_stock


@app.get("/users/{user_id}", response_model=UserWithStocks)
async def read_user(user_id: int, session: SessionDep) -> User:
    live_stocks = selectinload(User.stocks.and_(Stock.deleted_at.is_(None)))
    users = await session.scalars(
        select(User).where(User.id == user_id, User.deleted_at.is_(None)).options(live_stocks)
    )
    user = users.one_or_none()
    if user is None:
        raise HTTPException(status_code=404, detail="User not found")
    return user


@app.get("/users/{user_id}/stocks", response_model=list[StockPublic])
async def read_user_stocks(user_id: int, session: SessionDep, offset: int = 0, size: Limit = 100) -> Sequence[Stock]:
    live = select(Stock).where(Stock.user_id == user_id, Stock.deleted_at.is_(None))
    return (await session.scalars(live.order_by(Stock.id).offset(offset).limit(size))).all()

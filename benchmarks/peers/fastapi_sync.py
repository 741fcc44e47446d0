"""FastAPI with SQLAlchemy and psycopg2, in functions that FastAPI runs in threads.

https://fastapi.tiangolo.com/tutorial/sql-databases/
"""

import os
from collections.abc import Iterator, Sequence
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Query
from fastapi_models import OWNER_ID, Stock, StockCreate, StockPublic, User, UserWithStocks
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session, selectinload

engine = create_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg2://"))


def get_session() -> Iterator[Session]:
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]
Limit = Annotated[int, Query(le=100)]

app = FastAPI()


@app.get("/stocks", response_model=list[StockPublic])
def read_stocks(session: SessionDep, offset: int = 0, size: Limit = 100) -> Sequence[Stock]:
    statement = select(Stock).where(Stock.deleted_at.is_(None)).order_by(Stock.id).offset(offset).limit(size)
    return session.scalars(statement).all()


@app.get("/stocks/{stock_id}", response_model=StockPublic)
def read_stock(stock_id: int, session: SessionDep) -> Stock:
    stock = session.get(Stock, stock_id)
    if stock is None or stock.deleted_at is not None:
        raise HTTPException(status_code=404, detail="Stock not found")
    return stock


@app.post("/stocks", response_model=StockPublic, status_code=201)
def create_stock(stock: StockCreate, session: SessionDep) -> Stock:
    db_stock = Stock(**stock.model_dump(), user_id=OWNER_ID)
    session.add(db_stock)
    session.commit()
    session.refresh(db_stock)
    return db_stock


@app.get("/users/{user_id}", response_model=UserWithStocks)
def read_user(user_id: int, session: SessionDep) -> User:
    live_stocks = selectinload(User.stocks.and_(Stock.deleted_at.is_(None)))
    user = session.scalars(
        select(User).where(User.id == user_id, User.deleted_at.is_(None)).options(live_stocks)
    ).one_or_none()
    if user is None:
        raise HTTPException(status_code=404, detail="User not found")
    return user


@app.get("/users/{user_id}/stocks", response_model=list[StockPublic])
def read_user_stocks(user_id: int, session: SessionDep, offset: int = 0, size: Limit = 100) -> Sequence[Stock]:
    live = select(Stock).where(Stock.user_id == user_id, Stock.deleted_at.is_(None))
    return session.scalars(live.order_by(Stock.id).offset(offset).limit(size)).all()

"""SQLAlchemy models and Pydantic schemas of both FastAPI peers.

https://docs.sqlalchemy.org/en/20/orm/quickstart.html
https://fastapi.tiangolo.com/tutorial/response-model/
"""

import os
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import BigInteger, DateTime, ForeignKey, Numeric, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

#: Owner of new stocks, because the peers do not authenticate.
OWNER_ID = int(os.environ["OWNER_ID"])


def now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    type_annotation_map = {int: BigInteger, datetime: DateTime(timezone=True)}


class Record(Base):
    __abstract__ = True

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    updated_at: Mapped[datetime] = mapped_column(default=now, onupdate=now)
    version: Mapped[int] = mapped_column(default=1)
    deleted_at: Mapped[datetime | None]


class User(Record):
    __tablename__ = "users"

    username: Mapped[str] = mapped_column(String(50))
    email: Mapped[str | None] = mapped_column(String(255))
    name: Mapped[str | None] = mapped_column(String(40))
    gender: Mapped[str | None] = mapped_column(String(6))
    age: Mapped[int | None]
    bio: Mapped[str | None]
    phone_number: Mapped[str | None] = mapped_column(String(32))
    is_active: Mapped[bool]
    is_verified: Mapped[bool]
    is_staff: Mapped[bool]
    is_superuser: Mapped[bool]
    oauth_provider: Mapped[str | None] = mapped_column(String(50))

    stocks: Mapped[list["Stock"]] = relationship(order_by="Stock.id")


class Stock(Record):
    __tablename__ = "stocks"

    name: Mapped[str] = mapped_column(String(10))
    price: Mapped[Decimal] = mapped_column(Numeric(15, 4))
    quantity: Mapped[int]
    is_active: Mapped[bool] = mapped_column(default=True)
    deletion_reason: Mapped[str] = mapped_column(String(200), default="")
    user_id: Mapped[int] = mapped_column("owner_id", ForeignKey("users.id"))


class StockCreate(BaseModel):
    name: str = Field(pattern=r"^[A-Z0-9.^=&/:_-]{1,10}$")
    price: Annotated[Decimal, Field(gt=0, max_digits=15, decimal_places=4)]
    quantity: int = Field(gt=0)


class StockPublic(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    price: float
    quantity: int
    is_active: bool
    user_id: int
    created_at: datetime
    updated_at: datetime
    version: int


class UserPublic(BaseModel):
    model_config = ConfigDict(from_attributes=True)

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


class UserWithStocks(UserPublic):
    stocks: list[StockPublic]

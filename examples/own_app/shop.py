"""A web shop: its database, its Celery app, and what is expensive behind the coherent cache.

    export SHOP_BROKER_URL=redis://127.0.0.1:6379/0 SHOP_RESULT_URL=redis://127.0.0.1:6379/1 SHOP_CACHE_URL=redis://127.0.0.1:6380/0
    python shop.py                            # makes the database
    celery -A shop worker --concurrency 4     # any pool
    uvicorn web:api --workers 2               # see web.py

Two lines make the cache the shop's: `install`, and a decorator a function. All else is as it would be without it.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import Any, Final, TypedDict

from celery import Celery

from persona_worker import cached, install

DATABASE: Final = os.environ.get("SHOP_DATABASE", "shop.sqlite3")
GOODS: Final = {"tea": (3.0, 40), "coffee": (5.0, 25), "cups": (8.0, 12)}

app = Celery("shop", broker=os.environ["SHOP_BROKER_URL"], backend=os.environ["SHOP_RESULT_URL"])
installed = install(app, cache_url=os.environ["SHOP_CACHE_URL"], namespace="shop")


def asked(statement: str, *values: object) -> list[Any]:
    """The rows that a statement gives; what it changes is committed when this returns."""
    with closing(sqlite3.connect(DATABASE, timeout=10)) as connection, connection:
        return connection.execute(statement, values).fetchall()


def make_database() -> None:
    """The goods as they are at first."""
    asked("CREATE TABLE IF NOT EXISTS goods (name TEXT PRIMARY KEY, price REAL, stock INTEGER)")
    for name, (price, stock) in GOODS.items():
        asked("INSERT OR REPLACE INTO goods VALUES (?, ?, ?)", name, price, stock)


# -- what is read


@cached(ttl=600, key_prefix="price")
def price_of(name: str) -> float | None:
    """None for what the shop does not have."""
    found = asked("SELECT price FROM goods WHERE name = ?", name)
    return found[0][0] if found else None


@cached(ttl=600, key_prefix="stock")
def stock_of(name: str) -> int | None:
    found = asked("SELECT stock FROM goods WHERE name = ?", name)
    return found[0][0] if found else None


class Report(TypedDict):
    """What the goods are worth."""

    goods: dict[str, float]
    total: float


@cached(ttl=600, key_prefix="report")
def report() -> Report:
    """It is built of prices and stocks, and what it reads of them is recorded: whatever changes one of them ends the report."""
    worth = {name: (price_of(name) or 0.0) * (stock_of(name) or 0) for name in sorted(GOODS)}
    return {"goods": worth, "total": sum(worth.values())}


# -- what is changed: the source first, then the cache


def reprice(name: str, price: float) -> None:
    asked("UPDATE goods SET price = ? WHERE name = ?", price, name)
    price_of.invalidate(name)


@app.task
def sell(name: str, count: int) -> int | None:
    """Take `count` off the stock; how many are left."""
    asked("UPDATE goods SET stock = stock - ? WHERE name = ?", count, name)
    stock_of.invalidate(name)
    return stock_of(name)


@app.task
def send_report() -> dict[str, Any]:
    """What a worker would mail to the shop's owner."""
    return {"pid": os.getpid(), **report()}


if __name__ == "__main__":
    make_database()

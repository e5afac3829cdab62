"""The shop's web service: `uvicorn web:api --workers 2`. Each of its processes has an L1, and hears what workers invalidate."""

from __future__ import annotations

import os
from typing import Any

import shop
from fastapi import FastAPI, HTTPException

api = FastAPI()


@api.get("/price/{name}")
def price(name: str) -> dict[str, Any]:
    """A plain function: FastAPI runs it beside the event loop, which never waits for the cache's server."""
    found = shop.price_of(name)
    if found is None:
        raise HTTPException(404, "there is no such thing")
    return {"name": name, "price": found, "pid": os.getpid()}


@api.put("/price/{name}")
def change_price(name: str, price: float) -> dict[str, Any]:
    shop.reprice(name, price)
    return {"name": name, "price": price}


@api.post("/sold/{name}")
def sold(name: str, count: int = 1) -> dict[str, Any]:
    """A worker books it: this process learns of it as every other one does."""
    return {"task": shop.sell.delay(name, count).id}


@api.get("/report")
def report() -> dict[str, Any]:
    return {"pid": os.getpid(), **shop.report()}

"""What a type checker makes of decorated functions: their own signatures, and more. `make lint` judges it, nobody runs it.

A line that is of another type than it says is an error there; so is one that is right and is marked to be wrong.
"""

# ruff: noqa: ARG002, ARG004, ARG005 - what they compute does not matter

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_type

from pipeline.cache import TwoTierCache, cached, invalidate_cache
from pipeline.cache.coherence.process import Invalidation

cache = TwoTierCache()


@dataclass
class Quote:
    price: float


@cached(600, "quote", cache=cache)
def quote(symbol: str, *, fresh: bool = False) -> Quote:
    return Quote(1.0)


@cached(ttl=lambda result: result.price, key_prefix="aquote", cache=cache)
async def aquote(symbol: str) -> Quote:
    return Quote(1.0)


@invalidate_cache("quote:*", cache=cache)
def save(symbol: str) -> int:
    return 1


@invalidate_cache("user:{user_id}:*", cache=cache)
async def asave(user_id: int) -> bool:
    return True


class Shop:
    @cached(key_prefix="price", cache=cache, ignore=("self",))
    def price(self, sku: int) -> float:
        return 1.0

    @cached(key_prefix="aprice", cache=cache, key=lambda self, sku: sku)
    async def aprice(self, sku: int) -> float:
        return 1.0

    @staticmethod
    @cached(key_prefix="static", cache=cache)
    def rate(currency: str) -> float:
        return 1.0


async def main() -> None:
    assert_type(quote("A", fresh=True), Quote)
    assert_type(quote.refresh("A"), Quote)
    assert_type(quote.cache_key("A"), str)
    assert_type(quote.get_many(["A"]), list[Quote])
    assert_type(quote.invalidate("A"), Invalidation)
    assert_type(quote.invalidate_all(), Invalidation)
    assert_type(await aquote("A"), Quote)
    assert_type(await aquote.refresh("A"), Quote)
    assert_type(await aquote.get_many(["A"]), list[Quote])
    assert_type(await aquote.invalidate("A"), Invalidation)
    assert_type(save("A"), int)
    assert_type(await asave(7), bool)
    assert_type(Shop().price(7), float)
    assert_type(await Shop().aprice(7), float)
    assert_type(Shop.rate("EUR"), float)
    assert_type(Shop.price.invalidate(Shop(), 7), Invalidation)
    assert_type(cache.get_or_compute("k", lambda: 1), int)
    assert_type(await cache.aio.get_or_compute("k", lambda: aquote("A")), Quote)
    assert_type(cache.get_or_compute_many(["k"], lambda keys: dict.fromkeys(keys, 1.5)), dict[str, float])
    quote(7)  # type: ignore[arg-type]
    quote("A", True)  # type: ignore[call-arg]
    quote("A", stale=True)  # type: ignore[call-arg]
    quote.refresh(7)  # type: ignore[arg-type]
    quote.invalidate(1)  # type: ignore[arg-type]
    await aquote()  # type: ignore[call-arg]
    Shop().price("7")  # type: ignore[arg-type]
    Shop().price.invalidate(7)  # type: ignore[attr-defined]
    save(7)  # type: ignore[arg-type]
    cached("600")  # type: ignore[arg-type]

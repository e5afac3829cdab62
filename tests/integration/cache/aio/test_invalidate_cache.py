"""`@invalidate_cache` on functions, plain and awaited; what can be no pattern, and what can be no cached function."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline.cache import (
    MISS,
    TwoTierCache,
    UncacheableFunctionError,
    cached,
    invalidate_cache,
    key_of,
)


def test_an_invalidation_after_a_coroutine_function(cache: TwoTierCache) -> None:
    """When it has done its work, and not when it failed."""

    @invalidate_cache("profile:*", cache=cache)
    async def save(*, fails: bool) -> str:
        await asyncio.sleep(0)
        if fails:
            raise OSError("not saved")
        return "saved"

    cache.get_or_compute("profile:1", lambda: "old")
    with pytest.raises(OSError, match="not saved"):
        asyncio.run(save(fails=True))
    assert cache.get("profile:1") == "old"
    assert asyncio.run(save(fails=False)) == "saved"
    assert cache.get("profile:1") is MISS


@pytest.mark.parametrize("user", ["7", "a*", "*", "a:b", "[x]", "\\", "가", "x" * 60, "{y}"])
@pytest.mark.parametrize("awaited", [False, True], ids=["plain", "coroutine"])
def test_a_pattern_made_from_arguments_means_that_user_alone(cache: TwoTierCache, user: str, *, awaited: bool) -> None:
    """Whatever is in the id, and however the key was written."""

    def plain(user_id: str, name: str = "") -> str:
        return user_id + name

    async def coroutine(user_id: str, name: str = "") -> str:
        return user_id + name

    save: Any = invalidate_cache("user:{user_id}:*", cache=cache)(coroutine if awaited else plain)
    mine = [f"user:{user}:profile", key_of("user", user, "profile")]
    others = ["user:8:profile", "user:7x:profile", key_of("user", "aa", "x")]
    for key in (*mine, *others):
        cache.set(key, 1)
    outcome = save(user, name="x")
    assert (asyncio.run(outcome) if awaited else outcome) == user + "x"
    assert cache.get_many(mine) == {}
    assert cache.get_many(others) == dict.fromkeys(others, 1)


def test_patterns_by_a_function_of_the_arguments(cache: TwoTierCache) -> None:
    @invalidate_cache(lambda order: [f"order:{order['id']}", f"user:{order['user']}"], "all", cache=cache)
    def place(order: dict[str, int]) -> None:
        pass

    cache.set_many({"order:1": 1, "user:2": 1, "all": 1, "user:3": 1})
    place({"id": 1, "user": 2})
    assert cache.get_many(["order:1", "user:2", "all", "user:3"]) == {"user:3": 1}


def test_a_template_that_cannot_be_is_refused_where_it_is_written(cache: TwoTierCache) -> None:
    def save(user_id: str) -> str:
        return user_id

    with pytest.raises(ValueError, match="save: has no parameter 'user', which the pattern names"):
        invalidate_cache("user:{user}", cache=cache)(save)
    for pattern in ("user:{", "user:}", "user:{}", "user:{user_id!r}", "user:{user_id:>5}"):
        with pytest.raises(ValueError, match="pattern"):
            invalidate_cache(pattern, cache=cache)(save)
    cache.set("user:{7}", 1)
    invalidate_cache("user:{{{user_id}}}", cache=cache)(save)("7")
    assert cache.get("user:{7}") is MISS
    with pytest.raises(ValueError, match="save: user_id is a float"):
        invalidate_cache("user:{user_id}", cache=cache)(save)(1.5)  # type: ignore[arg-type]  # that is the point


def test_a_generator_is_refused_and_a_method_needs_a_key(cache: TwoTierCache) -> None:
    async def numbers() -> Any:
        yield 1

    with pytest.raises(UncacheableFunctionError, match="numbers"):
        cached(key_prefix="n", cache=cache)(numbers)
    with pytest.raises(UncacheableFunctionError, match="ignore="):

        class Shop:
            @cached(key_prefix="s", cache=cache)
            async def price(self, sku: int) -> int:
                return sku

"""The calls of `cache.aio`, and functions with `@cached` whose results are awaited."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from awaiting import until
from faults import SteppedRedisCache

from pipeline.cache import (
    MISS,
    Grace,
    Kind,
    TwoTierCache,
    cached,
)


def test_the_calls_of_the_face(cache: TwoTierCache) -> None:
    """As those of threads, under the same names."""

    async def main() -> None:
        aio = cache.aio
        await aio.set("a", {"x": 1})
        await aio.set_many({"b": 2, "c": 3}, 60)
        assert await aio.get_many(["a", "b", "c", "d"]) == {"a": {"x": 1}, "b": 2, "c": 3}
        assert await aio.get("d", "default") == "default"

        async def compute(keys: Any) -> dict[str, int]:
            assert keys == ("d", "e")
            return {"d": 4}

        assert await aio.get_or_compute_many(["a", "d", "e"], compute) == {"a": {"x": 1}, "d": 4}
        assert await aio.get("d") == 4
        assert (await aio.lookup("b")) is not MISS
        assert await aio.delete("b")
        assert await aio.get("b") is MISS
        await aio.invalidate("c")
        assert await aio.get("c") is MISS
        assert await aio.delete_pattern("a") == 1
        assert await aio.as_of() == cache.as_of()
        assert await aio.refresh()
        assert (await aio.get_stats())["l1"]["hits"] > 0
        await aio.clear()
        assert await aio.get_many(["a", "b", "c", "d"]) == {}

    asyncio.run(main())


def test_a_grace_serves_stale_and_forgives(cache: TwoTierCache, make: Any, clock: Any, wall: Any) -> None:
    """Past its time an entry is served while one task computes it anew, or where the computation fails."""
    shared = make()

    async def main() -> None:
        refreshed: list[int] = []

        async def old() -> str:
            return "old"

        async def fails() -> str:
            raise ConnectionError

        await shared.aio.fetch("k", old, Kind(ttl=10), grace=Grace(100))
        clock.tick(11)
        wall.tick(11)
        found = await shared.aio.fetch("k", fails, Kind(ttl=10), grace=Grace(100, refresh=lambda: refreshed.append(1)))
        assert (found.value, found.source, refreshed) == ("old", "stale", [1])
        found = await shared.aio.fetch("k", fails, Kind(ttl=10), grace=Grace(100, forgives=lambda _: True))
        assert (found.value, found.source) == ("old", "stale")
        with pytest.raises(ConnectionError):
            await shared.aio.fetch("k", fails, Kind(ttl=10), grace=Grace(100))

    assert isinstance(shared.l2, SteppedRedisCache)
    asyncio.run(main())


@pytest.mark.parametrize("awaited", [False, True], ids=["plain", "coroutine"])
def test_a_decorated_function_serves_stale_while_it_is_computed_anew(make: Any, clock: Any, wall: Any, *, awaited: bool) -> None:
    """`stale_s`: by a thread or a task beside the callers, once."""
    shared = make()
    calls: list[int] = []

    def value(x: int) -> str:
        calls.append(x)
        return f"{x} for the {len(calls)}. time"

    async def avalue(x: int) -> str:
        await asyncio.sleep(0.01)
        return value(x)

    async def main() -> None:
        if awaited:
            ask = cached(10, "value", cache=shared, stale_s=100)(avalue)
        else:
            plain = cached(10, "value", cache=shared, stale_s=100)(value)

            async def ask(x: int) -> str:
                return plain(x)

        assert await ask(7) == "7 for the 1. time"
        clock.tick(11)
        wall.tick(11)
        assert await ask(7) == "7 for the 1. time"
        await until(lambda: calls == [7, 7])
        for _ in range(1000):
            if (found := await ask(7)) != "7 for the 1. time":
                break
            await asyncio.sleep(0.005)
        assert found == "7 for the 2. time"
        assert calls == [7, 7]

    asyncio.run(main())


@pytest.mark.parametrize("awaited", [False, True], ids=["plain", "coroutine"])
def test_what_is_on_a_decorated_function(cache: TwoTierCache, *, awaited: bool) -> None:
    """invalidate, invalidate_all, refresh, cache_key and get_many, of either form."""
    calls: list[Any] = []

    def plain(x: int, y: int = 0) -> int:
        calls.append((x, y))
        return 10 * x + y + len(calls) * 1000

    async def coroutine(x: int, y: int = 0) -> int:
        return plain(x, y)

    function: Any = cached(key_prefix="function", cache=cache)(coroutine if awaited else plain)

    def of(outcome: Any) -> Any:
        if not awaited:
            return outcome

        async def await_it() -> Any:
            return await outcome

        return asyncio.run(await_it())

    assert of(function(1)) == of(function(x=1, y=0)) == 1010
    assert of(function.get_many([1, (1,), (2, 3), 2])) == [1010, 1010, 2023, 3020]
    assert calls == [(1, 0), (2, 3), (2, 0)]
    assert cache.get(function.cache_key(2, 3)) == 2023
    assert of(function.invalidate(1)).patterns == (function.cache_key(1),)
    assert of(function(1)) == 4010
    assert of(function(2)) == 3020
    assert of(function.refresh(2)) == 5020
    assert of(function(2)) == 5020
    of(function.invalidate_all())
    assert of(function(2)) == 6020
    if cache.l2 is not None:
        cache.l1.clear()
        assert of(function.get_many([2, 2])) == [6020, 6020]


def test_many_are_read_in_one_round_trip(cache: TwoTierCache) -> None:
    if cache.l2 is None:
        pytest.skip("there is no server")
    function = cached(key_prefix="f", cache=cache)(lambda x: x)
    cache.set_many({f"k:{n}": n for n in range(100)})
    for n in range(100):
        function(n)
    cache.l1.clear()
    wire = cache.l2.connection._opened().wire
    exchanges: list[Any] = []
    exchange = wire.exchange
    wire.exchange = lambda *given, **named: exchanges.append(1) or exchange(*given, **named)  # type: ignore[method-assign,func-returns-value]
    assert cache.get_many([f"k:{n}" for n in range(100)]) == {f"k:{n}": n for n in range(100)}
    assert function.get_many(range(100)) == [*range(100)]
    assert len(exchanges) == 2

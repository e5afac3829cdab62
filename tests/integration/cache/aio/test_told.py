"""Tasks that wait for another process's computation are told of its end, as threads are; a thread of the cache waits for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from polling import until
from servers import ValkeyServer, calls
from slow import BOUND_S, Slow

from pipeline.cache import Found, LocalCache, RedisCache, TwoTierCache
from pipeline.cache.aio.desk import WAITS_AT_ONCE
from pipeline.cache.flight import seeking

MakeCache = Callable[..., TwoTierCache]
QUICK = {"listens": False}  # what a listener does is not counted here


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(10) as pool:
        yield pool


async def never() -> object:
    pytest.fail("a second computation")


def blocked(client: redis.Redis) -> int:
    return int(client.info("clients")["blocked_clients"])


async def waits(client: redis.Redis, count: int) -> None:
    """Until so many callers wait at the server."""
    async with asyncio.timeout(BOUND_S):
        while blocked(client) != count:
            await asyncio.sleep(0.005)


def test_a_task_that_waits_is_told_the_value(
    make: MakeCache, pool: ThreadPoolExecutor, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It asks the server twice, however long the computation takes."""
    monkeypatch.setattr(seeking, "LONGEST_PAUSE_S", BOUND_S)  # nobody looks again while the test runs
    first, other = make(**QUICK), make(**QUICK)
    slow = Slow("new")
    computing = pool.submit(first.fetch, "k", slow)
    assert slow.begun.wait(BOUND_S)
    other.lookup("k")
    before = calls(client)

    async def main() -> Found:
        waiting = asyncio.create_task(other.aio.fetch("k", never))
        await waits(client, 1)
        slow.go_on.set()
        return await waiting

    found = asyncio.run(main())
    assert (found.value, found.source) == (computing.result(BOUND_S).value, "joined")
    assert (calls(client) - before)["xread"] == 1
    assert other.get_stats()["joined"] == 1
    assert other.peek("k") == Found("new", "l1")


def test_more_keys_are_waited_for_than_there_are_threads(make: MakeCache, pool: ThreadPoolExecutor, client: redis.Redis) -> None:
    """For the others the server is asked again and again: no task waits for another's wait, and no other call for any."""
    first, other = make(**QUICK), make(**QUICK)
    slow = {f"k{number}": Slow(number) for number in range(WAITS_AT_ONCE + 3)}
    computing = [pool.submit(first.fetch, key, each) for key, each in slow.items()]
    assert all(each.begun.wait(BOUND_S) for each in slow.values())

    async def main() -> list[object]:
        waiting = [asyncio.create_task(other.aio.get_or_compute(key, never)) for key in slow]
        await waits(client, WAITS_AT_ONCE)
        assert await other.aio.lookup_many(["absent"]) == {}
        for each in slow.values():
            each.go_on.set()
        return await asyncio.gather(*waiting)

    assert asyncio.run(main()) == list(range(len(slow)))
    assert all(each.result(BOUND_S) for each in computing)


def test_a_wait_that_is_cancelled_loses_no_connection_and_no_place(namespace: str, pool: ThreadPoolExecutor) -> None:
    """A loop that ends cancels what waits in it; the next one waits as well, on the connections that there are."""
    with ValkeyServer() as server, redis.Redis.from_url(server.url) as client:
        first, other = (TwoTierCache(LocalCache(10), RedisCache(url=server.url, namespace=namespace)) for _ in range(2))
        slow = Slow("new")
        computing = pool.submit(first.fetch, "k", slow)
        assert slow.begun.wait(BOUND_S)

        async def cut_off() -> None:
            asking = [asyncio.create_task(other.aio.get_or_compute("k", never)) for _ in range(3)]
            await waits(client, 1)
            asking[0].cancel()

        asyncio.run(cut_off())
        open_before = int(client.info("clients")["connected_clients"])
        for _ in range(2 * WAITS_AT_ONCE):
            asyncio.run(cut_off())
        assert int(client.info("clients")["connected_clients"]) == open_before
        assert len(other._parts.desk._places) == WAITS_AT_ONCE
        until(lambda: blocked(client) == 0)

        async def served() -> object:
            asking = asyncio.create_task(other.aio.get_or_compute("k", never))
            await waits(client, 1)
            slow.go_on.set()
            return await asking

        assert asyncio.run(served()) == computing.result(BOUND_S).value == "new"
        first.close()
        other.close()

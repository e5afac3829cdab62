"""One computation of simultaneous awaits, no blocked loop, no caller that takes another with it."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from awaiting import BOUND_S, Slow, until
from programs import run_program
from servers import ValkeyServer

from pipeline.cache import (
    MISS,
    LocalCache,
    RedisCache,
    TwoTierCache,
)


def test_of_simultaneous_awaits_one_computes(cache: TwoTierCache) -> None:
    """Each has a value of its own; also those that come while it runs."""

    async def main() -> None:
        slow = Slow({"list": [1]})
        asked = [asyncio.create_task(cache.aio.get_or_compute("k", slow)) for _ in range(200)]
        await slow.begun.wait()
        asked += [asyncio.create_task(cache.aio.get_or_compute("k", slow)) for _ in range(50)]
        await asyncio.sleep(0.01)
        slow.go_on.set()
        values = await asyncio.gather(*asked)
        values[0]["list"].append(2)
        assert values[1:] == [{"list": [1]}] * 249
        assert slow.calls == 1
        assert await cache.aio.get("k") == {"list": [1]}

    asyncio.run(main())
    assert cache.get_stats()["computed"] == 1
    assert cache.get_stats()["joined"] >= 199  # the last 50 may come when it has just ended


def test_with_threads_and_other_loops_too(cache: TwoTierCache) -> None:
    """Threads join a task's computation, and tasks of two loops that of a thread."""
    begun, go_on = threading.Event(), threading.Event()
    calls: list[int] = []

    async def compute() -> str:
        calls.append(1)
        begun.set()
        while not go_on.is_set():
            await asyncio.sleep(0.001)
        return "of a task"

    def never() -> str:
        raise AssertionError("a second computation")

    async def anever() -> str:
        return never()

    async def several() -> list[str]:
        return list(await asyncio.gather(*(cache.aio.get_or_compute("k", anever) for _ in range(5))))

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(asyncio.run, cache.aio.get_or_compute("k", compute))
        assert begun.wait(BOUND_S)
        others = [pool.submit(cache.get_or_compute, "k", never) for _ in range(3)]
        loops = [pool.submit(asyncio.run, several()) for _ in range(2)]
        time.sleep(0.05)  # they may or may not have come to wait: either way none computes
        go_on.set()
        assert {each.result(BOUND_S) for each in (first, *others)} == {"of a task"}
        assert [each.result(BOUND_S) for each in loops] == [["of a task"] * 5] * 2
    assert calls == [1]

    begun.clear()
    go_on.clear()

    def blocking() -> str:
        begun.set()
        assert go_on.wait(BOUND_S)
        return "of a thread"

    with ThreadPoolExecutor(4) as pool:
        leading = pool.submit(cache.get_or_compute, "other", blocking)
        assert begun.wait(BOUND_S)

        async def waiting() -> str:
            asked = asyncio.create_task(cache.aio.get_or_compute("other", anever))
            await asyncio.sleep(0.02)  # the loop goes on
            go_on.set()
            return await asked

        assert asyncio.run(waiting()) == "of a thread"
        assert leading.result(BOUND_S) == "of a thread"


def test_another_process_is_waited_for(cache: TwoTierCache, elsewhere: TwoTierCache) -> None:
    """By the lease, as between threads of two processes."""
    if cache.l2 is None:
        pytest.skip("there is no fleet")

    async def main() -> None:
        slow = Slow()
        first = asyncio.create_task(cache.aio.get_or_compute("k", slow))
        await slow.begun.wait()
        found = asyncio.create_task(elsewhere.aio.fetch("k", Slow("mine")))
        await until(lambda: elsewhere.get_stats()["l1"]["misses"] == 1)
        slow.go_on.set()
        assert await first == "computed"
        joined = await found
        assert (joined.value, joined.source) == ("computed", "joined")

    asyncio.run(main())


def test_a_cancelled_caller_cancels_no_other(cache: TwoTierCache) -> None:
    """Nor the computation, though it was the first to ask; the value is kept."""

    async def main() -> None:
        slow = Slow()
        first = asyncio.create_task(cache.aio.get_or_compute("k", slow))
        await slow.begun.wait()
        others = [asyncio.create_task(cache.aio.get_or_compute("k", slow)) for _ in range(5)]
        await asyncio.sleep(0)
        first.cancel()
        others[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        slow.go_on.set()
        assert await asyncio.gather(*others[1:]) == ["computed"] * 4
        assert slow.calls == 1

        left = Slow("nobody waits")
        only = asyncio.create_task(cache.aio.get_or_compute("other", left))
        await left.begun.wait()
        only.cancel()
        left.go_on.set()
        await until(lambda: cache.peek("other") is not MISS)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(cache.aio.get_or_compute("third", Slow()), 0.01)

    asyncio.run(main())


def test_a_loop_that_ends_leaves_nothing_behind(cache: TwoTierCache) -> None:
    """What it computed is cancelled with it; the next loop, or a thread, computes at once."""

    async def main() -> None:
        slow = Slow()
        asyncio.create_task(cache.aio.get_or_compute("k", slow))  # noqa: RUF006 - it is to be left
        await slow.begun.wait()

    async def other() -> str:
        return "other"

    asyncio.run(main())
    assert not cache._flight._flights
    began_s = time.monotonic()
    assert asyncio.run(cache.aio.get_or_compute("k", other)) == "other"
    assert time.monotonic() - began_s < 2


def test_an_error_is_every_waiting_callers_and_is_not_kept(cache: TwoTierCache) -> None:
    async def main() -> None:
        slow = Slow(KeyError("no input"))
        asked = [asyncio.create_task(cache.aio.get_or_compute("k", slow)) for _ in range(5)]
        await slow.begun.wait()
        slow.go_on.set()
        for each in asked:
            with pytest.raises(KeyError, match="no input"):
                await each
        assert slow.calls == 1
        ready = Slow("now")
        ready.go_on.set()
        assert await cache.aio.get_or_compute("k", ready) == "now"

    asyncio.run(main())


def test_the_loop_is_not_blocked_while_the_server_is_frozen() -> None:
    """A heart that beats every millisecond goes on; the awaited calls end by the cache's own time-outs."""

    async def main(cache: TwoTierCache, server: ValkeyServer) -> float:
        await cache.aio.set("k", 1)
        longest_s, stopped = 0.0, asyncio.Event()

        async def beat() -> None:
            nonlocal longest_s
            while not stopped.is_set():
                began_s = time.monotonic()
                await asyncio.sleep(0.001)
                longest_s = max(longest_s, time.monotonic() - began_s)

        server.freeze()
        try:
            heart = asyncio.create_task(beat())
            ready = Slow("computed")
            ready.go_on.set()
            cache.l1.clear()
            calls = [cache.aio.get(f"k:{number}") for number in range(4)]
            values = await asyncio.gather(*calls, cache.aio.get_or_compute("c", ready), cache.aio.invalidate("x"))
            assert values[:4] == [MISS] * 4
            assert values[4] == "computed"
            assert not values[5].durable
            stopped.set()
            await heart
        finally:
            server.thaw()
        return longest_s

    with ValkeyServer() as server:
        cache = TwoTierCache(None, RedisCache(url=server.url, namespace="frozen", timeout_s=0.5))
        assert asyncio.run(main(cache, server)) < 0.4
        cache.close()


def test_a_hit_of_l1_touches_no_thread(cache: TwoTierCache) -> None:
    """It is found and handed out in the loop's own."""

    async def main() -> None:
        ready = Slow("computed")
        ready.go_on.set()
        await cache.aio.get_or_compute("k", ready)
        cache._parts.desk._calls.pool = lambda: pytest.fail("a thread")  # type: ignore[assignment,misc]
        try:
            assert await cache.aio.get("k") == "computed"
            assert await cache.aio.get_or_compute("k", ready) == "computed"
        finally:
            del cache._parts.desk._calls.pool
        assert ready.calls == 1

    asyncio.run(main())


def test_importing_and_making_begins_no_thread_and_few_are_begun(cache: TwoTierCache) -> None:
    """However many calls there are at once."""
    before = set(threading.enumerate())

    async def main() -> None:
        await asyncio.gather(*(cache.aio.get(f"absent:{number}") for number in range(500)))

    asyncio.run(main())
    mine = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("cache-call")]
    assert len(mine) <= 4
    cache.close()
    for thread in mine:
        thread.join(BOUND_S)
        assert not thread.is_alive()
    assert asyncio.run(cache.aio.get("absent")) is MISS


FORKING = """
    import asyncio, os, sys
    from pipeline.cache import RedisCache, TwoTierCache

    cache = TwoTierCache(None, RedisCache(url={url!r}, namespace={namespace!r}))

    async def compute():
        return os.getpid()

    mine = asyncio.run(cache.aio.get_or_compute("parent", compute))
    assert mine == os.getpid()
    child = os.fork()
    if child == 0:
        cache.l1.clear()
        ok = asyncio.run(cache.aio.get_or_compute("parent", compute)) == mine
        ok = ok and asyncio.run(cache.aio.get_or_compute("child", compute)) == os.getpid()
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert asyncio.run(cache.aio.get_or_compute("child", compute)) == child
    print("ok")
"""


def test_it_may_be_used_before_and_after_a_fork(redis_url: str, namespace: str) -> None:
    """The child begins threads of its own."""
    done = run_program(FORKING.format(url=redis_url, namespace=namespace))
    assert done.stdout.strip() == "ok", done.stderr
    assert os.getpid()


def test_what_was_invalidated_meanwhile_is_not_joined(cache: TwoTierCache) -> None:
    """A caller that asks after the invalidation does not wait for what it has voided."""

    async def main() -> None:
        old, new = Slow("old"), Slow("new")
        first = asyncio.create_task(cache.aio.get_or_compute("k", old))
        await old.begun.wait()
        await cache.aio.invalidate("k")
        second = asyncio.create_task(cache.aio.get_or_compute("k", new))
        await new.begun.wait()
        new.go_on.set()
        assert await second == "new"
        old.go_on.set()
        assert await first == "old"
        assert await cache.aio.get("k") == "new"

    asyncio.run(main())


def test_no_task_is_served_what_was_invalidated_before_it_asked(redis_url: str, namespace: str) -> None:
    """Three loops and two processes' caches read, compute and invalidate at random for two seconds. Whatever was acknowledged as
    durable before a read of L2 began, or here, the read is as new as. (Values stand on an inner one, which is recorded.)"""
    caches = [
        TwoTierCache(LocalCache(20), RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0), staleness_bound_s=bound_s)
        for bound_s in (1e-9, 1e-9)
    ]
    source = dict.fromkeys(range(4), 0)
    acknowledged = dict.fromkeys(range(4), 0)
    stale: list[Any] = []
    reads: list[str] = []
    ends_at_s = time.monotonic() + 2

    async def read(cache: TwoTierCache, number: int) -> None:
        async def inner() -> int:
            cache.reads(f"src:{number}")
            version = source[number]
            await asyncio.sleep(0.001)
            return version

        async def outer() -> list[int]:
            return [await cache.aio.get_or_compute(f"inner:{number}", inner)]

        least = acknowledged[number]
        found = await cache.aio.fetch(f"outer:{number}", outer)
        reads.append(found.source)
        if found.value[0] < least:
            stale.append((number, found, least))

    async def invalidate(cache: TwoTierCache, number: int) -> None:
        version = source[number] = source[number] + 1
        assert (await cache.aio.invalidate(f"src:{number}")).durable
        acknowledged[number] = max(acknowledged[number], version)

    async def work(seed: int) -> None:
        rng = random.Random(seed)
        while time.monotonic() < ends_at_s:
            jobs = [read(rng.choice(caches), rng.randrange(4)) for _ in range(8)]
            if rng.random() < 0.5:
                jobs.append(invalidate(rng.choice(caches), rng.randrange(4)))
            await asyncio.gather(*jobs)

    with ThreadPoolExecutor(3) as pool:
        for each in [pool.submit(asyncio.run, work(seed)) for seed in range(3)]:
            each.result(BOUND_S * 2)
    assert stale == []
    assert {"no", "joined", "l2"} <= set(reads)
    for cache in caches:
        cache.close()


def test_without_single_flight_each_computes_what_no_tier_has(cache: TwoTierCache) -> None:
    """And none what one has."""

    async def main() -> None:
        slow, quick = Slow("slow"), Slow("quick")
        quick.go_on.set()
        first = asyncio.create_task(cache.aio.fetch("k", slow, single_flight=False))
        await slow.begun.wait()
        assert (await cache.aio.fetch("k", quick, single_flight=False)).source == "no"
        slow.go_on.set()
        assert (await first).value == "slow"
        cache.l1.clear()
        found = await cache.aio.fetch("k", quick, single_flight=False)
        assert (found.source, quick.calls) == (("l2", 1) if cache.l2 is not None else ("no", 2))

    asyncio.run(main())


@pytest.mark.parametrize("limit", [LocalCache(1)])
def test_a_small_l1_is_enough(redis_url: str, namespace: str, limit: LocalCache) -> None:
    """Joiners have the value from the computation, not from a tier."""
    cache = TwoTierCache(limit, RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0))

    async def main() -> None:
        async def value(number: int) -> int:
            await asyncio.sleep(0.001)
            return number

        keys = [number % 10 for number in range(100)]
        values = await asyncio.gather(*(cache.aio.get_or_compute(f"k:{n}", lambda n=n: value(n)) for n in keys))
        assert values == keys

    asyncio.run(main())
    cache.close()

"""The cache for asyncio: one computation of simultaneous awaits, no blocked loop, no caller that takes another with it."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from faults import SteppedRedisCache
from programs import run_program
from servers import ValkeyServer

from pipeline.cache import (
    MISS,
    CyclicComputationError,
    Grace,
    Kind,
    LocalCache,
    RedisCache,
    TwoTierCache,
    UncacheableFunctionError,
    cached,
    invalidate_cache,
    key_of,
)

BOUND_S = 20.0


@pytest.fixture(params=["both tiers", "L1 alone"])
def cache(request: pytest.FixtureRequest, redis_url: str, namespace: str) -> Iterator[TwoTierCache]:
    l2 = RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0) if request.param == "both tiers" else None
    cache = TwoTierCache(None, l2, ttl_jitter=0.0)
    yield cache
    cache.clear()
    cache.close()


@pytest.fixture
def elsewhere(redis_url: str, namespace: str) -> Iterator[TwoTierCache]:
    """As another process has it."""
    cache = TwoTierCache(None, RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0), ttl_jitter=0.0)
    yield cache
    cache.close()


class Slow:
    """A computation that runs until it is let go."""

    def __init__(self, value: Any = "computed") -> None:
        self.value = value
        self.calls = 0
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self) -> Any:
        self.calls += 1
        self.begun.set()
        await self.go_on.wait()
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


async def until(condition: Callable[[], bool]) -> None:
    ends_at_s = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < ends_at_s
        await asyncio.sleep(0.001)


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


# -- circles


def test_a_circle_of_tasks_is_an_error_at_once_that_names_it(cache: TwoTierCache) -> None:
    """Of two, and of five; the tasks that caught it go on."""

    async def circle(count: int) -> list[BaseException | str]:
        meet = asyncio.Barrier(count)
        keys = [f"{count}:{number}" for number in range(count)]

        async def value(number: int) -> str:
            async def compute() -> str:
                await meet.wait()
                return "of " + await value((number + 1) % count)

            return await cache.aio.get_or_compute(keys[number], compute)

        return list(await asyncio.gather(*(value(number) for number in range(count)), return_exceptions=True))

    for count in (2, 5):
        began_s = time.monotonic()
        outcomes = asyncio.run(circle(count))
        assert time.monotonic() - began_s < 5
        for each in outcomes:
            assert isinstance(each, CyclicComputationError)
            assert all(repr(f"{count}:{number}") in str(each) for number in range(count))


def test_a_task_that_needs_its_own_key_is_an_error_at_once(cache: TwoTierCache) -> None:
    """There is no stack to end it."""

    async def compute() -> str:
        return await cache.aio.get_or_compute("k", compute)

    with pytest.raises(CyclicComputationError, match="'k' -> 'k'"):
        asyncio.run(cache.aio.get_or_compute("k", compute))


def test_two_cached_coroutines_that_call_each_other(cache: TwoTierCache) -> None:
    """From two tasks, and from one: the keys are named."""

    @cached(key_prefix="left", cache=cache)
    async def left(x: int) -> int:
        await asyncio.sleep(0)
        return await right(x)

    @cached(key_prefix="right", cache=cache)
    async def right(x: int) -> int:
        await asyncio.sleep(0)
        return await left(x)

    async def both() -> list[Any]:
        return list(await asyncio.gather(left(1), right(1), return_exceptions=True))

    for outcome in asyncio.run(both()):
        assert isinstance(outcome, CyclicComputationError)
        # Both, or the one that needs itself by way of the other: the tasks' turns decide.
        assert left.cache_key(1) in str(outcome) or right.cache_key(1) in str(outcome)
    with pytest.raises(CyclicComputationError):
        asyncio.run(left(2))


def test_a_recursion_over_other_keys_goes_on_working(cache: TwoTierCache) -> None:
    """As deep as memory is, since there is no stack; also where many ask at once."""

    @cached(key_prefix="fib", cache=cache)
    async def fib(n: int) -> int:
        return n if n < 2 else sum(await asyncio.gather(fib(n - 1), fib(n - 2)))

    async def many() -> list[int]:
        return list(await asyncio.gather(*(fib(n) for n in range(30, 0, -3))))

    assert asyncio.run(many())[0] == 832040


def test_a_blocking_call_in_the_loop_of_a_task_that_computes_the_key_computes_for_itself(cache: TwoTierCache) -> None:
    """It would wait for a task that cannot go on."""

    async def main() -> None:
        slow = Slow()
        first = asyncio.create_task(cache.aio.get_or_compute("k", slow))
        await slow.begun.wait()
        began_s = time.monotonic()
        assert cache.get_or_compute("k", lambda: "blocking") == "blocking"
        if cache.l2 is None:
            assert time.monotonic() - began_s < 5
        slow.go_on.set()
        assert await first == "computed"

    asyncio.run(main())


# -- the other calls


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


# -- invalidate_cache


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

"""Computations that need each other: an error at once wherever the process sees the circle, and a bound where it cannot."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipeline.cache import CyclicComputationError, RedisCache, TwoTierCache, cached
from pipeline.cache.flight.waits import WAITS

BOUND_S = 20.0
MakeCache = Callable[..., TwoTierCache]


@pytest.fixture(params=["both tiers", "L1 alone"])
def cache(request: pytest.FixtureRequest, make: MakeCache) -> TwoTierCache:
    return make() if request.param == "both tiers" else TwoTierCache()


def test_two_cached_functions_that_call_each_other_from_two_threads(cache: TwoTierCache) -> None:
    """Within seconds, where it was minutes; both keys are named, and nothing is left of the waits."""
    meet = threading.Barrier(2)

    @cached(key_prefix="left", cache=cache)
    def left(x: int) -> int:
        meet.wait(BOUND_S)
        return right(x)

    @cached(key_prefix="right", cache=cache)
    def right(x: int) -> int:
        meet.wait(BOUND_S)
        return left(x)

    began_s = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        for asked in [pool.submit(function, 1) for function in (left, right)]:
            with pytest.raises(CyclicComputationError) as told:
                asked.result(BOUND_S)
            assert left.cache_key(1) in str(told.value)
            assert right.cache_key(1) in str(told.value)
    assert time.monotonic() - began_s < 5
    assert WAITS._flights == {}


def test_a_circle_may_lead_through_a_helper_thread(cache: TwoTierCache) -> None:
    """Which waits in the place of the computation that has begun it: with its context, the circle is seen."""

    def outer() -> str:
        context = contextvars.copy_context()
        with ThreadPoolExecutor(1) as pool:
            return str(pool.submit(context.run, cache.get_or_compute, "outer", lambda: "never").result(BOUND_S))

    began_s = time.monotonic()
    with pytest.raises(CyclicComputationError, match="'outer' -> 'outer'"):
        cache.get_or_compute("outer", outer)
    assert time.monotonic() - began_s < 5


def test_a_circle_of_a_task_and_a_thread(cache: TwoTierCache) -> None:
    """Each computes what the other one needs."""
    meet = threading.Barrier(2)

    async def of_a_task() -> Any:
        await asyncio.to_thread(meet.wait, BOUND_S)
        return await cache.aio.get_or_compute("thread", of_a_task)

    def of_a_thread() -> Any:
        meet.wait(BOUND_S)
        return cache.get_or_compute("task", of_a_thread)

    with ThreadPoolExecutor(2) as pool:
        asked = [
            pool.submit(asyncio.run, cache.aio.get_or_compute("task", of_a_task)),
            pool.submit(cache.get_or_compute, "thread", of_a_thread),
        ]
        for each in asked:
            with pytest.raises(CyclicComputationError, match=r"'task'.*'thread'|'thread'.*'task'"):
                each.result(BOUND_S)


def test_many_tasks_over_many_keys_never_see_one(cache: TwoTierCache) -> None:
    """They need each other's values all the time, always of a higher number: there can be no circle."""

    async def value(number: int) -> int:
        async def compute() -> int:
            needs = [other for other in (number + 1, number + 2, number + 5) if other < 30]
            return 1 + sum(await asyncio.gather(*map(value, needs)))

        return await cache.aio.get_or_compute(f"n:{number}", compute)

    async def all_at_once() -> list[int]:
        return list(await asyncio.gather(*(value(start % 20) for start in range(100))))

    expected: dict[int, int] = {}
    for number in range(29, -1, -1):
        expected[number] = 1 + sum(expected[other] for other in (number + 1, number + 2, number + 5) if other < 30)
    assert asyncio.run(all_at_once()) == [expected[start % 20] for start in range(100)]
    assert WAITS._flights == {}


@pytest.mark.parametrize("awaited", [False, True], ids=["threads", "tasks"])
def test_a_circle_through_two_processes_ends_by_the_bound_and_is_told(
    redis_url: str, namespace: str, caplog: pytest.LogCaptureFixture, *, awaited: bool
) -> None:
    """No process sees the whole of it. The log says which key was waited for, and for how long."""
    one, other = (TwoTierCache(None, RedisCache(url=redis_url, namespace=namespace), wait_s=0.5) for _ in range(2))
    meet = threading.Barrier(2)

    def value(cache: TwoTierCache, mine: str, theirs: str) -> str:
        def compute() -> str:
            meet.wait(BOUND_S)
            return mine + cache.get_or_compute(theirs, lambda: theirs)

        return cache.get_or_compute(mine, compute)

    async def avalue(cache: TwoTierCache, mine: str, theirs: str) -> str:
        async def alone() -> str:
            return theirs

        async def compute() -> str:
            await asyncio.to_thread(meet.wait, BOUND_S)
            return mine + await cache.aio.get_or_compute(theirs, alone)

        return await cache.aio.get_or_compute(mine, compute)

    with ThreadPoolExecutor(2) as pool:
        if awaited:
            asked = [pool.submit(lambda *of: asyncio.run(avalue(*of)), *of) for of in ((one, "a", "b"), (other, "b", "a"))]
        else:
            asked = [pool.submit(value, *of) for of in ((one, "a", "b"), (other, "b", "a"))]
        assert {each.result(BOUND_S)[:1] for each in asked} == {"a", "b"}
    told = [record.getMessage() for record in caplog.records if "waited_out" in record.getMessage()]
    assert told
    for message in told:
        assert message.startswith(
            ("cache.waited_out: 'a': 0.5 s for another process", "cache.waited_out: 'b': 0.5 s for another")
        )
    one.close()
    other.close()

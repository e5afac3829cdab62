"""Tasks whose computations need each other's: an error at once, or each for itself; none waits for ever."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from awaiting import Slow

from pipeline.cache import (
    CyclicComputationError,
    TwoTierCache,
    cached,
)


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

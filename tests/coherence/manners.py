"""The two manners in which a worker calls the cache: as a thread does, or awaited in an event loop, where many workers are tasks
of one thread. The steps are written once, as coroutines; those of a thread never wait for a loop."""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

from broken_off import BrokenOffError
from coherence.interruptions import Interruptions

from pipeline.cache import AsyncCache, TwoTierCache

T = TypeVar("T")


class Manner(Protocol):
    """`cache`: the calls under their common names; each result is to be had by `do`. `awaits`: whether they are awaited."""

    cache: Any
    awaits: bool

    async def do(self, call: Callable[[], Any]) -> Any:
        """The result of a call of the cache, unless it is broken off."""

    def computing(self, compute: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., Any]:
        """What the cache is given to compute by."""

    def shielded(self) -> Any:
        """Within a computation: what must be whole."""

    async def sleep(self, seconds: float) -> None: ...

    def end(self) -> None:
        """Nothing is broken off from here on."""


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for no loop."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise AssertionError("a thread's step waits for an event loop")


class ByThread:
    """To be made in the thread."""

    awaits = False

    def __init__(self, cache: TwoTierCache, break_off_s: float, rng: random.Random) -> None:
        self.cache = cache
        self._interruptions = Interruptions(break_off_s, rng)
        self.shielded = self._interruptions.shielded

    async def do(self, call: Callable[[], Any]) -> Any:
        return self._interruptions.allowed(call)

    def computing(self, compute: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., T]:
        return lambda *given: at_once(compute(*given))

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def end(self) -> None:
        self._interruptions.end()


class ByTask:
    """To be made in the loop's thread. A call is broken off by the end of the task that awaits it."""

    awaits = True

    def __init__(self, cache: TwoTierCache, break_off_s: float, rng: random.Random) -> None:
        self.cache = Awaited(cache)
        self._break_off_s = break_off_s
        self._rng = rng

    async def do(self, call: Callable[[], Awaitable[Any]]) -> Any:
        if not self._break_off_s:
            return await call()
        task: asyncio.Future[Any] = asyncio.ensure_future(call())
        end = asyncio.get_running_loop().call_later(self._rng.expovariate(1 / self._break_off_s), task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            raise BrokenOffError from None
        finally:
            end.cancel()

    def computing(self, compute: Callable[..., Coroutine[Any, Any, T]]) -> Callable[..., Coroutine[Any, Any, T]]:
        return compute

    @contextmanager
    def shielded(self) -> Iterator[None]:
        yield  # a computation is a task of its own, which no caller's end ends

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def end(self) -> None:
        self._break_off_s = 0.0


class Awaited:
    """`cache.aio`, and the calls beside it that a program with an event loop has of the cache itself."""

    def __init__(self, cache: TwoTierCache) -> None:
        self._cache = cache
        self._aio: AsyncCache = cache.aio

    def __getattr__(self, name: str) -> Any:
        return getattr(self._aio, name)

    async def peek(self, key: str) -> Any:
        return self._cache.peek(key)  # waits for nothing

    async def fill(self, *given: Any, **named: Any) -> None:
        await self._cache._parts.desk.run(partial(self._cache.fill, *given, **named))


def run_in_context_of_callers(cache: TwoTierCache) -> None:
    """From here on what the cache does in a thread for a task runs in the task's context: so an announcement finds the writing
    that it is of."""
    desk = cache._parts.desk
    run = desk.run

    async def in_context(call: Callable[[], T], *, waits: bool = False) -> T:
        context = contextvars.copy_context()
        return await run(lambda: context.run(call), waits=waits)

    desk.run = in_context  # type: ignore[assignment, method-assign]

"""What a cache has for the programs that await it: a few threads for its server's calls, and the tasks at work.

A few threads, and not a second client of the server that awaits: what is promised (see docs/coherence.md) is proven of one
client, one order of its exchanges and one circuit breaker, which any number of event loops can share, since a connection
belongs to no loop. A call takes a tenth of a millisecond, and the cache's time-out at most.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, TypeVar

from pipeline.cache.flight.asking import Asking
from pipeline.cache.locks import Lock, begins_anew_in_children

T = TypeVar("T")

CALLS_AT_ONCE: Final = 4
"""Threads for calls of the server. They are begun when they are needed, and end with the cache."""
WAITS_AT_ONCE: Final = 4
"""Threads that wait at the server until another process has computed a key. Where more keys are waited for, the server is asked
again and again for the others."""
COMPUTATIONS_AT_ONCE: Final = 2
"""Threads that compute anew what is served stale meanwhile."""

logger: Final = logging.getLogger(__name__)


class _Threads:
    """Threads of this process, begun when they are needed. A forked child begins its own."""

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._lock = Lock()
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def pool(self) -> ThreadPoolExecutor:
        held = self._pool
        if held is not None and held[0] == os.getpid():
            return held[1]
        made = (os.getpid(), ThreadPoolExecutor(self._most, self._name))
        with self._lock:
            if self._pool is None or self._pool[0] != made[0]:
                self._pool = made
            return self._pool[1]

    def close(self) -> None:
        held, self._pool = self._pool, None
        if held is not None and held[0] == os.getpid():
            held[1].shutdown(wait=False)


class Sharing(NamedTuple):
    """A task that looks for a key, by the asking of its caller, while it has not begun: callers that ask until then may have what
    it brings."""

    loop: asyncio.AbstractEventLoop
    task: asyncio.Task[Any]
    asking: Asking


class Desk:
    """One a cache, for all event loops of the process."""

    def __init__(self, *, blocks: bool) -> None:
        """`blocks`: whether a call of the cache may wait for a server."""
        self._blocks = blocks
        self._calls = _Threads(CALLS_AT_ONCE, "cache-call")
        self._waits = _Threads(WAITS_AT_ONCE, "cache-wait")
        self._places = [None] * WAITS_AT_ONCE
        self._computations = _Threads(COMPUTATIONS_AT_ONCE, "cache-refresh")
        self.sharing: dict[tuple[object, ...], Sharing] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._renewed: set[str] = set()
        begins_anew_in_children(self)

    def begin_anew(self) -> None:
        """In a child that was just forked: no loop and no thread of the parent's is here."""
        self.sharing, self._tasks, self._renewed = {}, set(), set()
        self._places = [None] * WAITS_AT_ONCE

    @contextmanager
    def waiting(self) -> Iterator[bool]:
        """Whether a thread that waits is the caller's within the block."""
        places = self._places
        try:
            places.pop()  # one step of the interpreter's: loops of several threads need no lock
        except IndexError:
            yield False
            return
        try:
            yield True
        finally:
            places.append(None)

    async def run(self, call: Callable[[], T], *, waits: bool = False) -> T:
        """The result of a call that may wait for the server; `waits`: on purpose, see `waiting`. A caller that is cancelled waits
        for the call's end all the same, so that nothing it took is lost; that is bounded by the cache's time-outs."""
        if not self._blocks:
            return call()
        future = asyncio.get_running_loop().run_in_executor((self._waits if waits else self._calls).pool(), call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                try:
                    await asyncio.shield(future)
                except asyncio.CancelledError:
                    continue
                except Exception:  # noqa: BLE001 - the caller is gone: the call's own record is what counts
                    break
            raise

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Have the running loop do this, whatever becomes of the caller."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # has been raised where it was awaited; where nobody was left, it is nobody's

    # -- computing anew beside the callers

    def renew(self, key: str, name: str, compute: Callable[[], object]) -> None:
        """Have a thread compute the key anew, unless one does. Never raises, never waits."""
        if self._claim(key):
            try:
                self._computations.pool().submit(self._renew, key, name, compute)
            except RuntimeError:  # the interpreter is shutting down
                self._renewed.discard(key)

    def _renew(self, key: str, name: str, compute: Callable[[], object]) -> None:
        try:
            compute()
        except Exception as error:  # noqa: BLE001 - nobody waits for it: the log is told
            _tell(name, error)
        finally:
            self._renewed.discard(key)

    def renew_in_loop(self, key: str, name: str, compute: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """As `renew`, by a task of the running loop."""
        if self._claim(key):
            self.begin(self._renew_in_loop(key, name, compute))

    async def _renew_in_loop(self, key: str, name: str, compute: Callable[[], Coroutine[Any, Any, object]]) -> None:
        try:
            await compute()
        except Exception as error:  # noqa: BLE001 - as above
            _tell(name, error)
        finally:
            self._renewed.discard(key)

    def _claim(self, key: str) -> bool:
        if key in self._renewed:
            return False
        self._renewed.add(key)  # of two threads that race both compute: the flight has one of them do it
        return True

    def close(self) -> None:
        """End the threads, when they have ended what they do."""
        self._calls.close()
        self._waits.close()
        self._computations.close()


def _tell(name: str, error: Exception) -> None:
    logger.warning("cache.refresh_failed: %s: %s: the stale value is served on", name, type(error).__name__)

"""The source of the fleet's figures for the page and the metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, TypeVar

from pipeline.cache.server.connection import RedisConnection
from pipeline.figures import FigureKeys, FleetFigures, read_figures
from pipeline.settings import Settings

T = TypeVar("T")

FRESH_S: Final = 1.0
BOUND_S: Final = 3.0
"""How long one reading may take, and a caller may wait for it."""
COMMAND_S: Final = 1.0
AWAY: Final = FleetFigures(available=False)


class Shared(Generic[T]):
    """What `read` gives, at most `fresh_s` old, within `bound_s`. Of one event loop.

    However many callers ask, one reading runs at a time. A caller that comes meanwhile gets its answer; one that leaves does not
    end it.
    """

    def __init__(
        self, read: Callable[[], Awaitable[T]], *, fresh_s: float, bound_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._fresh_s, self._bound_s, self._clock = fresh_s, bound_s, clock
        self._reading: asyncio.Task[T] | None = None
        self._ended_s = 0.0

    async def latest(self) -> T:
        """Raises TimeoutError, or as `read` does: then the next caller tries again."""
        reading = self._reading
        if reading is None or (reading.done() and self._is_over(reading)):
            reading = self._reading = asyncio.ensure_future(self._read_now())
        return await asyncio.shield(reading)

    def _is_over(self, reading: asyncio.Task[T]) -> bool:
        return reading.cancelled() or reading.exception() is not None or self._clock() >= self._ended_s + self._fresh_s

    async def _read_now(self) -> T:
        try:
            return await asyncio.wait_for(self._read(), self._bound_s)
        finally:
            self._ended_s = self._clock()


class FigureSource:
    """The figures of the last 15 minutes, at most a second old, read in a thread of its own: Flower's threads may all be waiting
    for workers that do not answer. `configured`: whether a cache's server is configured at all."""

    def __init__(self, settings: Settings) -> None:
        """Connects at the first reading."""
        self.configured = bool(settings.cache_url)
        self._connection = RedisConnection(settings.cache_url, timeout_s=COMMAND_S) if self.configured else None
        self._keys = FigureKeys(settings.cache_namespace)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="figures")
        self._shared = Shared(self._read, fresh_s=FRESH_S, bound_s=BOUND_S)

    async def latest(self) -> FleetFigures:
        """Never raises because the server is away, or slow: then the figures are not `available`."""
        if not self.configured:
            return AWAY
        try:
            return await self._shared.latest()
        except TimeoutError:
            return AWAY

    async def _read(self) -> FleetFigures:
        if self._connection is None:
            return AWAY
        return await asyncio.get_running_loop().run_in_executor(self._thread, read_figures, self._connection, self._keys)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._connection is not None:
            self._connection.close()

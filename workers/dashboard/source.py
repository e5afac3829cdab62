"""The source of the fleet's figures for the page and the metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, Generic, TypeVar

from pipeline.cache.server.connection import RedisConnection
from pipeline.figures import FigureKeys, FleetFigures, read_figures
from pipeline.figures.records import DAY_S
from pipeline.settings import Settings

T = TypeVar("T")

FRESH_S: Final = 1.0
LONG_FRESH_S: Final = 5.0
"""For windows of more than 15 minutes: what is in them is told once in five seconds."""
BOUND_S: Final = 3.0
"""How long one reading may take, and a caller may wait for it."""
COMMAND_S: Final = 1.0
AWAY: Final = FleetFigures(available=False)
WINDOWS: Final = {60: "1 min", 300: "5 min", 900: "15 min", 3600: "60 min", DAY_S: "24 h"}
"""The windows that can be looked at, by their seconds. Each is read by itself, so that they are few."""
WINDOW_S: Final = 900
"""That of the metrics, and of a page that asks for none."""


class Shared(Generic[T]):
    """What `read` gives, at most `fresh_s` old (it may depend on what was read), within `bound_s`. Of one event loop.

    However many callers ask, one reading runs at a time. A caller that comes meanwhile gets its answer; one that leaves does not
    end it.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[T]],
        *,
        fresh_s: float | Callable[[T], float],
        bound_s: float,
        clock: Callable[[], float] = time.monotonic,
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
        if reading.cancelled() or reading.exception() is not None:
            return True
        fresh_s = self._fresh_s(reading.result()) if callable(self._fresh_s) else self._fresh_s
        return self._clock() >= self._ended_s + fresh_s

    async def _read_now(self) -> T:
        try:
            return await asyncio.wait_for(self._read(), self._bound_s)
        finally:
            self._ended_s = self._clock()


def _fresh_s(figures: FleetFigures) -> float:
    """Of a long window. That the server is away is no news for as long."""
    return LONG_FRESH_S if figures.available else FRESH_S


class FigureSource:
    """The figures of each of WINDOWS, a second old at most, or five of the long ones. They are read in a thread of its own:
    Flower's threads may all be waiting for workers that do not answer. `configured`: whether a cache's server is configured at
    all."""

    def __init__(self, settings: Settings) -> None:
        """Connects at the first reading."""
        self.configured = bool(settings.cache_url)
        self._connection = RedisConnection(settings.cache_url, timeout_s=COMMAND_S) if self.configured else None
        self._keys = FigureKeys(settings.cache_namespace)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="figures")
        self._shared = {
            window_s: Shared(
                partial(self._read, window_s),
                fresh_s=FRESH_S if window_s <= WINDOW_S else _fresh_s,
                bound_s=BOUND_S,
            )
            for window_s in WINDOWS
        }

    async def latest(self, window_s: int = WINDOW_S) -> FleetFigures:
        """Of one of WINDOWS. Never raises because the server is away, or slow: then the figures are not `available`."""
        if not self.configured:
            return AWAY
        try:
            return await self._shared[window_s].latest()
        except TimeoutError:
            return AWAY

    async def _read(self, window_s: int) -> FleetFigures:
        if self._connection is None:
            return AWAY
        read = partial(read_figures, self._connection, self._keys, window_s)
        return await asyncio.get_running_loop().run_in_executor(self._thread, read)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
        if self._connection is not None:
            self._connection.close()

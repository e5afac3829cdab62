"""One answer for all who ask at about the same time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """What `read` gives, at most `fresh_s` old, within `bound_s`. Of one event loop.

    However many ask, one reads at a time. Who comes while it is read gets that answer, and who goes away does not end it.
    """

    def __init__(
        self, read: Callable[[], Awaitable[T]], *, fresh_s: float, bound_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._fresh_s, self._bound_s, self._clock = fresh_s, bound_s, clock
        self._reading: asyncio.Task[T] | None = None
        self._ended_s = 0.0

    async def latest(self) -> T:
        """Raises TimeoutError, or as `read` does: then the next one who asks tries again."""
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

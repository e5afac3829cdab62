"""A circuit breaker: after a failure no caller pays for the next one until a probe has succeeded."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.cache.locks import Lock


class CircuitBreaker:
    """Closed: calls pass. Open: calls are refused for `pause_s`. Then one caller at a time may probe; its success closes.

    Thread-safe, and may be re-entered; local to this process. A probe that never reports back is forgotten after `pause_s`.
    """

    def __init__(self, *, pause_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause_s = pause_s
        self._clock = clock
        self._lock = Lock()
        self.closed = True
        """Read without a lock: a race costs one call more at worst."""
        self._retry_at = 0.0
        self.opened_count = 0

    def admits(self) -> bool:
        """Whether a call may go out now. While open, a true answer makes the caller the probe: it must report."""
        if self.closed:
            return True
        with self._lock:
            if self.closed:
                return True
            now = self._clock()
            if now < self._retry_at:
                return False
            self._retry_at = now + self._pause_s
            return True

    def succeeded(self) -> None:
        if not self.closed:
            with self._lock:
                self.closed = True

    def failed(self) -> None:
        with self._lock:
            if self.closed:
                self.opened_count += 1
            self.closed = False
            self._retry_at = self._clock() + self._pause_s

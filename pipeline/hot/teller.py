"""How a process tells the fleet what it was asked for: by its courier, every few seconds."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final

from pipeline.cache.server.connection import RedisConnection
from pipeline.courier import Occasion
from pipeline.hot.hot_set import HotSet, script
from pipeline.hot.keys import HotKeys
from pipeline.hot.recent import Recent

EVERY_S: Final = 5.0
"""On the average. Not all processes at the same moment: those that were started together would stay together."""


class Teller:
    """A passenger of the courier: passes what is in `recent` on to the hot set. Used by one thread at a time."""

    def __init__(
        self,
        keys: HotKeys,
        recent: Recent,
        *,
        keeps_requests: bool,
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self._keys = keys
        self._recent = recent
        self._keeps_requests = keeps_requests
        self._clock = clock
        self._rng = rng
        self._due_s = clock() + EVERY_S * rng()
        script()  # read here, not first in a thread

    def tell(self, connection: RedisConnection, occasion: Occasion) -> None:
        """Every second, tell it every few seconds; on any other occasion at once. Raises SharedTierUnavailableError; what could
        not be told is given up."""
        now_s = self._clock()
        if occasion != "due" or now_s >= self._due_s:
            self._due_s = now_s + EVERY_S * (0.5 + self._rng())
            HotSet(connection, self._keys, keeps_requests=self._keeps_requests).count(self._recent.take())

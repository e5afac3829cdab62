"""A pause after a server has refused something: it is full, read-only, or not allowed to do it, and may be well again."""

from __future__ import annotations

import logging
import math
from typing import Final

from redis.exceptions import ResponseError

logger: Final = logging.getLogger(__name__)

PAUSE_S: Final = 1.0
"""So long nothing is claimed from a server that refused it."""
SAID_S: Final = 10.0
"""A refusal is in the log again once there was none for so long."""


class Pause:
    """Whether there is one, by the clock of its user."""

    def __init__(self) -> None:
        self._ends_s = self._refused_s = -math.inf

    def goes_on(self, now_s: float) -> bool:
        return now_s < self._ends_s

    def begin(self, error: ResponseError, now_s: float) -> None:
        """Nothing more for a while."""
        self._ends_s = now_s + PAUSE_S
        if now_s - self._refused_s > SAID_S:
            logger.warning("fetch.refused (%s): tried again every %g s", str(error)[:100], PAUSE_S)
        self._refused_s = now_s

"""What one process was asked for of late."""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from pipeline.models import PersonaRequest

ROOM: Final = 512
"""Ring size. A busier process reports a sample."""


class Asked(NamedTuple):
    """How often a key was asked for, and the last request for it."""

    times: int
    request: PersonaRequest


class Recent:
    """The last requests, each with the key of its answer. Thread-safe without a lock; bounded, also if they are never taken.

    A hit pays for an append: a ring forgets its oldest by itself, and counting by key is done later, when they are taken.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._ring: deque[tuple[str, PersonaRequest]] = deque(maxlen=room)
        self.note = self._ring.append
        """Note that the answer of that key was asked for, by that request. Never one with a personal context."""

    def take(self) -> dict[str, Asked]:
        """What was noted since it was last taken, by key."""
        asked: dict[str, Asked] = {}
        for _ in range(len(self._ring)):  # not "until it is empty": others go on noting
            try:
                key, request = self._ring.popleft()
            except IndexError:  # another thread takes them, too
                break
            asked[key] = Asked(asked[key].times + 1 if key in asked else 1, request)
        return asked

"""Which served answers the auditor is told of."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, Protocol

from pipeline.cache.locks import begins_anew_in_children

ROOM: Final = 1024
"""So many samples wait at most; the oldest go first."""

LEFT: Final = 0.5
"""A program that reads the same keys in the same order for each request would else have only the first of them sampled."""

Tier = Literal["l1", "l2", "joined", "stale"]


class Known(Protocol):
    """An entry's `as_of`."""

    @property
    def epoch(self) -> str: ...

    @property
    def seq(self) -> int: ...


class Sample(NamedTuple):
    """An answer that was served: the entry's key, deps and `as_of`, from where it was served, and when the read began, by the
    cache's clock. `made_s`: when its computation began, if this process knows; else infinite."""

    key: str
    deps: tuple[str, ...]
    epoch: str
    seq: int
    tier: Tier
    began_s: float
    made_s: float = math.inf


class Sampler:
    """Takes an answer when one is due, the first or one soon after, and then rests a while: of each tier by itself, so that the
    many hits of L1 do not hide the few joined answers. Thread-safe: two threads at the same moment may both be sampled.

    A hit of L1 compares `due_s` with the time that it has read anyway: that is all a sampler costs it.
    """

    def __init__(self, per_s: float = 0.0, *, room: int = ROOM, rng: Callable[[], float] | None = None) -> None:
        """`per_s`: about so many samples a second of each tier at most; 0 for none, infinite for every answer."""
        self._gap_s = math.inf if per_s <= 0 else 1 / per_s
        self._rng = rng or random.Random().random  # noqa: S311 - of its own, so that no program's seed is used up; guards nothing
        self._ring: deque[Sample] = deque(maxlen=room)
        self.due_s = math.inf if per_s <= 0 else -math.inf
        """The answer of L1 to a read that begins then or later is to be noted. Infinite: none ever is."""
        self._due_s: dict[Tier, float] = dict.fromkeys(("l2", "joined", "stale"), self.due_s)
        begins_anew_in_children(self)

    def begin_anew(self) -> None:
        """In a child that was just forked: the samples are its parent's to judge."""
        self._ring.clear()

    def due(self, tier: Tier, began_s: float) -> bool:
        """Whether an answer of that tier, not L1, to a read that began then is to be noted."""
        return began_s >= self._due_s[tier]

    def note(self, key: str, deps: tuple[str, ...], as_of: Known, tier: Tier, began_s: float, made_s: float = math.inf) -> None:
        """An answer was served when one was due: it is taken, or left for the next one with even chances. See Sample."""
        if self._gap_s > 0 and self._rng() < LEFT:
            return
        # Not at even distances: a program that asks in turns would be in step with them.
        due_s = began_s + self._gap_s * (0.5 + self._rng())
        if tier == "l1":
            self.due_s = due_s
        else:
            self._due_s[tier] = due_s
        self._ring.append(Sample(key, deps, as_of.epoch, as_of.seq, tier, began_s, made_s))

    def take(self) -> list[Sample]:
        """The samples that wait, oldest first."""
        taken = []
        for _ in range(len(self._ring)):  # not "until it is empty": others go on noting
            try:
                taken.append(self._ring.popleft())
            except IndexError:  # another thread takes them, too
                break
        return taken

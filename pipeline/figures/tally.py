"""What one process counts: requests by where their answer came from, with their times, and a few other times.

A hit pays for an append. Sorting samples into buckets is done later, for many at once, when the counts are reported or asked for.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec

from pipeline.cache.locks import Lock
from pipeline.figures.fields import SERIES, count_event, count_times
from pipeline.figures.histogram import count_buckets

FOLD_AT: Final = 8192
"""So many samples of a series wait to be sorted before a recording thread does it."""

MANY: Final = 1000
CHOSEN: Final = 500
"""Of so many samples that wait together, so that a process answers a thousand a second, some tell how they are spread: enough for
a p99 of a second, and sorting costs a hit next to nothing. Their number and their sum are exact."""
LONGEST_DELAY_MS: Final = 86_400_000.0


class Counted(msgspec.Struct, frozen=True):
    """What one series has come to since the process began: how many samples, and their sum."""

    count: int
    sum_ms: float


def delay_ms(since: object, now_s: float) -> float | None:
    """From a moment that another host put into a message, in seconds since 1970 by its clock, to now by ours: as true as the two
    are in step, 0 where it would be negative, a day at most. None for what is no moment."""
    if not isinstance(since, int | float):
        return None
    try:
        return min(max(0.0, (now_s - since) * 1000), LONGEST_DELAY_MS)
    except OverflowError:  # a whole number of hundreds of digits
        return None


class Tally:
    """Counts of one process. Thread-safe and exact, also in a pool of threads or greenlets.

    Recording takes no lock and stays exact: an append to a list is one step of the interpreter, and so is taking the first
    n samples away; what is appended in between comes after the n. A `+= 1` would be several steps, and a cell for each thread
    costs more, and a cell for each greenlet still more.
    """

    def __init__(self, wake: Callable[[], None] | None = None) -> None:
        """`wake` is called at the first record, and at the first one after each `rest`: it starts the reporting."""
        self._wake = wake
        self._begin()

    def _begin(self) -> None:
        self.samples: dict[str, list[float]] = {series: [] for series in SERIES}
        self.fold_at = FOLD_AT if self._wake is None else 1
        self._lock = Lock()
        self._folding = False
        self._events: list[tuple[str, int]] = []
        self._counts = dict.fromkeys(SERIES, 0)
        self._sums_ms = dict.fromkeys(SERIES, 0.0)
        self._fresh: Counter[str] = Counter()
        self._counted: Counter[str] = Counter()
        self._rest_us = dict.fromkeys(SERIES, 0.0)
        self._choices = random.Random().choices  # noqa: S311 - its own, so that no program's seed is used up; it guards nothing

    def record(self, series: str, elapsed_ms: float) -> None:
        """Count a request by its source (or `failed`), or another series' sample, with its time. Not negative.

        The hottest caller does the same by itself: a call costs as much as the rest.
        """
        samples = self.samples[series]
        samples.append(elapsed_ms)
        if len(samples) >= self.fold_at:
            self.full()

    def count(self, event: str, amount: int = 1) -> None:
        """Count something rare that takes no time, under a name of its own. Takes no lock: a signal handler may do it, too."""
        self._events.append((event, amount))
        if len(self._events) >= self.fold_at:
            self.full()

    def snapshot(self) -> dict[str, Counted]:
        """All series since the process began."""
        interrupting = self._lock.held()  # a signal handler, in the middle of a change of its own thread
        with self._lock:
            if not interrupting:
                self._fold()
            return {series: Counted(self._counts[series], self._sums_ms[series]) for series in SERIES}

    def counted(self, event: str) -> int:
        """How often it was counted since the process began."""
        interrupting = self._lock.held()
        with self._lock:
            if not interrupting:
                self._fold()
            return self._counted[event]

    def take(self) -> Counter[str]:
        """What was counted since it was last asked, as fields: see `pipeline.figures.fields`."""
        if self._lock.held():
            return Counter()  # as above: next time
        with self._lock:
            self._fold()
            fresh, self._fresh = self._fresh, Counter()
            return fresh

    def rest(self) -> None:
        """Reporting has ended: the next record calls `wake`."""
        if self._wake is not None:
            self.fold_at = 1

    def awake(self) -> None:
        """Reporting goes on: no record need call `wake`."""
        self.fold_at = FOLD_AT

    def forget(self) -> None:
        """Begin anew, in a child that was just forked: the counts are its parent's, and so may be the holder of the lock."""
        self._begin()

    def full(self) -> None:
        """Called by the recording thread when `fold_at` samples of a series wait: wakes the reporting, or folds them."""
        if self.fold_at == 1 and self._wake is not None:
            self.awake()
            self._wake()
        elif not self._folding and not self._lock.held():  # else another thread does it
            with self._lock:
                self._fold()

    def _fold(self) -> None:
        """Sort what waits into buckets. Under the lock: one at a time takes samples away."""
        self._folding = True
        try:
            self._sort()
        finally:
            self._folding = False

    def _sort(self) -> None:
        fresh = self._fresh
        events = self._events[: len(self._events)]
        del self._events[: len(events)]
        for event, amount in events:
            self._counted[event] += amount
            count_event(fresh, event, amount)
        for series, samples in self.samples.items():
            count = len(samples)
            if not count:
                continue
            taken = samples[:count]
            del samples[:count]
            sum_ms = sum(taken)
            self._counts[series] += count
            self._sums_ms[series] += sum_ms
            sum_us = sum_ms * 1000 + self._rest_us[series]
            whole_us = int(sum_us)
            self._rest_us[series] = sum_us - whole_us
            count_times(fresh, series, taken, whole_us, _buckets(taken, self._choices))


def _buckets(samples: list[float], choices: Callable[..., list[float]]) -> Counter[int]:
    """How many samples are in which bucket, by a part of them where there are many. Their number is right all the same."""
    if len(samples) < MANY:
        return count_buckets(samples)
    # At random: a program that asks in turns would be in step with every seventh sample, or any other regular choice.
    chosen = count_buckets(choices(samples, k=CHOSEN))
    buckets = Counter({bucket: count * len(samples) // CHOSEN for bucket, count in chosen.items()})
    most, _ = buckets.most_common(1)[0]
    buckets[most] += len(samples) - buckets.total()
    return buckets

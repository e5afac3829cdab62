"""What one process has counted, made into reports that Redis adds to the fleet's figures, each exactly once."""

from __future__ import annotations

import math
import os
import secrets
import socket
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from pipeline.cache.coherence.identity import name_of
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.server.commands import integer
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.scripts import Script
from pipeline.courier import Courier, Occasion
from pipeline.figures.fields import INVALIDATIONS, MISSED, REQUESTS, STALENESS, add, as_arguments, lasting
from pipeline.figures.keys import FigureKeys
from pipeline.figures.records import (
    CHANGED_EVERY_S,
    KEEP_MS,
    KEPT_INVALIDATIONS,
    ROW_MS,
    SHOW_EVERY_S,
    SLOT_S,
    STEPS,
    InvalidationRow,
    ProcessRow,
    Role,
    Step,
    shown_patterns,
)
from pipeline.figures.tally import Tally, delay_ms
from pipeline.settings import Settings

T = TypeVar("T")

REMEMBER_MS: Final = 6 * 3600 * 1000
"""How long Redis knows which report of a process was the last: so long it may be away in the middle of one."""
KEPT_REACHES: Final = 500


class Reach(NamedTuple):
    """A node has applied an invalidation, so long after it was published."""

    invalidation: str
    node: str
    delay_ms: float


Slots = dict[Step, dict[int, Counter[str]]]
"""Sums by step and slot. Each step has all of them."""


class Report(NamedTuple):
    """Sums that go to Redis at once, under a number of their own: sent again, they are not added again. The number 0: there are
    none, and the process only shows itself."""

    number: int
    slots: Slots
    ever: Counter[str]
    invalidations: list[InvalidationRow]
    reaches: list[Reach]


class Reporter:
    """One process's counts, which a courier tells the fleet. Thread-safe.

    What a caller may rely on: nothing here raises, and nothing waits for Redis. What was counted is added to the fleet's figures
    once: also when an answer of Redis was lost, or when Redis was away, for as long as a window reaches back by the slot it was
    counted in and later as part of the sums without an end. What a process has counted since its last report, a second or less,
    is lost if it is killed; in the windows of more than 15 minutes up to six seconds. A forked child begins from nothing.

    Slots are by the server's clock, as those of every other process.
    """

    def __init__(
        self,
        courier: Courier | None = None,
        keys: FigureKeys | None = None,
        *,
        node: str = "",
        role: Role = "producer",
        l1_entries: Callable[[], int] | None = None,
        pool: Callable[[], tuple[int, ...] | None] | None = None,
        tells: bool = True,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Becomes a passenger of `courier`, which the first record starts; without one this process counts for itself. `node`:
        the worker's id as a node (see `pipeline.cache.coherence.identity`); else the host's name. `pool`: see ProcessRow. Not
        `tells`: the courier is started all the same, for its other passengers."""
        self.courier = Courier() if courier is None else courier
        """Closed by the owner of this reporter, or at the process's end."""
        self._keys = FigureKeys("") if keys is None else keys
        self._node, self._role = node or socket.gethostname(), role
        self._l1_entries, self._pool = l1_entries, pool
        self._tells = tells
        self._clock, self._wall_clock = clock, wall_clock
        self.tally = Tally(self.courier.start if self.courier.connects else None)
        self._begin()
        _living.add(self)
        if self.courier.connects:
            _script()  # read here: a child that is forked while a thread imports could not
            self.courier.carry(self._tell)

    def _begin(self) -> None:
        self._since = self._wall_clock()
        self._process = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._slots: Slots = _no_slots()
        self._holds_since = 0
        self._ever: Counter[str] = Counter()
        self._invalidations: deque[InvalidationRow] = deque(maxlen=KEPT_INVALIDATIONS)
        self._reaches: deque[Reach] = deque(maxlen=KEPT_REACHES)
        self._under_way: Report | None = None
        self._number = 0
        # The server's clock less this process's: by its own wall clock, until the server has told the time.
        self._ahead_s = self._since - self._clock()
        self._knows_the_time = False
        self._reported_at_s = -math.inf
        self._told_row = b""

    # -- what happens

    def invalidated(self, invalidation: str, at: float, patterns: tuple[str, ...], *, durable: bool) -> None:
        """This process has published an invalidation, under an id that the nodes' `applied` will bear, at this wall time."""
        by = f"{name_of(self._node)} ({self._role} {os.getpid()})"
        row = InvalidationRow(invalidation, at, shown_patterns(patterns), len(patterns), by, durable)
        self._invalidations.append(row)  # one step, without a lock: a signal handler may invalidate in the middle of this
        self.tally.count(INVALIDATIONS)
        self.courier.start()

    def applied(self, invalidation: str, published_at: object) -> None:
        """This node serves nothing any more that the invalidation means, published at that time by its publisher's clock:
        see `delay_ms` for what that means. An older release does not say when: then nothing is noted."""
        after_ms = delay_ms(published_at, self._wall_clock())
        if after_ms is None:
            return
        self._reaches.append(Reach(invalidation, self._node, after_ms))
        self.tally.record(STALENESS, after_ms)
        self.courier.start()

    # -- reporting

    def _tell(self, connection: RedisConnection, occasion: Occasion) -> None:
        """Report what there is; with nothing to tell, when it is due, only if the last report is old, or no longer true. At the
        last occasion take this process off the list; the next record begins anew."""
        if occasion == "last":
            self.tally.rest()  # before the rest is taken: what is recorded from here on wakes the courier
        if not self._tells:
            return
        try:
            self._learn_the_time(connection)
            self._gather()
            if self._under_way is not None:
                self._send(connection, self._under_way)
                self._under_way = None
            report = self._next_report(shows=occasion != "due" or self._is_due(), all_of_it=occasion != "due")
            if report is not None:
                self._under_way = report
                self._send(connection, report)
                self._under_way = None
        except SharedTierUnavailableError:
            self._gather()  # by the slot of this moment, also what no server can be told now
            raise
        if occasion == "last":
            self._leave(connection)

    def _leave(self, connection: RedisConnection) -> None:
        try:
            self._send(connection, _EMPTY, row=b"")
        except SharedTierUnavailableError:
            return  # then the row ends by itself

    def _learn_the_time(self, connection: RedisConnection) -> None:
        if not self._knows_the_time:
            seconds, microseconds = connection.call(lambda client: client.time())
            self._ahead_s = seconds + microseconds / 1e6 - self._clock()
            self._knows_the_time = True

    def _gather(self) -> None:
        """Take what was counted into the slots of this moment. A slot too old to be read is given up."""
        fresh = self.tally.take()
        if not fresh:
            return
        at_s = self._clock() + self._ahead_s
        if not any(self._slots.values()):
            self._holds_since = self._slot_now()
        for step, slots in self._slots.items():
            add(slots.setdefault(int(at_s // step.slot_s), Counter()), fresh)
            while len(slots) > step.slots:
                del slots[min(slots)]
        add(self._ever, lasting(fresh, self._role))

    def _slot_now(self) -> int:
        return int((self._clock() + self._ahead_s) // SLOT_S)

    def _take_slots(self, *, all_of_them: bool) -> Slots:
        """What is to be told. The coarser slots wait until a slot of five seconds has ended: to add to three slots each second
        would double what a report costs the server."""
        taken = _no_slots()
        for step in STEPS if all_of_them or self._holds_since != self._slot_now() else STEPS[:1]:
            taken[step], self._slots[step] = self._slots[step], {}
        return taken

    def _is_due(self) -> bool:
        """Whether a process with nothing to count is to show itself."""
        since_s = self._clock() - self._reported_at_s
        return since_s >= SHOW_EVERY_S or (since_s >= CHANGED_EVERY_S and self._row() != self._told_row)

    def _next_report(self, *, shows: bool, all_of_it: bool) -> Report | None:
        invalidations, reaches = _drained(self._invalidations), _drained(self._reaches)
        slots = self._take_slots(all_of_them=all_of_it)
        ever, self._ever = self._ever, Counter()
        if not (any(slots.values()) or ever or invalidations or reaches):
            return _EMPTY if shows else None
        self._number += 1
        return Report(self._number, slots, ever, invalidations, reaches)

    def _send(self, connection: RedisConnection, report: Report, row: bytes | None = None) -> None:
        groups = _groups(report.slots)
        keys = [
            self._keys.applied(self._process),
            self._keys.processes,
            self._keys.row(self._process),
            self._keys.invalidations,
            self._keys.ever,
            *(self._keys.slot(number, step.slot_s) for of_group, _ in groups for step, number in of_group),
            *(self._keys.reach(reach.invalidation) for reach in report.reaches),
        ]
        row = self._row() if row is None else row
        arguments: list[Any] = [report.number, self._process, row, ROW_MS, KEEP_MS, REMEMBER_MS]
        arguments += [KEPT_INVALIDATIONS, len(report.invalidations), *map(msgspec.json.encode, report.invalidations)]
        arguments += as_arguments(report.ever)
        arguments.append(len(groups))
        for of_group, counts in groups:
            arguments += [len(of_group), *(step.keep_ms for step, _ in of_group), *as_arguments(counts)]
        arguments.append(len(report.reaches))
        for reach in report.reaches:
            arguments += [reach.node, f"{reach.delay_ms:.3f}"]
        now_ms = connection.call(lambda client: _script().run(client, keys, arguments, integer))
        self._reported_at_s = self._clock()
        self._told_row = row
        self._ahead_s = now_ms / 1000 - self._reported_at_s

    def _row(self) -> bytes:
        requests = {series: counted.count for series, counted in self.tally.snapshot().items() if series in REQUESTS}
        entries = self._l1_entries() if self._l1_entries is not None else None
        missed = self.tally.counted(MISSED)
        pool = self._pool() if self._pool is not None else None
        row = ProcessRow(self._node, os.getpid(), self._role, self._since, requests, entries, missed, pool)
        return msgspec.json.encode(row)

    def forget(self) -> None:
        """In a child that was just forked: all of it is the parent's."""
        self._begin()
        self.tally.forget()


def build_reporter(
    settings: Settings,
    courier: Courier,
    *,
    node: str,
    role: Role,
    l1_entries: Callable[[], int] | None = None,
    pool: Callable[[], tuple[int, ...] | None] | None = None,
) -> Reporter:
    """As the settings have it: one that tells nothing with figures turned off."""
    keys = FigureKeys(settings.cache_namespace)
    return Reporter(courier, keys, node=node, role=role, l1_entries=l1_entries, pool=pool, tells=settings.figures)


_living: Final[weakref.WeakSet[Reporter]] = weakref.WeakSet()


def _forget_in_child() -> None:
    for reporter in list(_living):
        reporter.forget()


os.register_at_fork(after_in_child=_forget_in_child)


_EMPTY: Final = Report(0, {}, Counter(), [], [])


def _no_slots() -> Slots:
    return {step: {} for step in STEPS}


def _groups(slots: Slots) -> list[tuple[list[tuple[Step, int]], Counter[str]]]:
    """The slots that are to get the same, with what that is: it is sent once. Looked for where there are few, as in any report
    but the first after an outage."""
    each = [((step, number), counts) for step, numbers in slots.items() for number, counts in numbers.items()]
    groups: list[tuple[list[tuple[Step, int]], Counter[str]]] = []
    for slot, counts in each:
        like = (of_group for of_group, sums in groups if sums.items() == counts.items())
        of_group = next(like, None) if len(each) <= len(STEPS) else None
        if of_group is None:
            groups.append(([slot], counts))
        else:
            of_group.append(slot)
    return groups


@cache
def _script() -> Script:
    return Script.read(__file__, "report")


def _drained(waiting: deque[T]) -> list[T]:
    """What waits, taken away one at a time: what comes meanwhile is among it or stays."""
    drained = []
    with suppress(IndexError):
        while True:
            drained.append(waiting.popleft())
    return drained

"""How a process tells the fleet what it counted: from a thread of its own, about once a second, by one script of Redis."""

from __future__ import annotations

import atexit
import math
import os
import secrets
import socket
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.locks import Lock, interrupted
from pipeline.cache.server.commands import integer
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.scripts import Script
from pipeline.figures.histogram import wide_bucket_of
from pipeline.figures.keys import FigureKeys
from pipeline.figures.records import InvalidationRow, ProcessRow, Role, shown_patterns
from pipeline.figures.tally import MISSED, REQUESTS, STALENESS, Tally, delay_ms
from pipeline.settings import Settings

T = TypeVar("T")

SLOT_S: Final = 5
SLOTS: Final = 180
"""A quarter of an hour."""
KEEP_MS: Final = 20 * 60 * 1000
"""How long Redis keeps a slot, and who applied an invalidation."""
ROW_MS: Final = 15_000
"""A process that has not reported for so long is not shown any more."""
REMEMBER_MS: Final = 6 * 3600 * 1000
"""How long Redis knows which report of a process was the last: so long it may be away in the middle of one."""
REPORT_S: Final = 1.0
IDLE_REPORT_S: Final = 5.0
KEPT_INVALIDATIONS: Final = 50
KEPT_REACHES: Final = 500
CLOSE_S: Final = 2.0
"""How long the last report may take."""


class Reach(NamedTuple):
    """A node has applied an invalidation, so long after it was published."""

    invalidation: str
    node: str
    delay_ms: float


class Report(NamedTuple):
    """What goes to Redis at once, under a number of its own: sent again, it is not added again."""

    number: int
    slots: dict[int, Counter[str]]
    ever: Counter[str]
    invalidations: list[InvalidationRow]
    reaches: list[Reach]


class Reporter:
    """One process's counts and its way to tell them. Thread-safe.

    What a caller may rely on: nothing here raises, and nothing waits for Redis but `flush` and `close`, the latter for some
    2 s at most. What was counted is added to the fleet's figures once: also when an answer of Redis was lost, or when Redis was
    away, for up to 15 minutes by the slot it was counted in and later as part of the sums without an end. What a process
    has counted since its last report, a second or less, is lost if it is killed. A forked child begins from nothing.

    Slots are by the server's clock, as are those of every other process.
    """

    def __init__(
        self,
        connect: Callable[[], RedisConnection] | None = None,
        keys: FigureKeys | None = None,
        *,
        node: str = "",
        role: Role = "producer",
        l1_entries: Callable[[], int] | None = None,
        threaded: bool = True,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`connect` makes a connection of the reporter's own: the cache and the figures do not wait for each other's breaker.
        Without it, this process counts for itself. `node`: the worker's name; else that of the host. Not `threaded`: who made it
        calls `flush` about every second, in a process that forks others and had better have no threads."""
        self._connect = connect
        self._keys = FigureKeys("") if keys is None else keys
        self._node, self._role = node or socket.gethostname(), role
        self._l1_entries = l1_entries
        self._threaded = threaded
        self._clock, self._wall_clock = clock, wall_clock
        self._tell_along: Callable[[RedisConnection, bool], None] | None = None
        self.tally = Tally(self.start if connect is not None else None)
        self._begin()
        _living.add(self)

    def _begin(self) -> None:
        self._since = self._wall_clock()
        self._process = f"{os.getpid()}-{secrets.token_hex(6)}"
        self._connection = self._connect() if self._connect is not None else None
        self._lock = Lock()  # of what follows, for moments
        self._wanted = False
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._flush_lock = Lock()  # of the way to Redis, for as long as it takes
        self._slots: dict[int, Counter[str]] = {}
        self._ever: Counter[str] = Counter()
        self._invalidations: deque[InvalidationRow] = deque(maxlen=KEPT_INVALIDATIONS)
        self._reaches: deque[Reach] = deque(maxlen=KEPT_REACHES)
        self._under_way: Report | None = None
        self._number = 0
        # The server's clock less this process's: by its own wall clock, until the server has told the time.
        self._ahead_s = self._since - self._clock()
        self._knows_the_time = False
        self._reported_at_s = -math.inf

    # -- what happens

    def invalidated(self, invalidation: str, at: float, patterns: tuple[str, ...], *, durable: bool) -> None:
        """This process has published an invalidation, under an id that the nodes' `applied` will bear, at this wall time."""
        by = f"{self._node} ({self._role} {os.getpid()})"
        row = InvalidationRow(invalidation, at, shown_patterns(patterns), len(patterns), by, durable)
        self._invalidations.append(row)  # one step, without a lock: a signal handler may invalidate in the middle of this
        self.tally.count("invalidations")
        self.start()

    def applied(self, invalidation: str, published_at: object) -> None:
        """This node serves nothing any more that the invalidation means, published at that time by its publisher's clock:
        see `delay_ms` for what that means. An older release does not say when: then nothing is noted."""
        after_ms = delay_ms(published_at, self._wall_clock())
        if after_ms is None:
            return
        self._reaches.append(Reach(invalidation, self._node, after_ms))
        self.tally.record(STALENESS, after_ms)
        self.start()

    def tell_along(self, tell: Callable[[RedisConnection, bool], None]) -> None:
        """Have that called about once a second, with the reporter's connection and whether it shall tell what there is now, as at
        the end. It may raise SharedTierUnavailableError."""
        self._tell_along = tell

    # -- reporting

    def start(self) -> None:
        """Begin to report. The first record does it; a process that is to be shown before that calls it."""
        if self._connection is None or self._thread is not None:
            return
        with self._lock:
            if self._thread is not None:
                return
            self._wanted = True
            if not self._threaded:
                self.tally.awake()
                return
            _script()  # read here: what a thread imports, a child forked at that moment could not
            thread = threading.Thread(target=self._run, args=(self._stopping,), name="figures", daemon=True)
            if self._thread is not None:  # a signal handler was here meanwhile
                return
            self._thread = thread
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending, or there can be no more threads: `close` reports
                self._thread = None
                return
            except BaseException:
                self._thread = None  # it may run or not: a second one does no harm
                raise
            self.tally.awake()
        atexit.register(self.close)

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.wait(REPORT_S):
            self.flush(idle_s=IDLE_REPORT_S)

    def flush(self, *, idle_s: float = 0.0) -> bool:
        """Report what there is, now; whether Redis has it. `idle_s`: with nothing to tell, only if the last report is so old.

        A signal handler that interrupted its thread inside the cache or the figures reports nothing.
        """
        if self._connection is None or interrupted():
            return False
        with self._flush_lock:
            try:
                self._learn_the_time(self._connection)
                self._gather()
                if self._under_way is not None:
                    self._send(self._connection, self._under_way)
                    self._under_way = None
                report = self._next_report(idle_s)
                if report is not None:
                    self._under_way = report
                    self._send(self._connection, report)
                    self._under_way = None
                if self._tell_along is not None:
                    self._tell_along(self._connection, idle_s <= 0)
            except SharedTierUnavailableError:
                self._gather()  # by the slot of this moment, also what nobody can be told now
                return False
        return True

    def close(self) -> None:
        """Report what is left and take this process off the list; the next record begins anew."""
        with self._lock:
            thread, self._thread = self._thread, None
            wanted, self._wanted = self._wanted, False
            self._stopping.set()
            self._stopping = threading.Event()
        atexit.unregister(self.close)
        self.tally.rest()
        if self._connection is None:
            return
        if thread is not None:
            thread.join(CLOSE_S)
        if wanted and self.flush():
            self._leave(self._connection)
        self._connection.close()

    def _leave(self, connection: RedisConnection) -> None:
        try:
            self._send(connection, Report(0, {}, Counter(), [], []), row=b"")
        except SharedTierUnavailableError:
            return  # then the row ends by itself

    def _learn_the_time(self, connection: RedisConnection) -> None:
        if not self._knows_the_time:
            seconds, microseconds = connection.call(lambda client: client.time())
            self._ahead_s = seconds + microseconds / 1e6 - self._clock()
            self._knows_the_time = True

    def _gather(self) -> None:
        """Take what was counted into the slot of this moment. A slot that nobody would read any more is given up."""
        fresh = self.tally.take()
        if not fresh:
            return
        number = int((self._clock() + self._ahead_s) // SLOT_S)
        _add(self._slots.setdefault(number, Counter()), fresh)
        _add(self._ever, _lasting(fresh, self._role))
        while len(self._slots) > SLOTS:
            del self._slots[min(self._slots)]

    def _next_report(self, idle_s: float) -> Report | None:
        invalidations, reaches = _drained(self._invalidations), _drained(self._reaches)
        slots, self._slots = self._slots, {}
        ever, self._ever = self._ever, Counter()
        if not (slots or ever or invalidations or reaches) and self._clock() < self._reported_at_s + idle_s:
            return None
        self._number += 1
        return Report(self._number, slots, ever, invalidations, reaches)

    def _send(self, connection: RedisConnection, report: Report, row: bytes | None = None) -> None:
        keys = [
            self._keys.applied(self._process),
            self._keys.processes,
            self._keys.row(self._process),
            self._keys.invalidations,
            self._keys.ever,
            *(self._keys.slot(number) for number in report.slots),
            *(self._keys.reach(reach.invalidation) for reach in report.reaches),
        ]
        arguments: list[Any] = [report.number, self._process, self._row() if row is None else row, ROW_MS, KEEP_MS, REMEMBER_MS]
        arguments += [KEPT_INVALIDATIONS, len(report.invalidations), *map(msgspec.json.encode, report.invalidations)]
        arguments += _fields(report.ever)
        arguments.append(len(report.slots))
        for counts in report.slots.values():
            arguments += _fields(counts)
        arguments.append(len(report.reaches))
        for reach in report.reaches:
            arguments += [reach.node, f"{reach.delay_ms:.3f}"]
        now_ms = connection.call(lambda client: _script().run(client, keys, arguments, integer))
        self._reported_at_s = self._clock()
        self._ahead_s = now_ms / 1000 - self._reported_at_s

    def _row(self) -> bytes:
        requests = {series: counted.count for series, counted in self.tally.snapshot().items() if series in REQUESTS}
        entries = self._l1_entries() if self._l1_entries is not None else None
        missed = self.tally.counted(MISSED)
        return msgspec.json.encode(ProcessRow(self._node, os.getpid(), self._role, self._since, requests, entries, missed))

    def forget(self) -> None:
        """In a child that was just forked: all of it is the parent's, its thread is not here, and its locks may be held."""
        self._begin()
        self.tally.forget()
        atexit.unregister(self.close)


def build_reporter(settings: Settings, *, node: str, role: Role, l1_entries: Callable[[], int] | None = None) -> Reporter:
    """As the settings have it: for this process alone without a shared tier, or with figures turned off. That of a `main` process
    is not threaded."""
    if not settings.cache_url or not settings.figures:
        return Reporter(node=node, role=role, l1_entries=l1_entries)

    threaded = role != "main"
    # Where nothing else goes on meanwhile, a server that is away is tried less often.
    pause_s = REPORT_S if threaded else IDLE_REPORT_S

    def connect() -> RedisConnection:
        return RedisConnection(settings.cache_url, timeout_s=settings.cache_timeout_s, retry_pause_s=pause_s, purpose="figures")

    keys = FigureKeys(settings.cache_namespace)
    return Reporter(connect, keys, node=node, role=role, l1_entries=l1_entries, threaded=threaded)


_living: Final[weakref.WeakSet[Reporter]] = weakref.WeakSet()


def _forget_in_child() -> None:
    for reporter in list(_living):
        reporter.forget()


os.register_at_fork(after_in_child=_forget_in_child)


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


def _add(to: Counter[str], more: Counter[str]) -> None:
    for field, amount in more.items():
        to[field] = max(to[field], amount) if field.startswith("max.") else to[field] + amount


def _lasting(fresh: Counter[str], role: Role) -> Counter[str]:
    """What of it is summed without an end: `n.` and `us.` as they are, `w.<series>.<wide bucket>`, and `p.<source>`, those of
    the requests that a producer counted."""
    lasting: Counter[str] = Counter()
    for field, amount in fresh.items():
        kind, _, series = field.partition(".")
        if kind in ("n", "us"):
            lasting[field] += amount
        if kind == "n" and role == "producer" and series in REQUESTS:
            lasting[f"p.{series}"] += amount
        if kind == "b":
            series, _, bucket = series.partition(".")
            lasting[f"w.{series}.{wide_bucket_of(int(bucket))}"] += amount
    return lasting


def _fields(counts: Counter[str]) -> list[Any]:
    """As the script reads them: how many, then each with its amount."""
    return [len(counts), *(part for item in counts.items() for part in item)]

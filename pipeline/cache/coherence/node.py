"""How a node keeps its bus in step with the log: by the notices, and by asking the log where they are not enough."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from pipeline.cache.coherence.bus import ASKED, NodeBus
from pipeline.cache.coherence.log import APPENDED_AT_ONCE, InvalidationLog
from pipeline.cache.coherence.registry import IDLE_BEAT_S, NodeRegistry
from pipeline.cache.coherence.tail import MAX_RECORDS, Page, Tail, page_of
from pipeline.cache.errors import InvalidPatternError, SharedTierUnavailableError
from pipeline.cache.locks import UninterruptedLock
from pipeline.cache.patterns.pattern import parse
from pipeline.cache.stats import Counters

MAX_PATTERNS: Final = 10_000
QUIET_S: Final = 10.0
"""A node is idle when none of its processes has needed the lease for so long. Much longer than a bound: one that is asked now and
then answers from L1 all the same."""


class Notice:
    """A checked notice: `patterns` took the seqs up to `seq` of the log `epoch`. Without an epoch they took none, because the
    log was out of reach."""

    __slots__ = ("epoch", "invalidation_id", "patterns", "seq")

    def __init__(self, epoch: object, seq: object, patterns: object, invalidation_id: object = None) -> None:
        """Raises ValueError for anything but text, a number, a list of patterns, and text or None."""
        if not isinstance(epoch, str) or len(epoch) > 16 or not epoch.isascii() or ":" in epoch:
            raise ValueError("epoch: expected up to 16 ASCII characters without ':'")
        if not isinstance(seq, int) or isinstance(seq, bool) or not 0 <= seq < 2**62:
            raise ValueError("seq: expected a number from 0")
        if not isinstance(patterns, list | tuple) or not 1 <= len(patterns) <= MAX_PATTERNS:
            raise ValueError(f"patterns: expected a list of 1 to {MAX_PATTERNS}")
        if invalidation_id is not None and not (isinstance(invalidation_id, str) and 1 <= len(invalidation_id) <= 64):
            raise ValueError("invalidation_id: expected up to 64 characters, or nothing")
        try:
            self.patterns = tuple(parse(pattern).text for pattern in patterns)
        except (InvalidPatternError, TypeError) as error:
            raise ValueError(str(error)) from error
        self.epoch, self.seq, self.invalidation_id = epoch, seq, invalidation_id


class NodeFollower:
    """The bus's writer, in the node's main process. Never raises because Redis is away."""

    def __init__(
        self,
        node: str,
        bus: NodeBus,
        log: InvalidationLog | None,
        registry: NodeRegistry | None,
        *,
        quiet_s: float = QUIET_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without a log (no Redis is configured) every notice is applied as it comes. Without a registry no caller waits for
        the node, and a beat reads the log. `quiet_s`: see QUIET_S."""
        self._node = node
        self._bus = bus
        self._log = log
        self._registry = registry
        self._clock = clock
        self._quiet_s = quiet_s
        self._beat_at_s = -math.inf
        self._pending: dict[str, int] = {}
        self._pending_lock = UninterruptedLock()  # in a pool of threads the timer and the consumer are two threads
        self.counters = Counters("notices", "in_step", "gaps", "volatile", "malformed", "out_of_reach")

    def receive(self, epoch: object, seq: object, patterns: object, invalidation_id: object = None) -> Notice | None:
        """Apply a notice. A malformed one is counted and gives None."""
        try:
            notice = Notice(epoch, seq, patterns, invalidation_id)
        except ValueError:
            self.counters.add("malformed")
            return None
        self.counters.add("notices")
        self._apply(notice)
        if notice.invalidation_id is not None and self._registry is not None:
            try:
                self._registry.acknowledge(notice.invalidation_id, self._node)
            except SharedTierUnavailableError:
                self.counters.add("out_of_reach")
        return notice

    def hear(self, page: Page | None) -> None:
        """Apply what was just appended to the log, as its server tells it; see Listener."""
        tail = self._bus.tail
        if page is None or tail is None or page.tail.epoch != tail.epoch or page.after > tail.seq:
            self.catch_up()
        elif page.tail.seq > tail.seq:
            self._bus.publish(page)

    def _apply(self, notice: Notice) -> None:
        tail = self._bus.tail
        if self._log is None or not notice.epoch:
            self.counters.add("volatile")
            self._publish_volatile(notice.patterns)
        elif tail is not None and tail.epoch == notice.epoch and notice.seq <= tail.seq:
            self.counters.add("in_step")  # the log, or another message, was faster
        elif tail is not None and tail.epoch == notice.epoch and notice.seq - len(notice.patterns) == tail.seq:
            self.counters.add("in_step")
            self._follow(notice, tail)
        else:
            self.counters.add("gaps")
            if not self.catch_up():
                # The log cannot say which records are between. These patterns at least are known.
                self._publish_volatile(notice.patterns)

    def _publish_volatile(self, patterns: tuple[str, ...]) -> None:
        count = self._bus.publish_volatile(patterns)
        if self._log is None:
            self._bus.settle_volatile(count)
        else:
            # Their maker may be gone when Redis is back.
            with self._pending_lock:
                self._pending |= dict.fromkeys(patterns, count)
                if len(self._pending) > MAX_RECORDS:
                    self._pending = {"*": count}

    def _append_pending(self, log: InvalidationLog) -> None:
        """Append the patterns that were heard while the log was out of reach. The bus tells the children when to drop them: once
        they know them from the log."""
        with self._pending_lock:
            pending = dict(self._pending)
        if not pending:
            return
        texts = tuple(pending)
        for at in range(0, len(texts), APPENDED_AT_ONCE):
            log.append(texts[at : at + APPENDED_AT_ONCE])
        if not self.catch_up():
            return
        self._bus.settle_volatile(max(pending.values()))
        with self._pending_lock:
            # Keeps patterns that another thread has added since.
            self._pending = dict(item for item in self._pending.items() if pending.get(item[0]) != item[1])

    def _follow(self, notice: Notice, tail: Tail) -> None:
        records = [(text, tail.seq + number) for number, text in enumerate(notice.patterns, start=1)]
        self._bus.publish(page_of(tail._replace(seq=notice.seq), records, after=tail.seq, restart=False))

    def beat_if_due(self, every_s: float) -> None:
        """Beat, unless the node is idle and has beaten lately. To be called every `every_s`, which is half of the staleness bound
        or less.

        While no process of the node reads, none needs the lease. It runs out, so that the first one to read asks Redis; that one
        says so on the bus, and the beats go on.
        """
        now_s = self._clock()
        idle = not self._pending and now_s - self._bus.seconds[ASKED] >= self._quiet_s
        # To the nearest call: `every_s` may be as long as the pause, and a timer is not exact.
        if not idle or now_s - self._beat_at_s >= IDLE_BEAT_S - every_s / 2:
            self.beat()

    def beat(self) -> bool:
        """Record that the node is alive, and see whether the log moved without a notice. Returns whether Redis could be asked.

        It makes up for a lost notice and renews the lease.
        """
        if self._log is None:
            return False
        if self._registry is None:
            self._beat_at_s = self._clock()
            return self.catch_up()
        asked_at_s = self._clock()
        try:
            self._append_pending(self._log)
            seen = self._registry.beat(self._node)
        except SharedTierUnavailableError:
            self.counters.add("out_of_reach")
            return False
        self._beat_at_s = asked_at_s
        tail = self._bus.tail
        if tail is None or seen is None or not seen.startswith(tail.mark):
            return self.catch_up()
        self._bus.publish(page_of(tail, [], after=tail.seq, restart=False), asked_at_s)
        return True

    def leave(self, bound_s: float) -> None:
        """The main process ends: no caller waits for this node for longer than its children may serve, a staleness bound."""
        if self._registry is not None:
            with suppress(SharedTierUnavailableError):  # then it is forgotten like a node that was killed, after 10 s
                self._registry.leave(self._node, bound_s)

    def catch_up(self) -> bool:
        """Bring the bus up to the log. Returns whether Redis could be asked."""
        if self._log is None:
            return False
        asked_at_s = self._clock()
        try:
            self._bus.publish(self._log.read_since(self._bus.tail), asked_at_s)
        except SharedTierUnavailableError:
            self.counters.add("out_of_reach")
            return False
        return True

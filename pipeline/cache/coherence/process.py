"""How a process learns of invalidations, and makes them. The protocol and its proof: docs/coherence.md."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Callable
from typing import Final, NamedTuple

from pipeline.cache.coherence.bus import ASKED, SETTLED, VERSION, NodeBus
from pipeline.cache.coherence.listener import Listener
from pipeline.cache.coherence.log import APPENDED_AT_ONCE, InvalidationLog
from pipeline.cache.coherence.registry import NodeRegistry, settle_s
from pipeline.cache.coherence.tail import Page, Tail, page_of
from pipeline.cache.coherence.view import InvalidationView
from pipeline.cache.entry import AsOf
from pipeline.cache.errors import SharedTierUnavailableError

logger: Final = logging.getLogger(__name__)

APPENDING_S: Final = 0.1
"""How long the next reader is held up by it, at most: the rest is held against L2's entries until it is appended."""

# The words of a process without a bus: they never change.
NO_WORDS: Final = memoryview(bytes(8 * (SETTLED + 1))).cast("q")


class Invalidation(NamedTuple):
    """An invalidation that was made. Its patterns took the seqs up to `seq` of the log `epoch`.

    `durable` is false when Redis was out of reach (or none is configured): the invalidation holds in this process and where the
    broadcast reaches, and is appended when Redis is back. `applied` and `silent`: the nodes that acknowledged within the time to
    wait, and those alive that did not, each by its name, or by `name/pid` where several share one. `announced`: whether a notice
    to the nodes is known to be sent; else they learn of it from the log, within the staleness bound.
    """

    patterns: tuple[str, ...]
    epoch: str
    seq: int
    durable: bool
    applied: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    announced: bool = False


Announce = Callable[[Invalidation, str | None], bool]
"""Called for every invalidation made here, with the id to acknowledge it by if the caller waits. Returns whether the nodes were
told. Must not raise."""


class Coherence:
    """The log, this process's view of it, the node's bus, and the lease that follows from them. Thread-safe.

    For the hottest path: while `words[VERSION] == version` and the time is before `lease_ends_at_s`, `leased` would be true.
    """

    def __init__(
        self,
        log: InvalidationLog,
        registry: NodeRegistry | None,
        *,
        bound_s: float,
        bus: NodeBus | None,
        announce: Announce | None,
        clock: Callable[[], float],
    ) -> None:
        """`registry`: of the nodes that share the log; None for a log of this process alone."""
        self.log = log
        self.bound_s = bound_s
        self.announce = announce
        self.view = InvalidationView()
        self._clock = clock
        self._registry = registry
        self._shared = registry is not None
        if not self._shared:
            self.view.apply(log.read_since(None), math.inf)  # no other process appends: it is confirmed for ever
        self._bus = bus
        self.words = bus.words if bus is not None else NO_WORDS
        self.version = -1 if bus is not None else 0
        """The bus's version that the view has followed, and for which `lease_ends_at_s` holds."""
        self.lease_ends_at_s = -math.inf
        self._volatile_seen = self.words[SETTLED]
        self._contacts = log.contacts
        self.listener: Listener | None = None
        """Begun by the first read from L2, unless the node's main process writes the bus; ended by its owner."""

    # -- knowing

    def leased(self, now_s: float) -> bool:
        """Whether L1 may serve by the view as it is. Without the lease, a frozen or cut-off process would serve for ever."""
        version = self.version
        if self.words[VERSION] != version:
            self._need(now_s)  # each beat is another version: a node whose processes read beats on
            followed = self._follow()
            if followed is None:
                return False
            version = followed
        self.lease_ends_at_s = self.view.confirmed_at_s + self.bound_s
        self.version = version  # last: another thread takes the lease to be this version's
        if now_s < self.lease_ends_at_s:
            return True
        self._need(now_s)
        return False

    def _need(self, now_s: float) -> None:
        """Tell the node's main process that the lease is needed here: it beats rarely while no process needs it."""
        if self._bus is not None:
            self._bus.seconds[ASKED] = now_s

    def _follow(self) -> int | None:
        """Take the bus's news into the view. Returns the bus's version, or None when the bus lacks some of them, so that Redis
        must be asked."""
        state = self._bus.read(self.view.known, self._volatile_seen) if self._bus is not None else None
        if state is None:
            return None
        if state.volatile and not self._shared:
            # A log of this process alone: no other process appends to it.
            self.log.append(state.volatile)
            self.view.apply(self.log.read_since(self.view.known), math.inf)
        elif state.volatile:
            self.view.hear(state.volatile, state.volatile_count)  # the node's main process appends them
        self._volatile_seen = max(self._volatile_seen, state.volatile_count)
        if state.page is not None:
            if not self.view.apply(state.page, state.confirmed_at_s):
                return None  # another thread has taken the view elsewhere
            self.view.settle_heard(state.settled_count)
        elif not state.empty:
            return None
        return state.version

    def as_of(self) -> AsOf:
        """The log's known position, after a look at the log if the lease has run out: else an invalidation that another process
        has made since would void the result of the computation when it is there."""
        if not self.leased(self._clock()):
            self.refresh()
        return self.view.as_of()

    def refresh(self) -> bool:
        """Catch up with the log and renew the lease. Returns whether Redis could be asked."""
        try:
            self.append_pending()
            self._read_log()
        except SharedTierUnavailableError:
            return False
        return True

    def catch_up(self, tail: bytes | None, asked_at_s: float) -> bool:
        """Bring the view to a tail that was read, having asked for it at that moment. Returns whether the view can judge the
        entries that came with the tail, and will not be taken to another log that was asked before; it cannot when another
        thread has taken it elsewhere. Raises SharedTierUnavailableError.

        After a new connection the log itself is asked, whatever the tail: the address may lead to another server, which lacks
        records that the one before had acknowledged. The log's epoch tells."""
        if self.listener is not None and not self.listener.begun and (self._bus is None or self._bus.tail is None):
            self.listener.begin()
        if self.log.contacts == self._contacts and self.view.confirm(tail, asked_at_s):
            return True
        self._read_log(asked_at_s)
        # The moment first: a view that is confirmed by then goes to no log that was asked before, between here and the judgement.
        return self.view.confirmed_at_s >= asked_at_s and self.view.covers(tail)

    def hear(self, page: Page | None) -> None:
        """Take in what was just appended, as the log's server tells it. It confirms nothing. The log is read where the page is
        not the next one, and asked for nothing while no entry was read that would have to be judged."""
        if self.view.known is None or (page is not None and self.view.apply(page, -math.inf)):
            return
        try:
            self._read_log()
        except SharedTierUnavailableError:
            return  # the lease runs out, or the next read learns of it

    def _read_log(self, asked_at_s: float | None = None) -> None:
        """`asked_at_s`: when the log was asked, if an earlier moment than now will do."""
        if asked_at_s is None:
            asked_at_s = self._clock() if self._shared else math.inf
        contacts = self.log.contacts
        page = self.log.read_since(self.view.known)
        # Not by a page that came too late: the view has learned nothing of the server that gave it.
        if self.view.apply(page, asked_at_s, self._clock()):
            self._contacts = contacts  # from before: a connection that was made for this reading may belong to another reader

    # -- invalidating

    def invalidate(self, patterns: tuple[str, ...], wait_s: float) -> Invalidation:
        """Append (from here on it holds for every read from L2), tell the nodes, apply it here, and wait for them if asked."""
        asked_at_s = self._clock() if self._shared else math.inf
        try:
            self.append_pending()
            tail = self.log.append(patterns)
        except SharedTierUnavailableError:
            self.view.pend(patterns)
            known = self.view.as_of()
            return self._tell(Invalidation(patterns, known.epoch, known.seq, durable=False), None)
        done = Invalidation(patterns, tail.epoch, tail.seq, durable=self._shared)
        waits = wait_s > 0 and self._registry is not None and self.announce is not None
        invalidation_id = secrets.token_hex(8) if waits else None
        # Before it is applied here: the caller goes on after both, and the other nodes need not wait.
        done = self._tell(done, invalidation_id)
        self._learn_own(patterns, tail, asked_at_s)
        if invalidation_id is None or self._registry is None:
            return done
        applied, silent = self._registry.wait(invalidation_id, wait_s, settle_s=settle_s(self.bound_s))
        return done._replace(applied=tuple(applied), silent=tuple(silent), announced=done.announced or bool(applied))

    def _learn_own(self, patterns: tuple[str, ...], tail: Tail, asked_at_s: float) -> None:
        """Take the own records into the view. The log is asked only where other processes have appended since the last look."""
        here = self.view.tail
        if here.epoch == tail.epoch and here.seq >= tail.seq:
            self.view.apply(page_of(tail, [], after=tail.seq, restart=False), asked_at_s)  # the listener was faster
        elif here.epoch == tail.epoch and here.seq == tail.seq - len(patterns):
            records = [(text, here.seq + number) for number, text in enumerate(patterns, start=1)]
            self.view.apply(page_of(tail, records, after=here.seq, restart=False), asked_at_s)
        elif self._shared and self.view.known is None:
            # No entry was read yet that would have to be judged, so that the log can wait until one is.
            self.view.begin_at(tail, asked_at_s, self._clock())
        elif not self.refresh():
            self.view.pend(patterns)  # it holds elsewhere; here too from now on, and once more when Redis is back

    def append_pending(self) -> None:
        """Append the pending patterns, or as many of them as fit into `APPENDING_S`. Raises SharedTierUnavailableError."""
        if not self.view.pending_first(1):
            return
        ends_at_s = self._clock() + APPENDING_S
        while pending := self.view.pending_first(APPENDED_AT_ONCE):
            tail = self.log.append(tuple(pending))
            self._read_log()
            # First known from the log, then no longer pending: in between another thread would serve entries that neither
            # voids. If another thread has taken the view elsewhere, they are appended once more at the next turn.
            if not self.view.covers(bytes(tail)):
                return
            self.view.settle(pending)
            logger.info("cache.pending_appended", extra={"patterns": len(pending)})
            if self._clock() >= ends_at_s:
                return

    def _tell(self, done: Invalidation, invalidation_id: str | None) -> Invalidation:
        if self.announce is None:
            return done
        return done._replace(announced=self.announce(done, invalidation_id))

"""How a process knows what was invalidated, and how it invalidates. The protocol and its proof: docs/coherence.md."""

from __future__ import annotations

import logging
import math
import secrets
import struct
from collections.abc import Callable
from typing import Final, NamedTuple

from pipeline.cache.bus import CONFIRMED, SETTLED, STAMP, VERSION, BusState, NodeBus
from pipeline.cache.entry import AsOf
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.log import InvalidationLog
from pipeline.cache.nodes import NodeRegistry
from pipeline.cache.view import InvalidationView

logger: Final = logging.getLogger(__name__)

# What a process without a bus reads in its place: one that never changes and never confirms anything.
NO_WORDS: Final = memoryview(bytes(8 * 9)).cast("q")
NO_SECONDS: Final = memoryview(struct.pack("9d", *[-math.inf] * 9)).cast("d")


class Invalidation(NamedTuple):
    """An invalidation that was made. Its patterns took the seqs up to `seq` of the log `epoch`.

    `durable` is false when Redis was out of reach (or none is configured): it holds in this process and where the broadcast
    reaches, and is appended when Redis is back. `applied` and `silent`: the nodes that have said so within the time to wait, and
    those alive that have not. `announced`: whether a notice to the nodes is known to be sent; else they learn of it from the
    log, within the staleness bound.
    """

    patterns: tuple[str, ...]
    epoch: str
    seq: int
    durable: bool
    applied: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    announced: bool = False


Announce = Callable[[Invalidation, str | None], bool]
"""Told of every invalidation made here, with the id to acknowledge it by if anybody waits; whether the nodes were told. Must
not raise."""


class Coherence:
    """The log, this process's view of it, the node's bus, and the lease that follows from them. Thread-safe.

    For the hottest path: while `words[STAMP] == stamp` and the time is before `lease_ends_at_s`, `leased` would say yes.
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
        """`registry`: of the nodes that share the log; None for a log of this process's own."""
        self.log = log
        self.bound_s = bound_s
        self.announce = announce
        self.view = InvalidationView()
        self._clock = clock
        self._registry = registry
        self._shared = registry is not None
        if not self._shared:
            self.view.apply(log.read_since(None), math.inf)  # nobody else appends: it is confirmed for ever
        self._bus = bus
        self.words = bus.words if bus is not None else NO_WORDS
        self._seconds = bus.seconds if bus is not None else NO_SECONDS
        self.version = -1 if bus is not None else 0  # the bus's version up to which the view has followed it
        self.stamp = -1
        self.lease_ends_at_s = -math.inf  # as it was when the bus bore that stamp; it may have been renewed since
        self._volatile_seen = self.words[SETTLED]

    # -- knowing

    def leased(self, now_s: float) -> bool:
        """Whether L1 may serve by what is known. Without the lease, a frozen or cut-off process would serve for ever."""
        if self.words[STAMP] == self.stamp and now_s < self.lease_ends_at_s:
            return True
        # In this order, the reverse of the writer's: what is read here vouches for no more than is followed below.
        stamp = self.words[STAMP]
        confirmed_at_s = self._seconds[CONFIRMED]
        if self.words[VERSION] != self.version:
            state = self._follow()
            if state is None:
                return False
            confirmed_at_s = state.confirmed_at_s
        self.lease_ends_at_s = max(confirmed_at_s, self.view.confirmed_at_s) + self.bound_s
        self.stamp = stamp
        return now_s < self.lease_ends_at_s

    def _follow(self) -> BusState | None:
        """Take what is new on the bus into the view; None when it cannot be had from there, so that Redis must be asked."""
        state = self._bus.read(self.view.known, self._volatile_seen) if self._bus is not None else None
        if state is None:
            return None
        if state.volatile:
            self.view.pend(state.volatile)
            self._volatile_seen = state.volatile_count
            if not self._shared:
                self.append_pending()
        if state.page is not None:
            self.view.apply(state.page, state.confirmed_at_s)
        elif not state.empty:
            return None
        self.version = state.version
        return state

    def as_of(self) -> AsOf:
        """What is known now, after a look at the log if the lease has run out: else what others have invalidated since would
        void the computation's result when it is there."""
        if not self.leased(self._clock()):
            self.refresh()
        return self.view.as_of()

    def refresh(self) -> bool:
        """Catch up with the log and renew the lease; whether Redis could be asked."""
        asked_at_s = self._clock() if self._shared else math.inf
        try:
            self.append_pending()
            self.view.apply(self.log.read_since(self.view.known), asked_at_s)
        except SharedTierUnavailableError:
            return False
        return True

    def catch_up(self, tail: bytes | None, asked_at_s: float) -> bool:
        """Bring the view to a tail that was read, having asked for it at that moment; whether it can judge what was read with
        it. It cannot when another thread has taken it to another epoch. Raises SharedTierUnavailableError."""
        if self.view.confirm(tail, asked_at_s):
            return True
        self.view.apply(self.log.read_since(self.view.known), asked_at_s)
        return self.view.covers(tail)

    # -- invalidating

    def invalidate(self, patterns: tuple[str, ...], wait_s: float) -> Invalidation:
        """Append (from here on it holds for every read from L2), tell the nodes, apply it here, and wait for them if asked."""
        expected = self._nodes_to_wait_for(wait_s)
        try:
            self.append_pending()
            tail = self.log.append(patterns)
        except SharedTierUnavailableError:
            self.view.pend(patterns)
            known = self.view.as_of()
            return self._tell(Invalidation(patterns, known.epoch, known.seq, durable=False), None)
        done = Invalidation(patterns, tail.epoch, tail.seq, durable=self._shared)
        invalidation_id = secrets.token_hex(8) if expected else None
        # Before it is applied here: the caller goes on after both, the others need not wait.
        done = self._tell(done, invalidation_id)
        if not self.refresh():
            self.view.pend(patterns)  # it holds elsewhere; here too from now on, and once more when Redis is back
        if invalidation_id is None or self._registry is None:
            return done
        applied, silent = self._registry.wait(invalidation_id, expected, wait_s)
        return done._replace(applied=tuple(applied), silent=tuple(silent), announced=done.announced or bool(applied))

    def append_pending(self) -> None:
        """Append first what could not be appended when it was asked for: nothing is read from L2 before that.

        Raises SharedTierUnavailableError.
        """
        pending = self.view.pending
        if not pending:
            return
        tail = self.log.append(tuple(pending))
        asked_at_s = self._clock() if self._shared else math.inf
        self.view.apply(self.log.read_since(self.view.known), asked_at_s)
        # First known from the log, then no longer pending: in between another thread would serve what is neither. If another
        # thread has taken the view elsewhere, it is appended once more at the next turn.
        if self.view.covers(bytes(tail)):
            self.view.settle(pending)
            logger.info("cache.pending_appended", extra={"patterns": len(pending)})

    def _nodes_to_wait_for(self, wait_s: float) -> list[str]:
        if wait_s <= 0 or self._registry is None or self.announce is None:
            return []
        try:
            return self._registry.alive()
        except SharedTierUnavailableError:
            return []

    def _tell(self, done: Invalidation, invalidation_id: str | None) -> Invalidation:
        if self.announce is None:
            return done
        return done._replace(announced=self.announce(done, invalidation_id))

"""A caller's way to what the fleet has for its key: the value, or the lease by which to compute it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from pipeline.cache.coherence.process import Coherence
from pipeline.cache.entry import AsOf
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.flight.claims import Claim
from pipeline.cache.flight.leases import Lease, Leases, Taken
from pipeline.cache.flight.waits import Flight
from pipeline.cache.stats import Counters

FIRST_PAUSE_S: Final = 0.002
LONGEST_PAUSE_S: Final = 0.1
PAUSE_GROWTH: Final = 1.5


class Outcome(NamedTuple):
    """The outcome of a computation. `found`, `payload` and `codec` are opaque here. `deps`: all that it depends on, including
    the keys that its own deps were computed from. `lasting`: whether a caller that asks for the key a moment later finds a usable
    entry in the shared tier. `as_of`: from before its first input was read, if that is known here. Without a codec it is its
    caller's alone: a value that could not be kept."""

    found: Any
    payload: bytes
    codec: Any
    deps: tuple[str, ...]
    lasting: bool = True
    as_of: AsOf | None = None


Probe = Callable[[Taken | None, int], Outcome | None]


class Waiting(Protocol):
    """How long a caller waits for the fleet, by which clock, and whom it tells that it has waited so long."""

    wait_s: float
    now_s: Callable[[], float]

    def waited_out(self, key: str, waited_s: float, on: str) -> None: ...


class Seeking:
    """A leader's way to what the fleet has for its key, one look at a time. Thread-safe as little as its leader is."""

    def __init__(
        self,
        single: Waiting,
        leases: Leases,
        coherence: Coherence,
        counters: Counters,
        flight: Flight,
        probe: Probe,
        deadline_s: float,
        unread: bool,
    ) -> None:
        """`unread`: the caller has not looked into the shared tier."""
        self._single = single
        self._leases = leases
        self._coherence = coherence
        self._counters = counters
        self._flight = flight
        self._probe = probe
        self._deadline_s = deadline_s
        self._pause_s = FIRST_PAUSE_S
        self._in_vain = 0
        self._unless_there = unread
        self._owner = ""
        self._heard = ""
        self.waited = False
        """Whether it has waited for another process."""
        self.lease: Lease | None = None
        """The lease that was granted, and must be given back."""

    def look(self) -> Outcome | Lease | float | None:
        """An outcome that the fleet has; the lease under which to compute; None: to compute without one; or for how long to wait
        before the next look, in seconds."""
        leases, flight = self._leases, self._flight
        self._owner = ""
        try:
            self._coherence.append_pending()
            generation = self._coherence.view.generation_of_reads
            asked_at_s = self._single.now_s()
            claimed = flight.learn(self._coherence)
            taken = leases.take(flight.key, claimed, unless_there=self._unless_there)
            judged = self._coherence.catch_up(taken.tail, asked_at_s)
        except SharedTierUnavailableError:
            # Each process for itself until Redis is back. Another thread may have ended its flight meanwhile.
            return self._probe(None, self._coherence.view.generation)
        found = self._probe(taken, generation) if judged else None
        if found is not None:
            if taken.lease is not None:
                leases.give_back(taken.lease)
            if self.waited:
                self._counters.add("joined")
            return found
        if taken.held is None and taken.lease is None:
            self._unless_there = False  # an entry was to be enough, and will not do: by its time, or by records that are newer
            return 0.0
        if taken.held is not None:
            if self.waited and taken.held.in_vain > self._in_vain:
                # The awaited computation brought nothing to share. Waiting for the next could go on so: each for itself.
                return None
            self._in_vain = taken.held.in_vain
        self.lease = self._lease(taken, claimed, generation) if judged else taken.lease
        if self.lease is not None:
            return self.lease
        remaining_s = self._deadline_s - self._single.now_s()
        if remaining_s <= 0:
            self._single.waited_out(flight.key, self._single.wait_s, "another process")
            return None
        self.waited = True
        self._owner = taken.held.owner if taken.held is not None and taken.held.owner != self._heard else ""
        pause_s, self._pause_s = self._pause_s, min(LONGEST_PAUSE_S, self._pause_s * PAUSE_GROWTH)
        # Not all at the same moment: callers that began to wait together would ask together.
        return min(remaining_s, pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - guards nothing

    def wait(self, pause_s: float, sleep: Callable[[float], None]) -> Outcome | None:
        """For a thread: wait before the next look. For the owner that was found, if that can be: what it has computed comes with
        its end, and is the outcome if it will do."""
        if self.may_hear:
            return self.hear()
        sleep(pause_s)
        return None

    @property
    def may_hear(self) -> bool:
        """Whether the last look found an owner that is at work, of whom the server tells when it is done."""
        return bool(self._owner) and self._leases.hears_ends

    def hear(self) -> Outcome | None:
        """Wait for that owner, in the place of a pause; see `wait`."""
        owner = self._owner
        generation = self._coherence.view.generation_of_reads
        wait_s = LONGEST_PAUSE_S * random.uniform(0.5, 1.0)  # noqa: S311 - as in `look`
        try:
            told = self._leases.await_end(owner, min(wait_s, max(0.0, self._deadline_s - self._single.now_s())))
        except SharedTierUnavailableError:
            return None  # the next look says what is to be done
        if told is None:
            return None
        self._heard = owner  # it will not tell once more
        entry, tail = told
        # By what the look before has read of the log, which was after the caller had asked: as a join, and not as a read. Where
        # the log has gone on since, another look sees whether the owner's value is of use to anybody.
        if not entry or not tail or not self._coherence.view.covers(tail):
            return None
        found = self._probe(Taken(None, None, entry, tail), generation)
        if found is not None:
            self._counters.add("joined")
        return found

    def _lease(self, taken: Taken, claimed: AsOf, generation: int) -> Lease | None:
        """The lease, if the caller has it or may take it over: from an owner that is no longer at work, or that knew too little,
        so that its result is invalid already. None: another owner is at work, or was faster."""
        own, flight = taken.lease, self._flight
        held = taken.held if own is None else Claim.of(own.owner, claimed)
        if held is None:
            return None
        knew = AsOf(held.epoch, held.seq, generation)
        if not held.given_back and self._coherence.view.valid(knew, flight.key, flight.deps):
            return own
        try:
            # Also from itself: the caller has learned more by taking it, and no other would wait for a computation by less.
            lease = self._leases.take_over(flight.key, held, flight.learn(self._coherence))
        except SharedTierUnavailableError:
            return None
        if lease is not None and own is None and not held.given_back:
            self._counters.add("taken_over")
        return lease

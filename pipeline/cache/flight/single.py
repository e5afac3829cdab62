"""One computation a key: among the threads of this process, then in the fleet."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from pipeline.cache.coherence.process import Coherence
from pipeline.cache.entry import AsOf
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.flight.claims import Claim
from pipeline.cache.flight.leases import Lease, Leases, Taken
from pipeline.cache.flight.waits import WAITS, Flight
from pipeline.cache.locks import Lock, begins_anew_in_children, interrupted
from pipeline.cache.stats import Counters

FIRST_PAUSE_S: Final = 0.002
LONGEST_PAUSE_S: Final = 0.1
PAUSE_GROWTH: Final = 1.5


class Outcome(NamedTuple):
    """The outcome of a computation. `found`, `payload` and `codec` are opaque here. `deps`: all that it depends on, including
    the keys that its own deps were computed from. `lasting`: whether a caller that asks for the key a moment later finds a usable
    entry in the shared tier. `as_of`: from before its first input was read, if that is known here."""

    found: Any
    payload: bytes
    codec: Any
    deps: tuple[str, ...]
    lasting: bool = True
    as_of: AsOf | None = None


Probe = Callable[[Taken | None, int], Outcome | None]
Compute = Callable[[AsOf], Outcome]


class SingleFlight:
    """Lets one caller compute. The others share the outcome, but only if nothing was invalidated between the computation's first
    input and their asking. Thread-safe.

    An error of the computation is raised in every thread of this process that waited for it. Other processes do not learn of it:
    those that waited compute at once, each for itself, as they do after any computation that brought nothing to share. No caller
    waits longer than `wait_s` for the fleet, nor twice that for another thread of this process; then it computes for itself. So
    do, at once, a thread that asks for the key that it is computing and one that was interrupted inside the cache. Threads whose
    computations need each other's get a CyclicComputationError. Among processes no such circle is detected: `wait_s` ends it.
    """

    def __init__(
        self,
        coherence: Coherence,
        leases: Leases | None,
        counters: Counters,
        *,
        strict: bool,
        wait_s: float,
        clock: Callable[[], float],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`leases`: None where no tier is shared. `counters` has joined, taken_over and waited_out. `strict`: do not join
        another thread's computation while the log cannot be read."""
        self._coherence = coherence
        self._leases = leases
        self._counters = counters
        self._strict = strict
        self._wait_s = wait_s
        self._clock = clock
        self._sleep = sleep
        self._lock = Lock()
        self._flights: dict[str, Flight] = {}
        begins_anew_in_children(self)

    def begin_anew(self) -> None:
        """In a child that was just forked: the threads that led or awaited these flights are not here."""
        self._flights = {}

    def run(
        self,
        key: str,
        deps: tuple[str, ...],
        as_of: AsOf | None,
        probe: Probe,
        compute: Compute,
        *,
        asked_at_s: float,
    ) -> tuple[Outcome, bool]:
        """The outcome, and whether another caller's computation brought it.

        `probe` makes an outcome of the entry that was found in the shared tier, given the generation from before it was read; or,
        without a Taken, of an entry at hand here. It returns None when that entry will not do. `compute` computes and keeps the
        value, given what was known before: `as_of`, or what is known when it begins. `asked_at_s`: when the caller asked. Another
        thread's computation will do if the log, read since then, says nothing against it.
        """
        while True:
            mine = Flight(key, deps, as_of)

            def begin(mine: Flight = mine) -> Outcome:
                return compute(mine.learn(self._coherence))

            try:
                flight = self._board(mine, asked_at_s)
                if flight is mine:
                    mine.outcome, joined = self._lead(mine, probe, begin)
                    return mine.outcome, joined
            except Exception as error:
                mine.failure = error
                raise
            finally:
                try:
                    self._land(mine)
                finally:
                    self._land(mine)  # a signal may have raised in the first call
            if flight is None:
                return begin(), False
            if interrupted():
                return begin(), False  # the flight's thread may be waiting for the section that this one was interrupted in
            with WAITS.waiting(flight):
                ended = flight.wait(2 * self._wait_s)
            if not ended:
                self._counters.add("waited_out")
                return begin(), False
            if flight.failure is not None:
                raise flight.failure
            outcome = flight.outcome
            # Before the flight ended it was not known from which keys its deps were computed.
            if outcome is not None and self._coherence.view.valid(flight.as_of, key, outcome.deps):
                self._counters.add("joined")
                return outcome, True
            # The flight's thread was stopped for a reason of its own: try again.

    def _board(self, mine: Flight, asked_at_s: float) -> Flight | None:
        """The flight to wait for, or `mine` to lead; None for a computation that asks for its own key."""
        while True:
            mine.learn(self._coherence)
            with self._lock:
                flight = self._flights.setdefault(mine.key, mine)
            if flight is mine:
                return mine
            if flight.thread == mine.thread:
                return None
            if self._joinable(flight, mine.deps, asked_at_s):
                return flight
            mine.learn(self._coherence)
            with self._lock:
                if self._flights.get(mine.key) is flight:
                    self._flights[mine.key] = mine  # other callers that may not join that flight wait for this one
                    return mine

    def _joinable(self, flight: Flight, deps: tuple[str, ...], asked_at_s: float) -> bool:
        """Whether no invalidation that returned before the caller asked voids the flight's outcome."""
        view = self._coherence.view
        if view.confirmed_at_s <= asked_at_s:
            # The caller has not read the log: L1 had an entry that would not do, or was not asked.
            if self._coherence.refresh():
                if view.confirmed_at_s < asked_at_s:
                    return False  # another thread has taken the view elsewhere
            elif self._strict:
                return False
        return view.valid(flight.as_of, flight.key, deps if deps == flight.deps else flight.deps + deps)

    def _land(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            with self._lock:
                if self._flights.get(flight.key) is flight:  # a caller that may not join it has put its own in its place
                    del self._flights[flight.key]
        flight.end()

    def _lead(self, flight: Flight, probe: Probe, compute: Callable[[], Outcome]) -> tuple[Outcome, bool]:
        if self._leases is None:
            return self._alone(probe, compute), False
        return self._lead_in_fleet(self._leases, flight, probe, compute)

    def _alone(self, probe: Probe, compute: Callable[[], Outcome]) -> Outcome:
        # Another thread may have ended its flight after this one had looked and before it boarded.
        found = probe(None, self._coherence.view.generation)
        return found if found is not None else compute()

    def _lead_in_fleet(
        self, leases: Leases, flight: Flight, probe: Probe, compute: Callable[[], Outcome]
    ) -> tuple[Outcome, bool]:
        deadline_s = self._clock() + self._wait_s
        pause_s = FIRST_PAUSE_S
        waited, in_vain = False, 0
        while True:
            try:
                self._coherence.append_pending()
                generation = self._coherence.view.generation_of_reads
                asked_at_s = self._clock()
                claimed = flight.learn(self._coherence)
                taken = leases.take(flight.key, claimed)
                judged = self._coherence.catch_up(taken.tail, asked_at_s)
            except SharedTierUnavailableError:
                return self._alone(probe, compute), False  # each process for itself until Redis is back
            found = probe(taken, generation) if judged else None
            if found is not None:
                if taken.lease is not None:
                    leases.give_back(taken.lease)
                if waited:
                    self._counters.add("joined")
                return found, waited
            if taken.held is not None:
                if waited and taken.held.in_vain > in_vain:
                    # The awaited computation brought nothing to share. Waiting for the next could go on so: each for itself.
                    return compute(), False
                in_vain = taken.held.in_vain
            lease = self._lease(leases, flight, taken, claimed, generation) if judged else taken.lease
            if lease is not None:
                return self._compute_leased(leases, lease, compute), False
            remaining_s = deadline_s - self._clock()
            if remaining_s <= 0:
                self._counters.add("waited_out")
                return compute(), False
            if interrupted():
                return compute(), False  # as above: the lease's owner may be a thread of this process
            waited = True
            # Not all at the same moment: callers that began to wait together would ask together.
            self._sleep(min(remaining_s, pause_s * random.uniform(0.5, 1.0)))  # noqa: S311 - guards nothing
            pause_s = min(LONGEST_PAUSE_S, pause_s * PAUSE_GROWTH)

    def _lease(self, leases: Leases, flight: Flight, taken: Taken, claimed: AsOf, generation: int) -> Lease | None:
        """The lease, if the caller has it or may take it over: from an owner that is no longer at work, or that knew too little,
        so that its result is invalid already. None: another owner is at work, or was faster."""
        own = taken.lease
        held = taken.held if own is None else Claim.of(own.owner, claimed)
        if held is None:
            return None
        knew = AsOf(held.epoch, held.seq, generation)
        if not held.given_back and self._coherence.view.valid(knew, flight.key, flight.deps):
            return own
        try:
            # Also from itself: the caller has learned more by taking it, and no other would wait for a computation by less.
            lease = leases.take_over(flight.key, held, flight.learn(self._coherence))
        except SharedTierUnavailableError:
            return None
        if lease is not None and own is None and not held.given_back:
            self._counters.add("taken_over")
        return lease

    def _compute_leased(self, leases: Leases, lease: Lease, compute: Callable[[], Outcome]) -> Outcome:
        in_vain = False  # also for a thread that is stopped for a reason of its own: one of the waiting callers takes over
        try:
            with leases.kept(lease):
                outcome = compute()
            in_vain = not outcome.lasting
        except Exception:
            in_vain = True
            raise
        finally:
            leases.give_back(lease, in_vain=in_vain)
        return outcome

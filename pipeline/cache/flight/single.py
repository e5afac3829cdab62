"""One computation a key: among the threads of this process, then in the fleet."""

from __future__ import annotations

import logging
import random
import sys
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from pipeline.cache.coherence.process import Coherence
from pipeline.cache.entry import AsOf
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.flight.claims import Claim
from pipeline.cache.flight.computation import Computation
from pipeline.cache.flight.leases import Lease, Leases, Taken
from pipeline.cache.flight.waits import NO_THREAD, WAITS, Flight
from pipeline.cache.locks import Lock, begins_anew_in_children, interrupted
from pipeline.cache.stats import Counters

FIRST_PAUSE_S: Final = 0.002
LONGEST_PAUSE_S: Final = 0.1
PAUSE_GROWTH: Final = 1.5

logger: Final = logging.getLogger(__name__)


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
Compute = Callable[[AsOf], Outcome]


class SingleFlight:
    """Lets one caller compute. The others share the outcome, but only if nothing was invalidated between the computation's first
    input and their asking. Thread-safe.

    An error of the computation is raised in every thread of this process that waited for it. Other processes do not learn of
    it: those that waited compute at once, each for itself, as they do after any computation that brought nothing to share. No
    caller waits longer than `wait_s` for the fleet, nor twice that for another thread of this process; then it computes for
    itself. So do, at once, a thread that asks for the key that it is computing, one that was interrupted inside the cache, and
    one that blocks the event loop whose task computes. Threads and tasks whose computations need each other's get a
    CyclicComputationError. Among processes no such circle is detected: `wait_s` ends it, and the log says what was waited for.
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
        self.leases = leases
        self._counters = counters
        self._strict = strict
        self.wait_s = wait_s
        """How long a caller waits for the fleet."""
        self.now_s = clock
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
        computation: Computation | None = None,
    ) -> tuple[Outcome, bool]:
        """The outcome, and whether another caller's computation brought it.

        `probe` makes an outcome of the entry that was found in the shared tier, given the generation from before it was read; or,
        without a Taken, of an entry at hand here. It returns None when that entry will not do. `compute` computes and keeps the
        value, given what was known before: `as_of`, or what is known when it begins. `asked_at_s`: when the caller asked. Another
        thread's computation will do if the log, read since then, says nothing against it. `computation`: where `compute` notes
        what it reads; what a failed one had read that this caller waited for is noted there, too.
        """
        while True:
            mine = Flight(key, deps, as_of, computation)
            try:
                flight = self.board(mine, asked_at_s)
                if flight is mine:
                    mine.outcome, joined = self._lead(mine, probe, compute)
                    return mine.outcome, joined
            except Exception as error:
                mine.failure = error
                raise
            finally:
                try:
                    self.land(mine)
                finally:
                    self.land(mine)  # a signal may have raised in the first call
            if flight is None or _in_this_loop(flight):
                return compute(mine.learn(self._coherence)), False
            if interrupted():
                # The flight's thread may be waiting for the section that this one was interrupted in.
                return compute(mine.learn(self._coherence)), False
            with WAITS.waiting(flight):
                ended = flight.wait(2 * self.wait_s)
            if not ended:
                self.waited_out(key, 2 * self.wait_s, "a thread of this process")
                return compute(mine.learn(self._coherence)), False
            outcome = self.outcome_of(flight, mine)
            if outcome is not None:
                return outcome, True
            # The flight's thread was stopped for a reason of its own: try again.

    def outcome_of(self, flight: Flight, mine: Flight) -> Outcome | None:
        """What a flight has brought that has ended, for a caller that waited for it; None if that will not do. Raises the error
        of its computation."""
        if flight.failure is not None:
            mine.computation.note_all_of(flight.computation)
            raise flight.failure
        outcome: Outcome | None = flight.outcome
        # Before the flight ended it was not known from which keys its deps were computed.
        if outcome is None or not self._coherence.view.valid(flight.as_of, flight.key, outcome.deps):
            return None
        self._counters.add("joined")
        return outcome

    def count_joined(self) -> None:
        """Count a caller that has the outcome of another's computation."""
        self._counters.add("joined")

    def waited_out(self, key: str, waited_s: float, on: str) -> None:
        """Count and tell that a caller has waited as long as it may, and now computes for itself."""
        self._counters.add("waited_out")
        logger.warning("cache.waited_out: %r: %g s for %s, which still computes it; it is computed here, too", key, waited_s, on)

    def board(self, mine: Flight, asked_at_s: float) -> Flight | None:
        """The flight to wait for, or `mine` to lead; None for a computation that asks for its own key."""
        while True:
            mine.learn(self._coherence)
            with self._lock:
                flight = self._flights.setdefault(mine.key, mine)
            if flight is mine:
                return mine
            if flight.thread == mine.thread != NO_THREAD:
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

    def land(self, flight: Flight) -> None:
        if self._flights.get(flight.key) is flight:
            with self._lock:
                if self._flights.get(flight.key) is flight:  # a caller that may not join it has put its own in its place
                    del self._flights[flight.key]
        flight.end()

    def _lead(self, flight: Flight, probe: Probe, compute: Compute) -> tuple[Outcome, bool]:
        if self.leases is None:
            # Another thread may have ended its flight after this one had looked and before it boarded.
            found = probe(None, self._coherence.view.generation)
            return (compute(flight.learn(self._coherence)) if found is None else found), False
        seeking = self.seek(flight, probe)
        while isinstance(step := seeking.look(), float):
            if interrupted():
                step = None  # as above: the lease's owner may be a thread of this process
                break
            self._sleep(step)
        if isinstance(step, Outcome):
            return step, seeking.waited
        if step is None:
            return compute(flight.learn(self._coherence)), False
        return self._compute_leased(self.leases, step, flight, compute), False

    def seek(self, flight: Flight, probe: Probe) -> Seeking:
        """The way of that flight to an outcome that the fleet has, or to the lease. There must be leases."""
        assert self.leases is not None  # noqa: S101 - as the docstring says
        return Seeking(self, self.leases, self._coherence, self._counters, flight, probe, self.now_s() + self.wait_s)

    def _compute_leased(self, leases: Leases, lease: Lease, flight: Flight, compute: Compute) -> Outcome:
        in_vain = False  # also for a thread that is stopped for a reason of its own: one of the waiting callers takes over
        try:
            with leases.kept(lease):
                outcome = compute(flight.learn(self._coherence))
            in_vain = not outcome.lasting
        except Exception:
            in_vain = True
            raise
        finally:
            leases.give_back(lease, in_vain=in_vain)
        return outcome


class Seeking:
    """A leader's way to what the fleet has for its key, one look at a time. Thread-safe as little as its leader is."""

    def __init__(
        self,
        single: SingleFlight,
        leases: Leases,
        coherence: Coherence,
        counters: Counters,
        flight: Flight,
        probe: Probe,
        deadline_s: float,
    ) -> None:
        self._single = single
        self._leases = leases
        self._coherence = coherence
        self._counters = counters
        self._flight = flight
        self._probe = probe
        self._deadline_s = deadline_s
        self._pause_s = FIRST_PAUSE_S
        self._in_vain = 0
        self.waited = False
        """Whether it has waited for another process."""
        self.lease: Lease | None = None
        """The lease that was granted, and must be given back."""

    def look(self) -> Outcome | Lease | float | None:
        """An outcome that the fleet has; the lease under which to compute; None: to compute without one; or for how long to wait
        before the next look, in seconds."""
        leases, flight = self._leases, self._flight
        try:
            self._coherence.append_pending()
            generation = self._coherence.view.generation_of_reads
            asked_at_s = self._single.now_s()
            claimed = flight.learn(self._coherence)
            taken = leases.take(flight.key, claimed)
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
        pause_s, self._pause_s = self._pause_s, min(LONGEST_PAUSE_S, self._pause_s * PAUSE_GROWTH)
        # Not all at the same moment: callers that began to wait together would ask together.
        return min(remaining_s, pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - guards nothing

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


def _in_this_loop(flight: Flight) -> bool:
    """Whether the flight is led by a task of the event loop that runs in this thread, which it would wait for in vain."""
    if flight.loop is None:
        return False
    asyncio = sys.modules["asyncio"]  # there is a loop
    return bool(asyncio._get_running_loop() is flight.loop)  # noqa: SLF001 - the one call that raises nothing without a loop

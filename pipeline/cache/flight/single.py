"""One computation a key: among the threads of this process, then in the fleet."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Final

from pipeline.cache.coherence.process import Coherence
from pipeline.cache.entry import AsOf
from pipeline.cache.flight.computation import Computation
from pipeline.cache.flight.leases import Lease, Leases
from pipeline.cache.flight.seeking import Outcome, Probe, Seeking
from pipeline.cache.flight.waits import NO_THREAD, WAITS, Flight
from pipeline.cache.locks import Lock, begins_anew_in_children, interrupted
from pipeline.cache.stats import Counters

logger: Final = logging.getLogger(__name__)


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
        unread: bool = False,
    ) -> tuple[Outcome, bool]:
        """The outcome, and whether another caller's computation brought it.

        `probe` makes an outcome of the entry that was found in the shared tier, given the generation from before it was read; or,
        without a Taken, of an entry at hand here. It returns None when that entry will not do. `compute` computes and keeps the
        value, given what was known before: `as_of`, or what is known when it begins. `asked_at_s`: when the caller asked. Another
        thread's computation will do if the log, read since then, says nothing against it. `computation`: where `compute` notes
        what it reads; what a failed one had read that this caller waited for is noted there, too. `unread`: the caller has not
        looked into the shared tier, and the first look is to do both: read there, and take the lease if nothing is there.
        """
        while True:
            mine = Flight(key, deps, as_of, computation)
            try:
                flight = self.board(mine, asked_at_s)
                if flight is mine:
                    mine.outcome, joined = self._lead(mine, probe, compute, unread=unread)
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

    def _lead(self, flight: Flight, probe: Probe, compute: Compute, *, unread: bool) -> tuple[Outcome, bool]:
        if self.leases is None:
            # Another thread may have ended its flight after this one had looked and before it boarded.
            found = probe(None, self._coherence.view.generation)
            return (compute(flight.learn(self._coherence)) if found is None else found), False
        seeking = self.seek(flight, probe, unread=unread)
        while isinstance(step := seeking.look(), float):
            if interrupted():
                step = None  # as above: the lease's owner may be a thread of this process
                break
            if (told := seeking.wait(step, self._sleep)) is not None:
                return told, True
        if isinstance(step, Outcome):
            return step, seeking.waited
        if step is None:
            return compute(flight.learn(self._coherence)), False
        return self._compute_leased(self.leases, step, flight, compute), False

    def seek(self, flight: Flight, probe: Probe, *, unread: bool = False) -> Seeking:
        """The way of that flight to an outcome that the fleet has, or to the lease. There must be leases. `unread`: see `run`."""
        assert self.leases is not None  # noqa: S101 - as the docstring says
        ends_s = self.now_s() + self.wait_s
        return Seeking(self, self.leases, self._coherence, self._counters, flight, probe, ends_s, unread)

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


def _in_this_loop(flight: Flight) -> bool:
    """Whether the flight is led by a task of the event loop that runs in this thread, which it would wait for in vain."""
    if flight.loop is None:
        return False
    asyncio = sys.modules["asyncio"]  # there is a loop
    return bool(asyncio._get_running_loop() is flight.loop)  # noqa: SLF001 - the one call that raises nothing without a loop

"""One computation a key: among the threads of this process, then in the fleet."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from pipeline.cache.coherence import Coherence
from pipeline.cache.entry import AsOf
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.leases import Leases, Taken
from pipeline.cache.stats import Counters

Outcome = Any  # what a computation brings; opaque here
Probe = Callable[[Taken | None, int], Outcome | None]

FIRST_PAUSE_S: Final = 0.002
LONGEST_PAUSE_S: Final = 0.1
PAUSE_GROWTH: Final = 1.5


class _Flight:
    """A computation that runs in this process."""

    __slots__ = ("as_of", "outcome", "thread")

    def __init__(self, as_of: AsOf) -> None:
        self.as_of = as_of
        self.thread = threading.get_ident()
        self.outcome: Future[Outcome] = Future()


class SingleFlight:
    """Lets one caller compute and the others have the outcome, which is theirs only if nothing was invalidated between the
    computation's first input and their asking. Thread-safe.

    An error of the computation is raised in every thread of this process that waited for it. Other processes do not learn of
    it: the next of them computes. Nobody waits for longer than `wait_s` on the fleet, nor twice that on another thread of this
    process; then he computes for himself. A thread that asks for what it is computing itself computes it.
    """

    def __init__(
        self,
        coherence: Coherence,
        leases: Leases | None,
        counters: Counters,
        *,
        wait_s: float,
        clock: Callable[[], float],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`leases`: None where no tier is shared. `counters` has joined, taken_over and waited_out."""
        self._coherence = coherence
        self._leases = leases
        self._counters = counters
        self._wait_s = wait_s
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._flights: dict[str, _Flight] = {}

    def run(
        self,
        key: str,
        deps: tuple[str, ...],
        as_of: AsOf,
        probe: Probe,
        compute: Callable[[], Outcome],
        *,
        since_s: float = -math.inf,
    ) -> tuple[Outcome, bool]:
        """The outcome, and whether another caller's computation brought it.

        `probe` makes an outcome of what the shared tier was found to have, given the generation from before it was read, or
        without it of what is at hand here; None when that will not do. `compute` computes and keeps the value. `since_s`: another
        thread's computation will do only if the log was read since then: else what was invalidated meanwhile is not known.
        """
        while True:
            flight, leads = self._board(key, deps, as_of, since_s)
            if flight is None:
                return compute(), False
            if leads:
                return self._lead(key, deps, flight, probe, compute)
            try:
                outcome = flight.outcome.result(2 * self._wait_s)
            except TimeoutError as error:
                if flight.outcome.done() and flight.outcome.exception() is error:
                    raise  # the computation's own
                self._counters.add("waited_out")
                return compute(), False
            if outcome is not None:
                self._counters.add("joined")
                return outcome, True
            # Its thread was stopped, by what concerns that thread alone.

    def _board(self, key: str, deps: tuple[str, ...], as_of: AsOf, since_s: float) -> tuple[_Flight | None, bool]:
        """The flight to wait for, or to lead; none for a computation that asks for its own key."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                if flight.thread == threading.get_ident():
                    return None, False
                view = self._coherence.view
                if view.confirmed_at_s >= since_s and view.valid(flight.as_of, key, deps):
                    return flight, False
            mine = self._flights[key] = _Flight(as_of)
            return mine, True

    def _lead(
        self, key: str, deps: tuple[str, ...], flight: _Flight, probe: Probe, compute: Callable[[], Outcome]
    ) -> tuple[Outcome, bool]:
        outcome, failure = None, None
        try:
            if self._leases is None:
                outcome, joined = self._alone(probe, compute), False
            else:
                outcome, joined = self._lead_in_fleet(self._leases, key, deps, flight.as_of, probe, compute)
        except Exception as error:
            failure = error
            raise
        finally:
            with self._lock:
                if self._flights.get(key) is flight:  # a thread that may not join this one has put its own in its place
                    del self._flights[key]
            if failure is not None:
                flight.outcome.set_exception(failure)
            else:
                flight.outcome.set_result(outcome)
        return outcome, joined

    def _alone(self, probe: Probe, compute: Callable[[], Outcome]) -> Outcome:
        # Another thread may have ended its flight after this one had looked and before it boarded.
        found = probe(None, self._coherence.view.generation)
        return found if found is not None else compute()

    def _lead_in_fleet(
        self,
        leases: Leases,
        key: str,
        deps: tuple[str, ...],
        as_of: AsOf,
        probe: Probe,
        compute: Callable[[], Outcome],
    ) -> tuple[Outcome, bool]:
        deadline_s = self._clock() + self._wait_s
        pause_s = FIRST_PAUSE_S
        waited = False
        while True:
            try:
                self._coherence.append_pending()
                generation = self._coherence.view.generation_of_reads
                asked_at_s = self._clock()
                taken = leases.take(key, as_of)
                judged = self._coherence.catch_up(taken.tail, asked_at_s)
            except SharedTierUnavailableError:
                return self._alone(probe, compute), False  # each for himself until it is back
            lease = taken.lease
            found = probe(taken, generation) if judged else None
            if found is not None:
                if lease is not None:
                    leases.give_back(lease)
                if waited:
                    self._counters.add("joined")
                return found, waited
            if lease is None and taken.held is not None:
                since = AsOf(taken.held.epoch, taken.held.seq, generation)
                if judged and not self._coherence.view.valid(since, key, deps):
                    # What its owner computes is invalid already: waiting for it would end in a miss.
                    try:
                        lease = leases.take_over(key, taken.held, as_of)
                    except SharedTierUnavailableError:
                        return compute(), False
                    self._counters.add("taken_over", int(lease is not None))
            if lease is not None:
                with leases.kept(lease):
                    return compute(), False
            remaining_s = deadline_s - self._clock()
            if remaining_s <= 0:
                self._counters.add("waited_out")
                return compute(), False
            waited = True
            # Not all at the same moment: those who began to wait together would ask together.
            self._sleep(min(remaining_s, pause_s * random.uniform(0.5, 1.0)))  # noqa: S311 - guards nothing
            pause_s = min(LONGEST_PAUSE_S, pause_s * PAUSE_GROWTH)

"""Which computations and threads of this process wait for which, in any of its caches: a circle of waits would never end."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from pipeline.cache.coherence.process import Coherence
from pipeline.cache.entry import AsOf
from pipeline.cache.errors import CyclicComputationError
from pipeline.cache.flight.computation import Computation, computing
from pipeline.cache.locks import Lock, begins_anew_in_children

_NOTHING: Final = AsOf("", 0)
NO_THREAD: Final = 0
"""In place of the thread of a flight that a task of an event loop leads. No thread has this number."""


class Bell(Protocol):
    """What wakes one that waits for a flight."""

    def release(self) -> object: ...


class Flight:
    """A computation that runs in this process, led by the thread that created this object, or by a task of an event loop.

    Its leader sets `outcome` or `failure`, if it gets that far, and calls `end` in every case. No thread holds a lock while it
    waits: a signal handler may do anything in the middle of a wait.
    """

    def __init__(
        self,
        key: str,
        deps: tuple[str, ...],
        as_of: AsOf | None,
        computation: Computation | None = None,
        loop: object | None = None,
    ) -> None:
        """`as_of`: the log's known position before the computation's first input was read; None: it has read none. `loop`: the
        event loop whose task leads."""
        self.key = key
        self.deps = deps
        self.as_of = _NOTHING if as_of is None else as_of
        self._has_begun = as_of is not None
        self.computation = Computation(key, None) if computation is None else computation
        self.loop = loop
        self.thread = threading.get_ident() if loop is None else NO_THREAD
        self.outcome: Any = None
        self.failure: Exception | None = None
        self.ended = False
        self._bells: list[Bell] = []
        self.computes_as: str | None = None
        """The name of where it computes, if anybody watches."""

    def learn(self, coherence: Coherence) -> AsOf:
        """The knowledge that it computes by: until it begins, all that is known now."""
        if not self._has_begun:
            self.as_of = coherence.as_of()
        return self.as_of

    def end(self) -> None:
        """Wake all that wait. A second call does nothing."""
        self.ended = True
        while self._bells:
            self._bells.pop().release()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the flight has ended. Returns whether it did within that time."""
        bell = threading.Lock()
        bell.acquire()
        return self.ring(bell) or bell.acquire(timeout=timeout_s)

    def ring(self, bell: Bell) -> bool:
        """Have the bell released when the flight ends; whether it has ended already."""
        self._bells.append(bell)
        # In this order, the reverse of `end`: one that comes too late to be woken sees that the flight has ended.
        return self.ended


_Owner = int | Computation


class Waits:
    """The flights that each thread of a process waits for, and each computation, also by what it needs: several where a signal
    handler interrupted a wait, or where a computation has helpers."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._flights: dict[_Owner, tuple[Flight, ...]] = {}
        begins_anew_in_children(self)

    def begin_anew(self) -> None:
        self._flights = {}

    @contextmanager
    def waiting(self, flight: Flight, thread: int | None = None) -> Iterator[None]:
        """Within the block the caller waits for that flight: this thread, or none but its computation (NO_THREAD). Raises
        CyclicComputationError if the flight's leader waits, directly or through others, for a flight of the caller's."""
        mine = self._owners(threading.get_ident() if thread is None else thread)
        circle: tuple[Flight, ...] | None = ()
        try:
            with self._lock:
                circle = self._way_back(flight, mine)
                if circle is None:
                    _add(self._flights, mine, flight)
            if circle is not None:
                keys = " -> ".join(repr(each.key) for each in (circle[-1], *circle))
                raise CyclicComputationError(f"computations that need each other: {keys}")
            yield
        finally:
            if circle is None:
                with self._lock:
                    _take_out(self._flights, mine, flight)

    @staticmethod
    def _owners(thread: int) -> tuple[_Owner, ...]:
        running = computing()
        line: Iterable[Computation] = () if running is None else running.line()
        return (*line,) if thread == NO_THREAD else (thread, *line)

    def _way_back(self, flight: Flight, mine: tuple[_Owner, ...]) -> tuple[Flight, ...] | None:
        """The way from that flight, over the flights that each leader waits for, to one of the caller's; None if there is
        none."""
        ways: list[tuple[Flight, ...]] = [(flight,)]
        seen = {id(flight)}
        while ways:
            way = ways.pop()
            last = way[-1]
            if last.ended:
                continue  # those that still wait for it are being woken
            if last.thread in mine or last.computation in mine:
                return way
            for following in (*self._flights.get(last.thread, ()), *self._flights.get(last.computation, ())):
                if id(following) not in seen:
                    seen.add(id(following))
                    ways.append((*way, following))
        return None


def _add(flights: dict[_Owner, tuple[Flight, ...]], owners: tuple[_Owner, ...], flight: Flight) -> None:
    for owner in owners:
        flights[owner] = (*flights.get(owner, ()), flight)


def _take_out(flights: dict[_Owner, tuple[Flight, ...]], owners: tuple[_Owner, ...], flight: Flight) -> None:
    for owner in owners:
        held = flights.get(owner, ())
        # One of them, should it be there twice: two helpers of one computation may wait for the same flight.
        at = next((number for number, each in enumerate(held) if each is flight), None)
        left = held if at is None else held[:at] + held[at + 1 :]
        if left:
            flights[owner] = left
        else:
            flights.pop(owner, None)


WAITS: Final = Waits()
"""One for the process: a circle may lead through several caches."""

"""One computation a key among the tasks of event loops, beside the threads and the fleet: `SingleFlight.run`, awaited."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from pipeline.cache.aio.desk import Desk
from pipeline.cache.coherence.process import Coherence
from pipeline.cache.entry import MISS, AsOf
from pipeline.cache.flight.asking import Asking
from pipeline.cache.flight.computation import COMPUTING, LIVE
from pipeline.cache.flight.leases import Lease
from pipeline.cache.flight.seeking import Outcome, Seeking
from pipeline.cache.flight.single import SingleFlight
from pipeline.cache.flight.waits import NO_THREAD, WAITS, Flight
from pipeline.cache.tiers import Found


class Brought(NamedTuple):
    """What was found, and the outcome from which a further caller makes a value of its own, if it came of a computation."""

    found: Found
    outcome: Outcome | None


class Leader:
    """One look for a key, by a task of its own: no caller's end is its end."""

    def __init__(
        self,
        desk: Desk,
        single: SingleFlight,
        coherence: Coherence,
        asking: Asking,
        as_of: AsOf | None,
        stale_age_s: float | None,
    ) -> None:
        """`stale_age_s`: None to have the value computed anew, whatever the tiers have."""
        self._desk = desk
        self._single = single
        self._coherence = coherence
        self._asking = asking
        self._as_of = as_of
        self._stale_age_s = stale_age_s
        self._seeking: Seeking | None = None
        self.begins: Callable[[], object] = lambda: None
        """Called as the look begins, in whatever thread."""

    async def lead(self) -> Brought:
        """Find the value, or have it from another's computation, or compute it."""
        while True:
            loop = asyncio.get_running_loop()
            mine = Flight(self._asking.key, self._asking.wanted_deps, self._as_of, self._asking.computation, loop)
            try:
                way = await self._desk.run(partial(self._begin, mine))
                if isinstance(way, Found):
                    return Brought(way, None)
                if not isinstance(way, Flight):
                    outcome, joined = await self._as_leader(mine, way)
                    mine.outcome = outcome
                    found = outcome.found
                    if joined:
                        found = Found(found.value, "joined", found.degraded, found.deps)
                    return Brought(found, outcome)
            except Exception as error:
                mine.failure = error
                raise
            finally:
                self._single.land(mine)
            if (brought := await self._with_others(way, mine)) is not None:
                return brought

    async def apart(self) -> Brought:
        """Find the value, or compute it, whatever others do."""
        if self._stale_age_s is not None:
            found = await self._desk.run(partial(self._asking.look, self._stale_age_s))
            if found is not MISS:
                return Brought(found, None)
        return await self.alone()

    async def alone(self) -> Brought:
        """Compute it, whatever others do."""
        mine = Flight(self._asking.key, (), self._as_of, self._asking.computation, asyncio.get_running_loop())
        await self._desk.run(partial(mine.learn, self._coherence))
        outcome = await self._compute(mine, None)
        return Brought(outcome.found, outcome)

    def _begin(self, mine: Flight) -> Found | Flight | Outcome | Lease | float | None:
        """In a thread: what the tiers have; or the flight to wait for; or, for one that leads, a first look at the fleet."""
        asking, single = self._asking, self._single
        asked_at_s = asking.asked_at_s
        if asked_at_s is None:
            self.begins()
            asked_at_s = single.now_s()
            asking.looks_from(asked_at_s)
            if self._stale_age_s is not None:
                found = asking.look(self._stale_age_s, asked_at_s)
                if found is not MISS:
                    return found
        flight = single.board(mine, asked_at_s)
        if flight is not None and flight is not mine:
            return flight
        if single.leases is None:
            return asking.probe(None, self._coherence.view.generation)
        self._seeking = single.seek(mine, asking.probe)
        return self._seeking.look()

    async def _as_leader(self, mine: Flight, step: Outcome | Lease | float | None) -> tuple[Outcome, bool]:
        seeking = self._seeking
        try:
            while isinstance(step, float) and seeking is not None:
                if (told := await self._waited(seeking, step)) is not None:
                    return told, True
                step = await self._desk.run(seeking.look)
            if isinstance(step, Outcome):
                return step, seeking is not None and seeking.waited
            return await self._compute(mine, step if isinstance(step, Lease) else None), False
        finally:
            lease = None if seeking is None else seeking.lease
            if lease is not None and seeking is not None and self._single.leases is not None:
                # Taken, and not given back by the computation: the task was cancelled before it began.
                seeking.lease = None
                if sys.exc_info()[0] is not GeneratorExit:  # thrown away with its loop: the lease runs out
                    await self._desk.run(partial(self._single.leases.give_back, lease))

    async def _waited(self, seeking: Seeking, pause_s: float) -> Outcome | None:
        """`Seeking.wait`, awaited: in a thread, if one is free for it."""
        if seeking.may_hear:
            with self._desk.waiting() as has_place:
                if has_place:
                    return await self._desk.run(seeking.hear, waits=True)
        await asyncio.sleep(pause_s)
        return None

    async def _compute(self, mine: Flight, lease: Lease | None) -> Outcome:
        asking, leases = self._asking, self._single.leases
        known = mine.as_of  # learned as the look ended; nothing was read since
        if lease is None or leases is None:
            return await self._desk.run(partial(asking.keep, await self._awaited(), known))
        in_vain = False  # also for a task that is cancelled: one of the waiting callers takes over
        try:
            with leases.kept(lease):
                value = await self._awaited()
                outcome = await self._desk.run(partial(asking.keep, value, known))
            in_vain = not outcome.lasting
        except Exception:
            in_vain = True
            raise
        finally:
            if self._seeking is not None:
                self._seeking.lease = None
            if sys.exc_info()[0] is not GeneratorExit:
                await self._desk.run(partial(leases.give_back, lease, in_vain=in_vain))
        return outcome

    async def _awaited(self) -> Any:
        running = self._asking.computation
        token = COMPUTING.set(running)
        LIVE.add(running)
        self._asking.begin()
        try:
            return await self._asking.compute()
        finally:
            running.end()
            LIVE.discard(running)
            if sys.exc_info()[0] is not GeneratorExit:  # thrown away: its context is gone, and this is another one
                COMPUTING.reset(token)

    async def _with_others(self, flight: Flight, mine: Flight) -> Brought | None:
        """What another's computation brings; None to try again."""
        bell = _Bell(asyncio.get_running_loop())
        most_s = 2 * self._single.wait_s
        with WAITS.waiting(flight, NO_THREAD):
            if not flight.ring(bell):
                await asyncio.wait((bell.rung,), timeout=most_s)
        if not flight.ended:
            self._single.waited_out(mine.key, most_s, "a task or thread of this process")
            return await self.alone()
        outcome = self._single.outcome_of(flight, mine)
        if outcome is None:
            return None
        if outcome.codec is self._asking.codec:
            found = self._asking.brought(outcome)
        else:
            found = await self._desk.run(partial(self._asking.brought, outcome))
        return await self.alone() if found is MISS else Brought(found, outcome)


class _Bell:
    """Wakes a task of a loop, from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.rung: asyncio.Future[None] = loop.create_future()

    def release(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._ring)
        except RuntimeError:
            return  # the loop is closed, and nobody waits there

    def _ring(self) -> None:
        if not self.rung.done():
            self.rung.set_result(None)

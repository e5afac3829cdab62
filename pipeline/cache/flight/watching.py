"""The cache's steps beyond L1, as a watcher is told of them. Bound when a cache is made: without a watcher nothing is looked up,
and with one a hit of L1 is what it is without."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, Protocol

from pipeline.cache.entry import MISS

Note = Callable[[str, Any], None]


class Told(Protocol):
    """A step that goes on."""

    def note(self, name: str, value: Any) -> None: ...


class Watcher(Protocol):
    """Is told of steps. Neither raises nor waits, and is called by any thread."""

    def step(self, name: str) -> AbstractContextManager[Told]:
        """A step of the calling thread: within the block it goes on."""

    def owner(self) -> str | None:
        """The name of a lease that the calling thread takes, if it is to tell others where its owner computes."""

    def carried(self, call: Callable[[], Any]) -> Callable[[], Any]:
        """That call, to be made by another thread within the step that goes on in the calling one."""

    def joins(self, owner: str) -> None:
        """The calling thread waits for the owner of that name."""


def watch(watcher: Watcher, tiers: Any, single: Any, filling: Any) -> None:
    """Tell the watcher of the steps of these parts, which are a cache's, from now on."""
    bind(tiers, "_lookup_beyond", lambda call: _noting(watcher, "cache.lookup", call, _tier))
    bind(tiers, "lookup_many", lambda call: _noting(watcher, "cache.lookup", call, _how_many))
    bind(single, "run", lambda call: _flight(watcher, call))
    bind(single, "board", lambda call: _boarding(watcher, call))
    bind(filling, "store", lambda call: _noting(watcher, "cache.store", call, _nothing))
    if (leases := single.leases) is not None:
        bind(leases, "take", lambda call: _noting(watcher, "cache.lease", call, _lease))
        bind(leases, "await_end", lambda call: _awaiting(watcher, call))
        leases.owner = watcher.owner


def bind(part: object, name: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Have that part's call of that name go through what `around` makes of it."""
    setattr(part, name, around(getattr(part, name)))


def _noting(watcher: Watcher, name: str, call: Callable[..., Any], came_of: Callable[[Any, Note], None]) -> Callable[..., Any]:
    @wraps(call)
    def watched(*args: Any, **options: Any) -> Any:
        with watcher.step(name) as told:
            came = call(*args, **options)
            came_of(came, told.note)
            return came

    return watched


def _flight(watcher: Watcher, run: Callable[..., Any]) -> Callable[..., Any]:
    """One computation a key: `cache.flight`, within which it is computed, or waited for."""

    @wraps(run)
    def watched(key: str, deps: Any, as_of: Any, probe: Any, compute: Callable[..., Any], **options: Any) -> tuple[Any, bool]:
        with watcher.step("cache.flight") as told:
            computed = _noting(watcher, "cache.compute", compute, _nothing)
            outcome, joined = run(key, deps, as_of, probe, computed, **options)
            told.note("cache.joined", joined)
            return outcome, joined

    return watched


def _boarding(watcher: Watcher, board: Callable[..., Any]) -> Callable[..., Any]:
    """A flight of this process bears the name of where it computes, for those that wait for it."""

    @wraps(board)
    def watched(mine: Any, asked_at_s: float) -> Any:
        mine.computes_as = watcher.owner()
        flight = board(mine, asked_at_s)
        if flight is not None and flight is not mine and flight.computes_as is not None:
            watcher.joins(flight.computes_as)
        return flight

    return watched


def _awaiting(watcher: Watcher, await_end: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(await_end)
    def watched(owner: str, wait_s: float) -> Any:
        with watcher.step("cache.await") as told:
            watcher.joins(owner)
            came = await_end(owner, wait_s)
            told.note("cache.told", came is not None)
            return came

    return watched


def _tier(found: Any, note: Note) -> None:
    note("cache.source", "none" if found is MISS else found.source)
    if found is not MISS and found.degraded:
        note("cache.degraded", True)


def _how_many(found: Any, note: Note) -> None:
    note("cache.found", len(found))


def _lease(taken: Any, note: Note) -> None:
    note("cache.lease", "taken" if taken.lease is not None else "held" if taken.held is not None else "none")


def _nothing(_came: Any, _note: Note) -> None:
    return None

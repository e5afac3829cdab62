"""The cache with one part of its protocol taken out, to show that the checker would see it. Each mutant changes the classes of
the process that it is called in."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable
from typing import Any, Final

from pipeline.cache import AsOf, TwoTierCache
from pipeline.cache.coherence import NO_WORDS
from pipeline.cache.flight import SingleFlight
from pipeline.cache.follower import NodeFollower
from pipeline.cache.log import RedisInvalidationLog
from pipeline.cache.tail import Page, Tail
from pipeline.cache.tiers import Tiers
from pipeline.cache.view import InvalidationView

STAGE_MUTANT: Final = "as_of_of_the_last_stage"
"""This one is in how the cache is used: a response is computed without the `as_of` from before its routing was read."""


def no_lease() -> None:
    """L1 serves what it has for as long as nobody tells it better."""
    _after_init(lambda cache: setattr(cache._coherence, "bound_s", math.inf))


def no_validation() -> None:
    """What a tier holds is served without being judged."""
    _replace(InvalidationView, "valid", lambda *_: True)


def as_of_after_the_computation() -> None:
    """An entry counts as new as the moment at which it was stored."""
    store: Callable[..., Any] = Tiers._store

    def late(cache: Tiers, *given: Any) -> Any:
        return store(cache, *(cache._view.as_of() if isinstance(part, AsOf) else part for part in given))

    _replace(Tiers, "_store", late)


def joined_unjudged() -> None:
    """Whoever computes the key is joined, whatever was invalidated since he began."""
    board: Callable[..., Any] = SingleFlight._board

    def blind(flights: SingleFlight, key: str, *given: Any) -> Any:
        with flights._lock:
            flight = flights._flights.get(key)
        if flight is not None and flight.thread != threading.get_ident():
            return flight, False
        return board(flights, key, *given)

    _replace(SingleFlight, "_board", blind)


def skipped_record() -> None:
    """Every third record that a process reads from the log, or hears of, is lost; the number is taken as seen."""
    numbers = itertools.count()
    read_since, follow = RedisInvalidationLog.read_since, NodeFollower._follow

    def leaky(log: RedisInvalidationLog, known: Tail | None) -> Page:
        page = read_since(log, known)
        return page._replace(records=[record for record in page.records if next(numbers) % 3])

    def deaf(follower: NodeFollower, notice: Any, tail: Tail) -> None:
        if next(numbers) % 3:
            follow(follower, notice, tail)
        else:
            after = tail._replace(seq=notice.seq)
            follower._bus.publish(Page(after, bytes(after), tail.seq, [], restart=False))

    _replace(RedisInvalidationLog, "read_since", leaky)
    _replace(NodeFollower, "_follow", deaf)


def deps_ignored() -> None:
    """An entry is judged by its own key alone."""
    valid = InvalidationView.valid
    _replace(InvalidationView, "valid", lambda view, as_of, key, _: valid(view, as_of, key, ()))


def bus_never_followed() -> None:
    """A child takes the node's word that all is confirmed, and never looks what there was."""

    def ignore(cache: TwoTierCache) -> None:
        known = cache._coherence
        known.words, known.version, known.stamp = NO_WORDS, 0, 0

    _after_init(ignore)


def epoch_ignored() -> None:
    """A log that begins anew is taken for the one before."""
    valid = InvalidationView.valid

    def blind(view: InvalidationView, as_of: AsOf, key: str, deps: tuple[str, ...]) -> bool:
        tail = view._state[0]
        return valid(view, AsOf(tail.epoch, min(as_of.seq, tail.seq), as_of.generation), key, deps)

    _replace(InvalidationView, "valid", blind)


def floor_ignored() -> None:
    """What is older than the log remembers is judged by what the log remembers."""
    valid = InvalidationView.valid

    def blind(view: InvalidationView, as_of: AsOf, key: str, deps: tuple[str, ...]) -> bool:
        floor = view._state[0].floor
        return valid(view, AsOf(as_of.epoch, max(as_of.seq, floor), as_of.generation), key, deps)

    _replace(InvalidationView, "valid", blind)


def pending_ignored() -> None:
    """What could not be appended is not remembered."""
    _replace(InvalidationView, "pend", lambda *_: None)


def probe() -> None:
    import time
    apply = InvalidationView.apply
    lookup = TwoTierCache.lookup
    state = [0, 0, 0]
    def timed(view, page, at):
        if len(page.records) > 300:
            lag = time.monotonic() - view.confirmed_at_s
            state[0] = 1; state[1] = state[2] = 0
            t = time.monotonic()
            apply(view, page, at)
            state[0] = 0
            open("/tmp/probe", "a").write(f"{len(page.records)} {1e3*(time.monotonic()-t):.1f} ms asked before {1e3*(t-at):.1f} lag {1e3*lag:.0f} lookups began {state[1]} hits {state[2]}\n")
        else:
            apply(view, page, at)
    def counted(cache, key, **more):
        began = state[0]
        state[1] += began
        f = lookup(cache, key, **more)
        if began and state[0] and f:
            state[2] += 1
        return f
    _replace(InvalidationView, "apply", timed)
    TwoTierCache.lookup = counted


def _replace(owner: type, name: str, part: object) -> None:
    """Fails when there is no such part any more: then the mutant must be thought over."""
    if name not in vars(owner):
        raise AssertionError(f"{owner.__name__} has no {name}: the mutant takes out nothing")
    setattr(owner, name, part)


def _after_init(change: Callable[[TwoTierCache], None]) -> None:
    init = TwoTierCache.__init__

    def changed(cache: TwoTierCache, *given: Any, **named: Any) -> None:
        init(cache, *given, **named)
        change(cache)

    _replace(TwoTierCache, "__init__", changed)


MUTANTS: Final[dict[str, Callable[[], None]]] = {
    mutant.__name__: mutant
    for mutant in (
        no_lease,
        no_validation,
        as_of_after_the_computation,
        joined_unjudged,
        skipped_record,
        deps_ignored,
        bus_never_followed,
        epoch_ignored,
        floor_ignored,
        pending_ignored,
        probe,
    )
} | {STAGE_MUTANT: lambda: None}

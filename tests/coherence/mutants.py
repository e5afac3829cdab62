"""The cache with one part of its protocol taken out, to show that the checker would see it. Each mutant changes the classes of
the process that it is called in."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, Final

from pipeline.cache import AsOf, TwoTierCache
from pipeline.cache.follower import NodeFollower
from pipeline.cache.log import RedisInvalidationLog
from pipeline.cache.tail import Page, Tail
from pipeline.cache.two_tier import _NO_WORDS
from pipeline.cache.view import InvalidationView

STAGE_MUTANT: Final = "as_of_of_the_last_stage"
"""This one is in how the cache is used: a response is computed without the `as_of` from before its routing was read."""


def no_lease() -> None:
    """L1 serves what it has for as long as nobody tells it better."""
    _after_init(lambda cache: setattr(cache, "_bound_s", math.inf))


def no_validation() -> None:
    """What a tier holds is served without being judged."""
    InvalidationView.valid = lambda *_: True  # type: ignore[method-assign]  # that is what a mutant is


def as_of_after_the_computation() -> None:
    """An entry counts as new as the moment at which it was stored."""
    store = TwoTierCache._store

    def late(cache: TwoTierCache, *given: Any) -> Any:
        return store(cache, *(cache._view.as_of() if isinstance(part, AsOf) else part for part in given))

    TwoTierCache._store = late  # type: ignore[method-assign]  # that is what a mutant is


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
            follower._bus.publish(Page(after, bytes(after), [], restart=False))

    RedisInvalidationLog.read_since = leaky  # type: ignore[method-assign]  # that is what a mutant is
    NodeFollower._follow = deaf  # type: ignore[method-assign]  # that is what a mutant is


def deps_ignored() -> None:
    """An entry is judged by its own key alone."""
    valid = InvalidationView.valid
    InvalidationView.valid = lambda view, as_of, key, _: valid(view, as_of, key, ())  # type: ignore[method-assign]  # that is what a mutant is


def bus_never_followed() -> None:
    """A child takes the node's word that all is confirmed, and never looks what there was."""

    def ignore(cache: TwoTierCache) -> None:
        cache._bus_words, cache._bus_version = _NO_WORDS, 0

    _after_init(ignore)


def epoch_ignored() -> None:
    """A log that begins anew is taken for the one before."""
    valid = InvalidationView.valid

    def blind(view: InvalidationView, as_of: AsOf, key: str, deps: tuple[str, ...]) -> bool:
        tail = view._state[0]
        return valid(view, AsOf(tail.epoch, min(as_of.seq, tail.seq), as_of.generation), key, deps)

    InvalidationView.valid = blind  # type: ignore[method-assign]  # that is what a mutant is


def floor_ignored() -> None:
    """What is older than the log remembers is judged by what the log remembers."""
    valid = InvalidationView.valid

    def blind(view: InvalidationView, as_of: AsOf, key: str, deps: tuple[str, ...]) -> bool:
        floor = view._state[0].floor
        return valid(view, AsOf(as_of.epoch, max(as_of.seq, floor), as_of.generation), key, deps)

    InvalidationView.valid = blind  # type: ignore[method-assign]  # that is what a mutant is


def pending_ignored() -> None:
    """What could not be appended is not remembered."""
    InvalidationView.pend = lambda *_: None  # type: ignore[method-assign]  # that is what a mutant is


def _after_init(change: Callable[[TwoTierCache], None]) -> None:
    init = TwoTierCache.__init__

    def changed(cache: TwoTierCache, *given: Any, **named: Any) -> None:
        init(cache, *given, **named)
        change(cache)

    TwoTierCache.__init__ = changed  # type: ignore[method-assign]  # that is what a mutant is


MUTANTS: Final[dict[str, Callable[[], None]]] = {
    mutant.__name__: mutant
    for mutant in (
        no_lease,
        no_validation,
        as_of_after_the_computation,
        skipped_record,
        deps_ignored,
        bus_never_followed,
        epoch_ignored,
        floor_ignored,
        pending_ignored,
    )
} | {STAGE_MUTANT: lambda: None}

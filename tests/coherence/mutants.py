"""The cache with one part of its protocol taken out, to show that the checker would see it. Each mutant changes the classes of
the process that it is called in."""

from __future__ import annotations

import hashlib
import itertools
import math
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

from pipeline.cache import AsOf, TwoTierCache
from pipeline.cache.coherence import bus
from pipeline.cache.coherence.log import RedisInvalidationLog
from pipeline.cache.coherence.node import NodeFollower
from pipeline.cache.coherence.process import NO_WORDS, Coherence
from pipeline.cache.coherence.tail import Page, Tail
from pipeline.cache.coherence.view import InvalidationView
from pipeline.cache.flight.computation import Computation
from pipeline.cache.flight.filling import Filling
from pipeline.cache.flight.single import SingleFlight
from pipeline.cache.lineage import Lineage
from pipeline.cache.server import scripts
from pipeline.cache.server.commands import _Commands
from pipeline.cache.server.link import encode
from pipeline.cache.server.scripts import Script
from pipeline.cache.server.shared import RedisCache
from pipeline.cache.tiers import Tiers

STAGE_MUTANT: Final = "as_of_of_the_last_stage"
"""This one is in how the cache is used: a response is computed without the `as_of` from before its routing was read."""


def no_lease() -> None:
    """L1 serves its entries until it hears of an invalidation."""
    _after_init(lambda cache: setattr(cache._coherence, "bound_s", math.inf))


def no_validation() -> None:
    """A tier's entries are served without being judged."""
    _replace(InvalidationView, "valid", lambda *_: True)


def as_of_after_the_computation() -> None:
    """An entry counts as new as the moment at which it was stored."""
    for name in ("store", "store_many"):
        _keep_late(name, getattr(Filling, name))


def _keep_late(name: str, store: Callable[..., Any]) -> None:
    def late(filling: Filling, *given: Any) -> Any:
        return store(filling, *(filling._view.as_of() if isinstance(part, AsOf) else part for part in given))

    _replace(Filling, name, late)


def joined_unjudged() -> None:
    """The flight of a key is joined, whatever was invalidated since it began."""
    init: Callable[..., None] = SingleFlight.__init__

    class Blind:
        def __init__(self, seeing: Any) -> None:
            self._seeing = seeing

        def __getattr__(self, name: str) -> Any:
            return getattr(self._seeing, name)

        @property
        def view(self) -> Any:
            return Blind(self._seeing.view)

        def valid(self, *_: Any) -> bool:
            return True

    def blindly(flights: SingleFlight, coherence: Any, *given: Any, **named: Any) -> None:
        init(flights, Blind(coherence), *given, **named)

    _replace(SingleFlight, "__init__", blindly)


def joined_unasked() -> None:
    """The flight of a key is joined, if nothing that this process knows is against it; the caller has not read the log."""

    def unasked(flights: SingleFlight, flight: Any, deps: tuple[str, ...], _: float) -> bool:
        return flights._coherence.view.valid(flight.as_of, flight.key, flight.deps + deps)

    _replace(SingleFlight, "_joinable", unasked)


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
            follower._bus.publish(Page(after, tail.seq, [], restart=False))

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
        known.words, known.version = NO_WORDS, 0

    _after_init(ignore)


def epoch_ignored() -> None:
    """A log that begins anew is taken for the one before."""
    valid = InvalidationView.valid

    def blind(view: InvalidationView, as_of: AsOf, key: str, deps: tuple[str, ...]) -> bool:
        tail = view._state[0]
        return valid(view, AsOf(tail.epoch, min(as_of.seq, tail.seq), as_of.generation), key, deps)

    _replace(InvalidationView, "valid", blind)


def floor_ignored() -> None:
    """An entry that is older than the log remembers is judged by the records that remain."""
    valid = InvalidationView.valid

    def blind(view: InvalidationView, as_of: AsOf, key: str, deps: tuple[str, ...]) -> bool:
        floor = view._state[0].floor
        return valid(view, AsOf(as_of.epoch, max(as_of.seq, floor), as_of.generation), key, deps)

    _replace(InvalidationView, "valid", blind)


def pending_ignored() -> None:
    """A pattern that could not be appended is not remembered."""
    _replace(InvalidationView, "pend", lambda *_: None)
    _replace(InvalidationView, "hear", lambda *_: None)


def log_begun_in_two_steps() -> None:
    """A reader that finds no log asks to begin one, and takes a log that has begun by then for one without records."""
    read_since = RedisInvalidationLog.read_since

    def two_steps(log: RedisInvalidationLog, known: Tail | None) -> Page:
        found = log._connection.call(lambda client: client.get(log._keys[0]))
        page = read_since(log, known if found else None)
        return page if found else Page(page.tail._replace(floor=0), 0, [], restart=True)

    _replace(RedisInvalidationLog, "read_since", two_steps)


def confirmed_before_it_is_known() -> None:
    """The lease is granted first, and then the records that it vouches for are taken in."""
    apply = InvalidationView.apply

    def early(view: InvalidationView, page: Page, asked_at_s: float, answered_at_s: float = float("-inf")) -> bool:
        view.confirmed_at_s = max(view.confirmed_at_s, asked_at_s)
        return apply(view, page, asked_at_s, answered_at_s)

    _replace(InvalidationView, "apply", early)


def history_ignored() -> None:
    """A log that lost its newest records goes on, with the numbers that these had."""
    _rewrite(scripts._OF_THE_LOG, "if string.sub(epoch, 1, #history) ~= history then", "if false then")


def replica_believed() -> None:
    """A master that was demoted says what is new in the log, to those who ask for that alone and to those who read an entry."""
    init: Callable[..., None] = RedisCache.__init__

    def believing(tier: RedisCache, *given: Any, **named: Any) -> None:
        init(tier, *given, **named)
        tier._get_tail = encode(b"GET", tier.keys.tail)

    _replace(RedisCache, "__init__", believing)
    _replace(_Commands, "getex", _Commands.get)
    _rewrite(frozenset({"read"}), "redis.call('GETEX', KEYS[1])", "redis.call('GET', KEYS[1])")


def judged_in_two_steps() -> None:
    """Records known from the log are looked at first, and then the pending ones; an append changes the log's, then the pending.

    Between two such steps a thread stands still for microseconds, and a run would take minutes to meet one there: here it
    stands still for longer, as it may on a machine that has other things to do.
    """

    def by_records(view: InvalidationView, as_of: AsOf, key: str, deps: tuple[str, ...]) -> bool:
        tail, _, records, *_ = view._state
        if as_of.epoch != tail.epoch or not tail.floor <= as_of.seq <= tail.seq:
            return False
        return not records.mean_any(key, deps, as_of.seq)

    def by_what_is_pending(view: InvalidationView, as_of: AsOf, key: str, deps: tuple[str, ...]) -> bool:
        if view._state.pending is not None:
            time.sleep(0.001)
        pending = view._state.pending
        return pending is None or not pending.mean_any(key, deps, as_of.generation)

    def torn(view: InvalidationView, *given: Any) -> bool:
        return by_records(view, *given) and by_what_is_pending(view, *given)

    _replace(InvalidationView, "valid", torn)


def judged_before_the_lease() -> None:
    """A slot of L1 is judged first, and then the lease is asked for, which may bring in what the slot was not judged by.

    The thread stands still between the two, for as long as in `judged_in_two_steps`.
    """
    beyond = Tiers._lookup_beyond

    def early(cache: Tiers, key: str, codec: Any, now_s: float, stale_age_s: float, *, leads: bool) -> Any:
        slot = cache._judged_slot(key, now_s)
        time.sleep(0.001)
        if slot is not None and cache._coherence.leased(now_s):
            return cache._serve(slot, codec, key, now_s)
        return beyond(cache, key, codec, now_s, stale_age_s, leads=leads)

    _replace(Tiers, "_lookup_beyond", early)


def deps_of_deps_ignored() -> None:
    """An entry depends on what it names, and not on what that was computed from."""
    _replace(Filling, "with_theirs", lambda _, deps, known=(): deps)  # noqa: ARG005 - as the method that it replaces
    _replace(Computation, "deps", _read_alone)


def _read_alone(computation: Computation) -> tuple[str, ...]:
    return tuple(key for key in computation.read if key != computation.key)


def _recorded_alone() -> None:
    """A computation records what it reads, and not what that was computed from: this is looked for when its value is kept."""
    with_theirs: Callable[..., tuple[str, ...]] = Filling.with_theirs
    _replace(Filling, "with_theirs", lambda filling, deps, known=(): with_theirs(filling, deps))  # noqa: ARG005 - as above
    _replace(Computation, "deps", _read_alone)


def deps_of_deps_looked_for_afterwards() -> None:
    """The deps of an entry's deps are looked for in the tiers when it is stored: by then one may be gone, or was never kept since
    it was invalidated while it was computed."""
    _recorded_alone()
    _replace(Lineage, "of", lambda *_: ())


def settled_by_an_older_look() -> None:
    """A thread that finds everything appended forgets also what another thread has heard of meanwhile. It stands still between
    the two, for as long as in `judged_in_two_steps`."""
    settle = InvalidationView.settle_heard

    def forgetful(view: InvalidationView, _: int) -> None:
        time.sleep(0.001)
        settle(view, sys.maxsize)

    _replace(InvalidationView, "settle_heard", forgetful)


def broken_off_taken_for_no_news() -> None:
    """A writer that is broken off leaves an empty bus, which children take for one without news."""
    _replace(bus, "_BROKEN_OFF", b"")


def _replace(owner: type | ModuleType, name: str, part: object) -> None:
    """Fails when there is no such part any more: then the mutant must be thought over."""
    if name not in vars(owner):
        raise AssertionError(f"{owner.__name__} has no {name}: the mutant takes out nothing")
    setattr(owner, name, part)


def _rewrite(names: frozenset[str], part: str, other: str) -> None:
    """These scripts with another part in place of that one."""
    script: Callable[[str], Script] = scripts._script

    def rewritten(name: str) -> Script:
        whole = script(name)
        if name not in names:
            return whole
        if part not in whole.source:
            raise AssertionError(f"{name} has no such part: the mutant takes out nothing")
        source = whole.source.replace(part, other)
        return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())

    _replace(scripts, "_script", rewritten)


def notice_believed() -> None:
    """A notice of the cache's server is taken for the whole of what was appended before it, whatever was lost in between."""

    def hear(coherence: Coherence, page: Page | None) -> None:
        if page is not None and coherence.view.known is not None:
            coherence.view.apply(page._replace(after=0), coherence._clock())

    _replace(Coherence, "hear", hear)


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
        log_begun_in_two_steps,
        confirmed_before_it_is_known,
        history_ignored,
        judged_in_two_steps,
        judged_before_the_lease,
        joined_unasked,
        deps_of_deps_ignored,
        replica_believed,
        notice_believed,
        deps_of_deps_looked_for_afterwards,
        settled_by_an_older_look,
        broken_off_taken_for_no_news,
    )
} | {STAGE_MUTANT: lambda: None}

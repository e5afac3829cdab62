"""More of the cache's protocol taken out, a part each: those that random work would meet too rarely. They are shown by steps
(`test_replay`), each by the trace of the model's mutant of the same name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from coherence.mutants import _after_init, _replace, _rewrite

from pipeline.cache.coherence import bus, log, node, process
from pipeline.cache.coherence.bus import NodeBus
from pipeline.cache.coherence.node import NodeFollower, Notice
from pipeline.cache.coherence.process import Coherence
from pipeline.cache.coherence.tail import Page, Tail, page_of
from pipeline.cache.coherence.view import InvalidationView
from pipeline.cache.entry import AsOf, Entry
from pipeline.cache.server import scripts
from pipeline.cache.server.shared import RedisCache
from pipeline.cache.tiers import Tiers


def deps_not_kept() -> None:
    """An entry goes to L2 without its deps."""
    write = RedisCache.write

    def bare(tier: RedisCache, key: str, entry: Entry, *told_by: Any) -> None:
        fields = {name: getattr(entry, name) for name in entry.__struct_fields__}
        write(tier, key, Entry(**(fields | {"deps": ()})), *told_by)

    _replace(RedisCache, "write", bare)


def floor_not_raised() -> None:
    """A page that lacks records says nothing of it."""

    def page(tail: Tail, records: list[tuple[str, int]], *, after: int, restart: bool) -> Page:
        return Page(tail, 0 if restart else after, records, restart)

    for module in (bus, log, node, process):
        _replace(module, "page_of", page)


def eviction_unnoticed() -> None:
    """After an eviction of the records the next one is taken for all that there are."""
    _rewrite(frozenset({"append"}), "whole and tonumber(whole) or before", "whole and tonumber(whole) or 0")


def epoch_kept() -> None:
    """A log that begins anew has the epoch of the one before."""
    _rewrite(scripts._OF_THE_LOG, "1, 8) .. made", "1, 8) .. '00000000'")


def confirmed_by_the_seq_alone() -> None:
    """A tail with the view's number confirms it, whatever its epoch."""
    confirm = InvalidationView.confirm

    def blind(view: InvalidationView, tail_bytes: bytes | None, asked_at_s: float) -> bool:
        tail = Tail.parse(tail_bytes or b"")
        if tail is not None and view.known is not None and tail.seq == view.tail.seq:
            view.confirmed_at_s = max(view.confirmed_at_s, asked_at_s)
            return True
        return confirm(view, tail_bytes, asked_at_s)

    _replace(InvalidationView, "confirm", blind)


def notice_after_a_gap() -> None:
    """A notice is applied although others before it have not come."""
    apply = NodeFollower._apply

    def hasty(follower: NodeFollower, notice: Notice) -> None:
        tail = follower._bus.tail
        if tail is not None and tail.epoch == notice.epoch and notice.seq > tail.seq:
            records = [(text, notice.seq) for text in notice.patterns]
            page = page_of(tail._replace(seq=notice.seq), records, after=tail.seq, restart=False)
            follower._bus.publish(page)
        else:
            apply(follower, notice)

    _replace(NodeFollower, "_apply", hasty)


def ring_overflow_unnoticed() -> None:
    """A child that fell behind the ring takes what is left of it for all."""
    append = NodeBus._append

    def forgetful(ring: NodeBus, text: str, seq: int) -> None:
        base = ring.words[bus._BASE]
        append(ring, text, seq)
        ring.words[bus._BASE] = base

    _replace(NodeBus, "_append", forgetful)


def heard_and_not_passed_on() -> None:
    """The main process keeps for itself what it hears while the log is out of reach."""
    _replace(NodeFollower, "_publish_volatile", lambda *_: None)


def unconfirmed_served() -> None:
    """A strict cache serves from L1 while the server is away."""
    _after_init(lambda cache: setattr(cache._tiers, "_strict", False))


def l1_after_l2_unjudged() -> None:
    """After a look into L2 a slot of L1 is served as it was judged before."""
    _replace(Tiers, "_judged_slot", lambda tiers, key, now_s: tiers.l1.peek(key, now_s))


def settled_before_it_is_read() -> None:
    """What was pending is forgotten as soon as it is appended, and then read from the log."""
    append_pending = Coherence.append_pending

    def hasty(known: Coherence) -> None:
        pending = known.view.pending
        if pending:
            known.log.append(tuple(pending))
            known.view.settle(pending)
            known._read_log()
        else:
            append_pending(known)

    _replace(Coherence, "append_pending", hasty)


def as_of_before_its_generation() -> None:
    """What is known is noted as soon as it is published, while L1 serves what was judged by less."""

    def hasty(view: InvalidationView) -> AsOf:
        known = view._state
        return AsOf(known.tail.epoch, known.tail.seq, known.generation)

    _replace(InvalidationView, "as_of", hasty)


STEPPED: Final[dict[str, Callable[[], None]]] = {
    mutant.__name__: mutant
    for mutant in (
        deps_not_kept,
        floor_not_raised,
        eviction_unnoticed,
        epoch_kept,
        confirmed_by_the_seq_alone,
        notice_after_a_gap,
        ring_overflow_unnoticed,
        heard_and_not_passed_on,
        unconfirmed_served,
        l1_after_l2_unjudged,
        settled_before_it_is_read,
        as_of_before_its_generation,
    )
}

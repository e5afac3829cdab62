"""Parts taken out of the protocol, besides those of `coherence.mutants`: the mends of the holes i to l, orders of steps, and
looks that were left out. Each changes the classes of the process that it is called in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from coherence.mutants import MUTANTS as OF_THE_CHECKER
from coherence.mutants import _recorded_alone, _replace, _rewrite

from pipeline.cache.coherence import bus as bus_module
from pipeline.cache.coherence import log as log_module
from pipeline.cache.coherence.bus import CONFIRMED, NodeBus
from pipeline.cache.coherence.log import APPENDED_AT_ONCE
from pipeline.cache.coherence.node import NodeFollower, Notice
from pipeline.cache.coherence.process import Coherence
from pipeline.cache.coherence.tail import Page, Tail
from pipeline.cache.coherence.view import InvalidationView
from pipeline.cache.entry import AsOf
from pipeline.cache.lineage import Lineage
from pipeline.cache.memory.local import Slot
from pipeline.cache.sweeper import Sweeper
from pipeline.cache.tiers import Tiers


def lineage_forgotten() -> None:
    """Hole i. What the deps of discarded and swept values were is not remembered, nor recorded as they are read."""
    _recorded_alone()
    _replace(Lineage, "note", lambda *_: None)


def heard_forgotten() -> None:
    """Hole j. A thread that finds everything appended forgets also what another one has heard of meanwhile."""
    settle = InvalidationView.settle_heard

    def all_heard(view: InvalidationView, _: int) -> None:
        settle(view, view._heard_count)

    _replace(InvalidationView, "settle_heard", all_heard)


def broken_off_bus_is_empty() -> None:
    """Hole k. A bus whose writer was broken off looks as if it had no news."""
    _replace(bus_module, "_BROKEN_OFF", b"")


def late_page_confirms_nothing() -> None:
    """Hole l. An older page of the same log confirms nothing, and a read is judged by what the view covers alone."""
    apply = InvalidationView.apply

    def unconfirming(view: InvalidationView, page: Page, asked_at_s: float, answered_at_s: float = float("-inf")) -> bool:
        here = view._state.tail
        late = page.restart and page.tail.epoch == here.epoch and page.tail.seq < here.seq and view.known is not None
        return False if late else apply(view, page, asked_at_s)  # nor was it known then when a page was there

    def covered(known: Coherence, tail: bytes | None, asked_at_s: float) -> bool:
        if known.log.contacts == known._contacts and known.view.confirm(tail, asked_at_s):
            return True
        known._read_log(asked_at_s)
        return known.view.covers(tail)

    _replace(InvalidationView, "apply", unconfirming)
    _replace(Coherence, "catch_up", covered)


def new_connection_trusted() -> None:
    """After a new connection an equal tail is taken for the same log."""

    def trusting(known: Coherence, tail: bytes | None, asked_at_s: float) -> bool:
        if known.view.confirm(tail, asked_at_s):
            return True
        known._read_log(asked_at_s)
        return known.view.confirmed_at_s >= asked_at_s and known.view.covers(tail)

    _replace(Coherence, "catch_up", trusting)


def generation_before_the_state() -> None:
    """The generation is published first, and then what it is of."""

    def early(view: InvalidationView, known: Any) -> None:
        view.generation = view._state.generation + 1
        view._state = known._replace(generation=view.generation)

    _replace(InvalidationView, "_publish", early)


def generation_after_the_judgement() -> None:
    """A fill judges, and then reads the generation that it takes itself to have judged by."""

    def late(
        tiers: Tiers, key: str, payload: bytes, value: Any, codec: Any, as_of: AsOf, deps: Any, ttl_s: float, *more: Any
    ) -> bool:
        if not tiers._view.valid(as_of, key, deps):
            return False
        generation = tiers._view.generation
        ends_at_s = tiers._clock() + min(ttl_s, tiers._l1_max_ttl_s)
        tiers.l1.put(key, Slot(codec, payload, value, ends_at_s, AsOf(as_of.epoch, as_of.seq, generation), deps, *more))
        return True

    _replace(Tiers, "keep_here", late)


def generation_left_behind() -> None:
    """A writer that finds another was broken off goes on, and leaves that one's generation unpublished."""
    _replace(InvalidationView, "_finish", lambda _: None)


def confirmed_by_the_answer() -> None:
    """The moment of a confirmation is that of the answer, and the log stood there before."""
    catch_up = Coherence.catch_up
    _replace(Coherence, "catch_up", lambda known, tail, _: catch_up(known, tail, known._clock()))


def settled_before_known() -> None:
    """What was appended at last is no longer pending, and then it is read from the log."""

    def hasty(known: Coherence) -> None:
        while pending := known.view.pending_first(APPENDED_AT_ONCE):
            known.log.append(tuple(pending))
            known.view.settle(pending)
            known._read_log()

    _replace(Coherence, "append_pending", hasty)


def own_record_alone() -> None:
    """A process takes its own record in, whatever others have appended before it."""

    def alone(known: Coherence, patterns: tuple[str, ...], tail: Tail, asked_at_s: float) -> None:
        here = known.view.tail
        records = [(text, tail.seq - len(patterns) + number) for number, text in enumerate(patterns, start=1)]
        known.view.apply(Page(tail, here.seq, records, restart=False), asked_at_s)

    _replace(Coherence, "_learn_own", alone)


def notice_after_a_gap() -> None:
    """A notice is applied although others before it have not come."""
    apply = NodeFollower._apply

    def leaping(follower: NodeFollower, notice: Notice) -> None:
        tail = follower._bus.tail
        if tail is not None and tail.epoch == notice.epoch and notice.seq > tail.seq:
            seqs = range(notice.seq - len(notice.patterns) + 1, notice.seq + 1)
            records = list(zip(notice.patterns, seqs, strict=True))
            follower._bus.publish(Page(tail._replace(seq=notice.seq), tail.seq, records, restart=False))
        else:
            apply(follower, notice)

    _replace(NodeFollower, "_apply", leaping)


def bus_confirmed_first() -> None:
    """The bus's moment is written before its records, in a write of its own."""
    publish = NodeBus.publish

    def early(bus: NodeBus, page: Page, asked_at_s: float = float("-inf")) -> None:
        with bus._write_lock, bus._writing():
            bus.seconds[CONFIRMED] = max(bus.seconds[CONFIRMED], asked_at_s)
        publish(bus, page, asked_at_s)

    _replace(NodeBus, "publish", early)


def bus_read_torn() -> None:
    """A reader of the bus does not look whether it was written meanwhile."""
    _replace(NodeBus, "read", lambda bus, known, seen: bus._read(bus.words[0], known, seen))


def ring_overflow_unnoticed() -> None:
    """A child that fell behind the ring takes what is left of it for all."""

    def unnoticed(bus: NodeBus, text: str, seq: int) -> None:
        count = bus.words[bus_module._RECORDS]
        bus._write(count % bus._slots, text, seq)
        bus.words[bus_module._RECORDS] = count + 1

    _replace(NodeBus, "_append", unnoticed)


def eviction_unnoticed() -> None:
    """After an eviction of the records those that are left are taken for all."""
    _rewrite(frozenset({"read"}), "whole = whole and tonumber(whole) or seq", "whole = whole and tonumber(whole) or 0")
    _rewrite(frozenset({"append"}), "whole and tonumber(whole) or before", "whole and tonumber(whole) or 0")
    _replace(bus_module, "page_of", _trusting_page)
    _replace(log_module, "page_of", _trusting_page)


def _trusting_page(tail: Tail, records: list[tuple[str, int]], *, after: int, restart: bool) -> Page:
    return Page(tail, 0 if restart else after, records, restart)


def trim_unnoticed() -> None:
    """Old records go from the log, and its floor stays."""
    raised = "floor = math.max(floor, tonumber(cut[2]))\n"
    _rewrite(frozenset({"append"}), raised, "redis.call('ZREMRANGEBYSCORE', KEYS[2], 1, cut[2])\n")


def l2_unconfirmed() -> None:
    """A read from L2 does not look at the log's tail."""
    _replace(Coherence, "catch_up", lambda *_: True)


def swept_by_another_clock() -> None:
    """Hole m. A sweep notes when it asked by a clock of its own, and confirms the view by that."""
    init: Callable[..., None] = Sweeper.__init__

    def foreign(sweeper: Sweeper, l2: Any, coherence: Any, *, clock: Callable[[], float]) -> None:
        init(sweeper, l2, coherence, clock=lambda: clock() + 1_000.0)

    _replace(Sweeper, "__init__", foreign)


OWN: Final[dict[str, Callable[[], None]]] = {
    mutant.__name__: mutant
    for mutant in (
        lineage_forgotten,
        heard_forgotten,
        broken_off_bus_is_empty,
        late_page_confirms_nothing,
        new_connection_trusted,
        generation_before_the_state,
        generation_after_the_judgement,
        generation_left_behind,
        confirmed_by_the_answer,
        settled_before_known,
        own_record_alone,
        notice_after_a_gap,
        bus_confirmed_first,
        bus_read_torn,
        ring_overflow_unnoticed,
        eviction_unnoticed,
        trim_unnoticed,
        l2_unconfirmed,
        swept_by_another_clock,
    )
}
MUTANTS: Final = OF_THE_CHECKER | OWN
KEPT: Final = {
    "late_page_confirms_nothing": (
        "b.fetch k | a: refresh | a: refresh | a: look k | b: inv k | c: inv z | !: evict tail"
        " @ 8>1 15>5 17>3 21>2 41>4 44>0 61>2 65>1"
    ),
    "bus_confirmed_first": "n1.fetch k | n1: look k | n: beat | b: inv k | !: tick 1.1 @ 1>2 6>3 8>1 24>0",
    "confirmed_by_the_answer": "a.fetch k | a: sweep, get k | b: inv k | !: tick 1.5 @ 9>1 14>2",
    "settled_before_known": "a.fetch k, !.full, a.inv k, !.room | a: look k | a: look k @ 21>1 60>0",
}
"""Mutants that a search of 10,000 schedules does not catch with each seed, or with none, since it takes more than three
preemptions; each with a schedule that does."""

UNSEEN: Final[dict[str, str]] = {
    "notice_believed": "no process here has a listener; the traces of real runs reject it (tests/traces)",
}
"""Mutants that no schedule here can show, each with the reason."""

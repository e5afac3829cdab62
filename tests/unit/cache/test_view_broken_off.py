"""A view whose writer is broken off between any two of its steps, and what other threads read there: it may know too little for a
moment, but it never vouches for records that it has not yet taken in."""

from __future__ import annotations

import threading

import pytest
from broken_off import broken_off_at, interrupted_at

from pipeline.cache.coherence.records import Records
from pipeline.cache.coherence.tail import Page, Tail
from pipeline.cache.coherence.view import InvalidationView
from pipeline.cache.entry import AsOf

FILES = ("coherence/view.py", "coherence/records.py", "patterns/globs.py")
PATTERNS = ("k", "k*", "k:*", "*")
KEY = "k:1"


def view_at_3() -> InvalidationView:
    view = InvalidationView()
    view.apply(Page(Tail("e", 3, 0), 0, [("x", 3)], restart=True), 10.0)
    return view


def page(pattern: str) -> Page:
    return Page(Tail("e", 4, 0), 3, [(KEY if pattern == "k" else pattern, 4)], restart=False)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("then", ["confirmed", "again", "another"])
def test_the_next_writer_after_one_that_was_broken_off_knows_what_it_confirms(pattern: str, then: str) -> None:
    """A slot that was judged before is judged again, or the lease has not been renewed: at every step where a time limit may
    raise."""
    step = 1
    while True:
        view = view_at_3()
        judged_at = view.generation
        broken = broken_off_at(step, lambda: view.apply(page(pattern), 20.0), *FILES)  # noqa: B023 - called at once
        held = view.generation == judged_at or view.valid(AsOf("e", 3), KEY, ())
        assert not (broken and held and view.confirmed_at_s > 10.0), step
        if then == "confirmed":
            known = view.confirm(b"e:4:0", 30.0)
        elif then == "again":
            known = view.apply(page(pattern), 30.0)
        else:
            known = view.apply(Page(Tail("e", 5, 0), view.tail.seq, [*page(pattern).records, ("y", 5)], restart=False), 30.0)
        if known:
            assert view.confirmed_at_s == 30.0
            assert view.generation != judged_at, step
            assert not view.valid(AsOf("e", 3), KEY, ()), step
        if not broken:
            break
        step += 1
    assert step > 10, "too few steps were broken off for this to say anything"


def test_a_restart_that_is_broken_off_vouches_for_nothing_of_either_log() -> None:
    """Nor does the next confirmation, unless the new log is known."""
    step = 1
    new = Page(Tail("f", 2, 0), 0, [(KEY, 2)], restart=True)
    while True:
        view = view_at_3()
        broken = broken_off_at(step, lambda: view.apply(new, 20.0), *FILES)  # noqa: B023 - called at once
        old_slot_served = view.generation == 1 and view.valid(AsOf("e", 3), KEY, ())
        assert not (old_slot_served and view.confirmed_at_s >= 20.0), step
        if view.confirm(b"f:2:0", 30.0):
            assert not view.valid(AsOf("e", 3), KEY, ()), step
            assert not view.valid(AsOf("f", 1), KEY, ()), step
        if not broken:
            break
        step += 1


def test_an_invalidation_that_is_pending_and_then_appended_is_in_force_throughout() -> None:
    """Another thread that judges at any step between finds the one, the other, or both."""
    view = view_at_3()
    before = AsOf("e", 3, view.generation)
    view.pend([KEY])
    pending = view.pending
    seen: list[bool] = []

    def settle() -> None:
        view.apply(page("k"), 20.0)
        view.settle(pending)

    for step in range(1, 200):
        if not broken_off_at(step, settle, *FILES):
            break
        seen.append(view.valid(before, KEY, ()))
    assert len(seen) > 10
    assert not any(seen)
    assert not view.valid(before, KEY, ())


def test_no_thread_is_granted_a_lease_before_the_records_it_vouches_for_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads read without a lock while one takes in a long page."""
    view = view_at_3()
    taken: list[tuple[float, bool, int]] = []
    note = Records.note

    def look() -> None:
        taken.append((view.confirmed_at_s, view.valid(AsOf("e", 3), KEY, ()), view.generation))

    def noting(records: Records, text: str, seq: int) -> bool:
        for step in (look, lambda: None):
            thread = threading.Thread(target=step)
            thread.start()
            thread.join(10)
        return note(records, text, seq)

    monkeypatch.setattr(Records, "note", noting)
    judged_at = view.generation
    view.apply(Page(Tail("e", 6, 0), 3, [("a", 4), (KEY, 5), ("b", 6)], restart=False), 20.0)
    assert [confirmed_at_s for confirmed_at_s, _, _ in taken] == [10.0] * 3
    assert {generation for _, _, generation in taken} == {judged_at}
    assert view.confirmed_at_s == 20.0
    assert view.generation != judged_at
    assert not view.valid(AsOf("e", 3), KEY, ())


def test_a_signal_handler_in_the_middle_of_a_publication_knows_no_more_than_l1_judges_by() -> None:
    """At every step of it. Where the handler would, its as_of is of no log, and it keeps nothing."""
    taken: list[tuple[AsOf, int]] = []
    step, reached = 1, True
    while reached:
        view = view_at_3()
        look = lambda: taken.append((view.as_of(), view.generation))  # noqa: B023, E731 - called at once
        reached = interrupted_at(step, lambda: view.apply(page("k"), 20.0), look)  # noqa: B023 - as above
        step += 1
    assert all(as_of.generation <= generation for as_of, generation in taken)
    assert {as_of.seq for as_of, _ in taken} == {3, 0, 4}
    assert view.as_of().seq == 4


def test_many_pending_patterns_cost_a_judgement_no_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are looked up as the log's records are; beyond what a log would keep, everything is pending."""
    view = view_at_3()
    before = view.as_of()
    view.pend(f"user:u-{number}" for number in range(100_000))
    looked_up: list[str] = []
    mean = Records.mean
    monkeypatch.setattr(Records, "mean", lambda records, key, since: looked_up.append(key) or mean(records, key, since))
    assert view.valid(before, "persona:lua:calm", ("routing:calm",))
    assert not view.valid(before, "user:u-99999", ())
    assert len(looked_up) == 3
    view.pend(["one:more"])
    assert list(view.pending) == ["*"]
    assert not view.valid(before, "persona:lua:calm", ())


def test_what_is_read_from_l2_is_older_than_all_that_is_pending() -> None:
    """Which of its entries are from before it cannot be told. A value computed here since then is not."""
    view = view_at_3()
    view.hear(["k:*"], 1)
    assert not view.valid(AsOf("e", 3, view.generation_of_reads), KEY, ())
    assert view.valid(AsOf("e", 3, view.generation), KEY, ())
    view.settle_heard(1)
    assert view.valid(AsOf("e", 3, view.generation_of_reads), KEY, ())


def test_one_that_was_heard_and_one_of_this_process_are_settled_apart() -> None:
    """Another process has appended the one; that says nothing of the other."""
    view = view_at_3()
    before = view.as_of()
    view.pend(["k:1"])
    own = view.pending
    view.hear(["k:1", "j"], 3)
    view.settle_heard(3)
    assert view.pending == own
    assert not view.valid(before, "k:1", ())
    view.settle(own)
    assert view.valid(before, "k:1", ())

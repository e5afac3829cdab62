"""A process's knowledge of the log: pages in any order, and judgements that may only ever err towards a miss."""

from __future__ import annotations

import threading
from itertools import permutations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cache.coherence.tail import Page, Tail
from pipeline.cache.coherence.view import InvalidationView
from pipeline.cache.entry import AsOf

EPOCH = "e1"


def tail(seq: int, floor: int = 0, epoch: str = EPOCH) -> Tail:
    return Tail(epoch, seq, floor)


def page(seq: int, *records: tuple[str, int], after: int = 0, floor: int = 0, epoch: str = EPOCH, restart: bool = False) -> Page:
    """All that a log at `seq` says after `after`."""
    at = tail(seq, floor, epoch)
    return Page(at, after, list(records), restart)


def started(*records: tuple[str, int], seq: int | None = None, floor: int = 0, at_s: float = 0.0) -> InvalidationView:
    """A view that has loaded a log with these records."""
    view = InvalidationView()
    last = seq if seq is not None else max((number for _, number in records), default=0)
    view.apply(page(last, *records, floor=floor, restart=True), at_s)
    return view


def valid(view: InvalidationView, seq: int, key: str = "k", *deps: str, epoch: str = EPOCH, generation: int = 0) -> bool:
    return view.valid(AsOf(epoch, seq, generation), key, deps)


# -- judging


def test_a_view_that_knows_nothing_says_so() -> None:
    """It is confirmed at no moment, and there is nowhere to read on from."""
    view = InvalidationView()
    assert view.known is None
    assert view.confirmed_at_s == float("-inf")
    assert not view.confirm(None, 1.0)
    assert not view.confirm(b"e1:0:0", 1.0)
    assert view.confirmed_at_s == float("-inf")


@pytest.mark.parametrize("pattern", ["k:1", "k:*", "*", "k*", "?:1", "[k]:1", "k\\:1"])
def test_a_record_invalidates_what_is_older_and_nothing_younger(pattern: str) -> None:
    """By key and by dep, whatever kind of pattern it is."""
    view = started((pattern, 5), seq=7)
    for seq in (0, 4):
        assert not valid(view, seq, "k:1")
        assert not valid(view, seq, "another", "x", "k:1")
    for seq in (5, 6, 7):
        assert valid(view, seq, "k:1")
        assert valid(view, seq, "another", "x", "k:1")
    assert valid(view, 0, "l:2", "m:2") == (pattern != "*")


def test_what_is_below_the_floor_or_beyond_the_tail_or_of_another_epoch_is_invalid() -> None:
    """It cannot be judged, and so is not served."""
    view = started(seq=9, floor=4)
    assert [seq for seq in range(12) if valid(view, seq)] == [4, 5, 6, 7, 8, 9]
    assert not valid(view, 9, epoch="e2")
    assert not valid(view, 0, epoch="")


def test_the_newest_of_several_records_counts() -> None:
    """Of the same pattern, and of different patterns that mean the key."""
    view = started(("k:*", 2), ("k:1", 6), ("*:1", 4))
    view.apply(page(8, ("k:*", 8)), 1.0)
    assert not valid(view, 7, "k:1")
    assert valid(view, 8, "k:1")
    assert not valid(view, 7, "k:2")


def test_a_malformed_record_means_every_key() -> None:
    """A miss too many is the safe mistake; it is counted."""
    for malformed in ("", "[open", "x" * 10_000):
        view = started((malformed, 3), seq=4)
        assert view.malformed_count == 1
        assert not valid(view, 2, "anything")
        assert valid(view, 3, "anything")


# -- pages


def test_pages_that_come_late_twice_or_overlapping_leave_the_same_knowledge() -> None:
    """In every order: the tail never goes back, and no record is lost. A page that continues from further on is not taken."""
    pages = [
        page(3, ("a", 2), ("b", 3), after=1),
        page(5, ("b", 3), ("c", 5), after=2),
        page(5, ("c", 5), after=3),
        page(5, ("a", 2), ("b", 3), ("c", 5), after=1),
    ]
    for order in permutations(pages):
        view = started(("x", 1), seq=1)
        for number, each in enumerate(order):
            before = view.known
            view.apply(each, 1.0 + number)
            assert view.known is not None
            assert before is not None
            assert view.known >= before
        assert view.known == tail(5)
        judged = {name: [seq for seq in range(6) if valid(view, seq, name)] for name in "abcx"}
        assert judged == {"a": [2, 3, 4, 5], "b": [3, 4, 5], "c": [5], "x": [1, 2, 3, 4, 5]}


def test_a_page_that_would_leave_a_hole_is_refused() -> None:
    """It says nothing of what lies between, so it neither moves the tail nor confirms anything."""
    view = started(("x", 1), seq=1, at_s=1.0)
    view.apply(page(9, ("c", 9), after=5), 2.0)
    assert view.known == tail(1)
    assert view.confirmed_at_s == 1.0
    assert not view.confirm(b"e1:9:0", 3.0)
    view.apply(page(9, ("k", 4), ("c", 9), after=1), 4.0)
    assert view.known == tail(9)
    assert not valid(view, 3)


def test_a_view_covers_a_log_that_is_not_ahead_of_it() -> None:
    """Of its own epoch; of no log there is nothing to know."""
    view = started(seq=5)
    assert [seq for seq in range(9) if view.covers(bytes(tail(seq)))] == [0, 1, 2, 3, 4, 5]
    assert not view.covers(b"e2:1:0")
    assert view.covers(None)
    assert view.covers(b"garbage")


def test_only_what_the_server_holds_is_confirmed() -> None:
    """Another seq or epoch is something new. A floor rises only with the seq, and the view's own may be higher."""
    view = started(seq=5, at_s=1.0)
    assert view.confirm(b"e1:5:0", 2.0)
    assert view.confirmed_at_s == 2.0
    for other in (b"e1:6:0", b"e1:4:0", b"e1:51:0", b"e1:5", b"e2:5:0", None, b""):
        assert not view.confirm(other, 9.0)
    assert view.confirmed_at_s == 2.0


def test_a_confirmation_never_goes_back() -> None:
    """Answers may come in another order than their questions."""
    view = started(seq=5, at_s=5.0)
    assert view.confirm(b"e1:5:0", 4.0)
    view.apply(page(6, ("a", 6)), 3.0)
    assert view.confirmed_at_s == 5.0


def test_a_late_page_does_not_take_the_tails_bytes_back() -> None:
    """Else the next reading would be of records that are known already."""
    view = started(seq=5)
    view.apply(page(7, ("a", 7)), 1.0)
    view.apply(page(6, ("b", 6)), 2.0)
    assert view.confirm(b"e1:7:0", 3.0)


def test_a_page_of_a_log_that_was_left_behind_is_ignored() -> None:
    """It continues an epoch that another thread knows to be over."""
    view = started(("a", 1))
    view.apply(page(1, ("b", 1), epoch="e2", restart=True), 1.0)
    view.apply(page(9, ("c", 9)), 2.0)
    assert view.known == tail(1, epoch="e2")
    assert view.confirmed_at_s == 1.0
    assert not valid(view, 1)
    assert not valid(view, 0, "b", epoch="e2")


def test_a_restart_forgets_what_was_known() -> None:
    """Another epoch's records and numbers judge nothing of this one's."""
    view = started(("k", 5), seq=9)
    view.apply(page(6, ("other", 6), epoch="e2", restart=True), 1.0)
    assert view.known == tail(6, epoch="e2")
    assert valid(view, 3, "k", epoch="e2")
    assert not valid(view, 9, "k")


def test_a_restart_confirms_no_later_than_it_was_asked() -> None:
    """The earlier confirmation was of another log."""
    view = started(seq=5, at_s=1.0)
    view.apply(page(0, epoch="e2", restart=True), 2.0)
    assert view.confirmed_at_s == 2.0
    view.apply(page(9, epoch="e3", restart=True), 1.5)
    assert view.known == tail(0, epoch="e2"), "an answer older than one that was confirmed since"


@pytest.mark.parametrize("asked_later_by_s", [0.0, 0.1, 100.0])
def test_a_restart_of_the_same_epoch_never_takes_the_tail_back(asked_later_by_s: float) -> None:
    """Two threads load the log at a process's start. The one that asked later may have been answered earlier: the server's order
    is that of the seqs, not that of the questions."""
    view = started(("k", 11), ("x", 12), at_s=1.0)
    view.apply(page(10, ("y", 10), restart=True), 1.0 + asked_later_by_s)
    assert view.known == tail(12)
    assert not valid(view, 10, "k")
    assert view.confirmed_at_s == 1.0 + asked_later_by_s


def test_a_late_restart_of_the_same_epoch_confirms() -> None:
    """What was appended before the question is known. So an answer of another log, to an earlier question, comes too late."""
    view = started(("k", 2), at_s=1.0)
    assert view.apply(page(1, ("x", 1), restart=True), 3.0)
    assert view.confirmed_at_s == 3.0
    assert not view.apply(page(7, epoch="e0", restart=True), 2.0)
    assert view.known == tail(2)


def test_a_page_after_a_gap_judges_by_the_floor() -> None:
    """Records at or below it are gone, and so are the entries that they would judge."""
    view = started(("old", 2), ("k", 4), seq=5)
    view.apply(page(9, ("new", 9), floor=4), 1.0)
    assert view.known == tail(9, 4)
    assert [seq for seq in range(10) if valid(view, seq, "k")] == [4, 5, 6, 7, 8, 9]
    assert [seq for seq in range(10) if valid(view, seq, "new")] == [9]
    view.apply(page(9, ("new", 9), floor=4), 2.0)
    assert view.known == tail(9, 4)


def test_a_floor_never_goes_down() -> None:
    """Records that were lost once do not come back."""
    view = started(seq=9, floor=6)
    view.apply(page(10, ("a", 10), floor=2), 1.0)
    assert view.known == tail(10, 6)


def test_the_generation_changes_with_what_is_known_and_not_without() -> None:
    """Slots that were judged at this generation need not be judged again."""
    view = started(("a", 1), seq=3)
    before = view.generation
    view.confirm(b"e1:3:0", 1.0)
    view.apply(page(3), 2.0)
    view.apply(page(2, ("a", 1)), 3.0)
    assert view.generation == before
    for change in (page(4, ("b", 4)), page(4, floor=2), page(4, epoch="e2", restart=True)):
        view.apply(change, 4.0)
        assert view.generation > before
        before = view.generation


# -- pending


def test_what_is_pending_invalidates_what_began_before_it() -> None:
    """By key and by dep; not what began after it, which has seen its inputs as they are now."""
    view = started(seq=3)
    before = view.as_of()
    view.pend(["k", "d:*"])
    after = view.as_of()
    for key, deps, judged in (("k", (), False), ("x", ("d:1",), False), ("x", ("d",), True)):
        assert view.valid(before, key, deps) == judged
        assert view.valid(after, key, deps)
    view.pend(["k"])
    assert not view.valid(after, "k", ())


def test_what_is_pending_counts_in_l2_against_what_it_means_and_nothing_else() -> None:
    """Its entries may be from before it, by key or by dep. An entry that it does not mean is as good as before."""
    view = started(seq=3)
    view.pend(["k", "d:*", "g*:x"])
    from_l2 = AsOf(EPOCH, 3, view.generation_of_reads)
    for key, deps in (("k", ()), ("x", ("d:1",)), ("good:x", ())):
        assert not view.valid(from_l2, key, deps)
    for key, deps in (("x", ()), ("a:b:x", ("d", "k:1"))):
        assert view.valid(from_l2, key, deps)


def test_what_was_appended_is_settled_unless_it_was_invalidated_once_more() -> None:
    """The second one may have come after the append."""
    view = started(seq=3)
    view.pend(["a", "b"])
    appended = view.pending
    between = view.as_of()
    view.pend(["a"])
    view.settle(appended)
    assert list(view.pending) == ["a"]
    assert not view.valid(between, "a", ())
    assert view.valid(between, "b", ())
    view.settle(view.pending)
    assert not view.pending


def test_a_pending_table_is_not_changed_under_its_reader() -> None:
    """The thread that appends it walks it without a lock."""
    view = started()
    view.pend(["a"])
    held = view.pending
    view.pend(["b"])
    assert list(held) == ["a"]
    assert set(view.pending) == {"a", "b"}


# -- against a model

PATTERNS = ["a:1", "a:*", "b:*", "*", "?:1", "b:2"]
KEYS = ["a:1", "a:2", "b:1", "b:2", "c"]
MEANS = {
    "a:1": {"a:1"},
    "a:*": {"a:1", "a:2"},
    "b:*": {"b:1", "b:2"},
    "*": set(KEYS),
    "?:1": {"a:1", "b:1"},
    "b:2": {"b:2"},
}


@given(
    log=st.lists(st.sampled_from(PATTERNS), max_size=12),
    reads=st.lists(st.integers(0, 12), max_size=6),
    order=st.randoms(use_true_random=False),
)
def test_no_order_of_pages_passes_what_the_log_invalidates(log: list[str], reads: list[int], order: Random) -> None:
    """Pages cut from one log anywhere, coalesced as the log is, applied twice in any order: at each moment an entry is valid
    exactly if nothing that the known part of the log has after it means its key."""
    pages = []
    for known in [0, *reads]:
        for upto in {len(log), min(known + 2, len(log))}:
            newest = {pattern: seq for seq, pattern in enumerate(log[:upto], start=1)}
            records = [(pattern, seq) for pattern, seq in newest.items() if seq > known]
            pages += [page(upto, *records, after=known)] if known <= upto else []
    order.shuffle(pages)
    view = started(seq=0)
    known = 0
    for each in [*pages, *pages]:
        view.apply(each, 1.0)
        if each.after <= known:  # any other would leave a hole
            known = max(known, each.tail.seq)
        assert view.known == tail(known)
        for key in KEYS:
            for seq in range(known + 1):
                assert valid(view, seq, key) != any(key in MEANS[pattern] for pattern in log[seq:known])
    assert known == len(log)


# -- races


def test_a_judge_that_meets_a_restart_never_passes_what_both_logs_refuse() -> None:
    """Tail and records change as one: judging the new log's numbers by the old log's records would pass it."""
    view = started(("k", 5), seq=6)
    logs = [
        page(6, ("k", 5), restart=True),
        page(6, ("k", 5), epoch="e2", restart=True),
        page(6, ("x", 6), ("k", 5), floor=5, epoch="e1", restart=True),
    ]
    stop = threading.Event()
    passed: list[str] = []

    def judge() -> None:
        while not stop.is_set():
            passed.extend(epoch for epoch in ("e1", "e2") if valid(view, 4, "k", epoch=epoch))

    judges = [threading.Thread(target=judge) for _ in range(3)]
    for thread in judges:
        thread.start()
    for number in range(6_000):
        view.apply(logs[number % len(logs)], float(number))
    stop.set()
    for thread in judges:
        thread.join(20)
    assert passed == []


def test_who_reads_the_generation_first_has_judged_by_at_least_that_much() -> None:
    """A slot that is marked with a generation and passed was valid by all that the generation stands for."""
    view = started(seq=0)
    stop = threading.Event()
    wrong: list[tuple[int, int]] = []
    applied_at: dict[int, int] = {view.generation: 0}

    def judge() -> None:
        while not stop.is_set():
            generation = view.generation
            known = applied_at.get(generation)
            wrong.extend((seq, generation) for seq in range(max(0, (known or 0) - 3), known or 0) if valid(view, seq))

    judges = [threading.Thread(target=judge) for _ in range(3)]
    for thread in judges:
        thread.start()
    for seq in range(1, 4_000):
        applied_at[view.generation + 1] = seq
        view.apply(page(seq, ("k" if seq % 2 else "[k]", seq)), float(seq))
    stop.set()
    for thread in judges:
        thread.join(20)
    assert wrong == []


def test_globs_may_grow_while_they_are_walked() -> None:
    """A reader takes no lock; a writer that adds records does not trip it."""
    view = started(seq=0)
    stop = threading.Event()
    wrong: list[BaseException] = []

    def judge() -> None:
        try:
            while not stop.is_set():
                valid(view, 0, "zzz", "y", "x")
        except RuntimeError as error:
            wrong.append(error)

    judges = [threading.Thread(target=judge) for _ in range(2)]
    for thread in judges:
        thread.start()
    for seq in range(1, 400):
        view.apply(page(seq, (f"a*{seq}", seq)), float(seq))
    stop.set()
    for thread in judges:
        thread.join(60)
    assert wrong == []

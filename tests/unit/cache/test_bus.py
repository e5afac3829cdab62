"""The node's bus by itself: what a reader can take from it, when it must ask Redis instead, and what a writer may not break."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from pipeline.cache.coherence.bus import CONFIRMED, SETTLED, VERSION, VOLATILE, BusState, NodeBus
from pipeline.cache.coherence.tail import Page, Tail
from pipeline.cache.patterns.pattern import MAX_PATTERN_BYTES

EPOCH = "e1"
NEVER = float("-inf")


def whole(seq: int, *, epoch: str = EPOCH, floor: int = 0, records: list[tuple[str, int]] | None = None) -> Page:
    """The whole log, as a reader gets it that knew nothing of it."""
    tail = Tail(epoch, seq, floor)
    return Page(tail, 0, records or [], restart=True)


def more(after: int, *patterns: str, epoch: str = EPOCH, floor: int = 0) -> Page:
    """The patterns that took the seqs from `after` on."""
    tail = Tail(epoch, after + len(patterns), floor)
    records = [(text, after + number) for number, text in enumerate(patterns, start=1)]
    return Page(tail, after, records, restart=False)


def read(bus: NodeBus, seq: int | None, *, epoch: str = EPOCH, volatile_seen: int = 0) -> BusState:
    state = bus.read(None if seq is None else Tail(epoch, seq, 0), volatile_seen)
    assert state is not None
    return state


def records(bus: NodeBus, seq: int) -> list[tuple[str, int]] | None:
    """The records that a view at `seq` takes from the bus, by seq; None when it must ask Redis."""
    page = read(bus, seq).page
    return None if page is None else sorted(page.records, key=lambda record: record[1])


@pytest.fixture
def bus() -> NodeBus:
    """At seq 10, with room for four records."""
    bus = NodeBus(slots=4)
    bus.publish(whole(10), 100.0)
    return bus


# -- following


def test_an_empty_bus_has_nothing_to_follow_and_vouches_for_nothing() -> None:
    """A child that is forked before the first page must not take silence for confirmation."""
    bus = NodeBus()
    state = read(bus, 5)
    assert state.empty
    assert state.page is None
    assert bus.seconds[CONFIRMED] == NEVER


def test_a_reader_takes_what_is_newer_than_what_it_knows(bus: NodeBus) -> None:
    """All of it, each once, and the tail that it leads to."""
    bus.publish(more(10, "a", "b"))
    bus.publish(more(12, "한:*"))
    assert records(bus, 10) == [("a", 11), ("b", 12), ("한:*", 13)]
    assert records(bus, 12) == [("한:*", 13)]
    assert records(bus, 13) == []
    page = read(bus, 10).page
    assert page is not None
    assert (page.tail, page.after, page.restart) == (Tail(EPOCH, 13, 0), 10, False)


@pytest.mark.parametrize("ahead", [14, 99])
def test_a_reader_that_is_ahead_of_the_bus_has_nothing_to_take(bus: NodeBus, ahead: int) -> None:
    """It saw more in Redis than the main process did so far."""
    bus.publish(more(10, "a", "b"))
    assert records(bus, ahead) == []


def test_a_reader_of_another_epoch_or_of_none_must_ask_redis(bus: NodeBus) -> None:
    """The records on the bus continue a log that this reader does not know."""
    assert read(bus, 10, epoch="e2").page is None
    assert read(bus, None).page is None
    assert not read(bus, 10, epoch="e2").empty


def test_a_reader_from_before_the_bus_began_must_ask_redis(bus: NodeBus) -> None:
    """The first page's records are not on the bus: it holds what came after."""
    assert records(bus, 9) is None
    assert records(bus, 10) == []


def test_a_reader_that_fell_behind_the_ring_must_ask_redis(bus: NodeBus) -> None:
    """Exactly when something that it lacks has been overwritten, and not before."""
    bus.publish(more(10, "a", "b", "c", "d"))
    assert records(bus, 10) == [("a", 11), ("b", 12), ("c", 13), ("d", 14)]
    bus.publish(more(14, "e"))
    assert records(bus, 10) is None
    assert records(bus, 11) == [("b", 12), ("c", 13), ("d", 14), ("e", 15)]
    bus.publish(more(15, *(f"p{number}" for number in range(9))))
    assert records(bus, 19) is None
    assert records(bus, 20) == [(f"p{number}", 16 + number) for number in range(5, 9)]


def test_a_record_that_came_again_counts_by_its_newer_seq(bus: NodeBus) -> None:
    """The log coalesces: a page has holes where a pattern came again."""
    tail = Tail(EPOCH, 15, 0)
    bus.publish(Page(tail, 10, [("b", 15), ("a", 12)], restart=False))
    assert records(bus, 10) == [("a", 12), ("b", 15)]
    assert records(bus, 12) == [("b", 15)]


def test_the_floor_of_the_log_reaches_the_reader(bus: NodeBus) -> None:
    """Entries below it must go, also where no record says so."""
    bus.publish(more(10, floor=10))
    page = read(bus, 10).page
    assert page is not None
    assert page.tail.floor == 10
    bus.publish(more(10, "a", floor=3))
    assert bus.tail == Tail(EPOCH, 11, 10), "a floor never falls within an epoch"


def test_a_pattern_of_full_length_comes_back_whole_and_a_longer_record_as_everything(bus: NodeBus) -> None:
    """Cut, it would mean other keys. A log that others write to may hold such a record."""
    longest = "키" * (MAX_PATTERN_BYTES // 3)
    bus.publish(more(10, longest, "x" * 4000))
    assert records(bus, 10) == [(longest, 11), ("*", 12)]


# -- late and foreign pages


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(more(10, "a"), id="again"),
        pytest.param(more(9, "z", "a"), id="overlapping"),
        pytest.param(more(8, "z"), id="older"),
        pytest.param(more(13, "d"), id="beyond-a-gap"),
        pytest.param(more(11, "x", "y", epoch="e2"), id="another-epoch"),
    ],
)
def test_a_page_that_does_not_continue_the_bus_changes_nothing(bus: NodeBus, page: Page) -> None:
    """Pages may come late, twice, and out of order; taken beyond a gap, one would hide what lies in the gap."""
    bus.publish(more(10, "a"), 101.0)
    version = bus.words[VERSION]
    bus.publish(page)
    assert (bus.tail, bus.words[VERSION], records(bus, 10)) == (Tail(EPOCH, 11, 0), version, [("a", 11)])
    assert bus.seconds[CONFIRMED] == 101.0


def test_a_page_that_overlaps_adds_what_is_new(bus: NodeBus) -> None:
    """It was asked for before a notice that was faster."""
    bus.publish(more(10, "a"))
    bus.publish(more(9, "z", "a", "b"), 102.0)
    assert records(bus, 10) == [("a", 11), ("b", 12)]
    assert bus.seconds[CONFIRMED] == 102.0


def test_a_page_that_continues_nothing_is_not_taken_by_an_empty_bus() -> None:
    """It does not know what came before."""
    bus = NodeBus()
    bus.publish(more(10, "a"), 100.0)
    assert bus.tail is None
    assert bus.seconds[CONFIRMED] == NEVER


def test_a_late_answer_with_the_whole_log_does_not_take_the_bus_back(bus: NodeBus) -> None:
    """Another thread was faster, with more. Readers that follow the bus would miss the records in between."""
    bus.publish(whole(12), 99.0)
    bus.publish(whole(11), 101.0)
    assert bus.tail == Tail(EPOCH, 12, 0)
    bus.publish(more(11, "c"))
    assert bus.tail == Tail(EPOCH, 12, 0)


def test_a_late_answer_of_a_former_epoch_does_not_take_the_bus_back(bus: NodeBus) -> None:
    """Of two epochs the one that was confirmed later stands."""
    bus.publish(whole(1, epoch="e2"), 105.0)
    bus.publish(whole(11), 104.0)
    assert bus.tail == Tail("e2", 1, 0)
    assert bus.seconds[CONFIRMED] == 105.0


def test_a_new_epoch_leaves_nothing_of_the_former_one(bus: NodeBus) -> None:
    """Also when its seqs are lower, and the former confirmation later than its own would be."""
    bus.publish(more(10, "a", "b"), 101.0)
    bus.publish(whole(2, epoch="e2"), 102.0)
    assert read(bus, 10).page is None
    page = read(bus, 2, epoch="e2").page
    assert page is not None
    assert page.records == []
    bus.publish(more(2, "c", epoch="e2"))
    page = read(bus, 2, epoch="e2").page
    assert page is not None
    assert page.records == [("c", 3)]


# -- confirming


def test_a_page_that_came_by_broadcast_confirms_nothing(bus: NodeBus) -> None:
    """It tells which records were appended, and not that there are no others."""
    bus.publish(more(10, "a"))
    assert bus.seconds[CONFIRMED] == 100.0


def test_a_confirmation_never_goes_back_within_an_epoch(bus: NodeBus) -> None:
    """Two threads may ask and be answered crosswise."""
    bus.publish(more(10), 103.0)
    bus.publish(more(10), 102.0)
    assert bus.seconds[CONFIRMED] == 103.0


def test_what_is_vouched_for_is_on_the_bus_before_the_moment_is(bus: NodeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader between any two steps of the writer finds no moment that stands for records it cannot see."""
    seen: list[tuple[float, int, BusState | None]] = []
    for name in ("_append", "_write"):
        _observed(monkeypatch, bus, name, lambda: seen.append((bus.seconds[CONFIRMED], bus.words[VERSION], bus.read(None, 0))))
    bus.publish(more(10, "a", "b"), 105.0)
    assert len(seen) == 8
    assert all(confirmed == 100.0 for confirmed, _, _ in seen)


def test_a_restart_vouches_for_nothing_until_it_is_complete(bus: NodeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment of the old state must not stand beside the new one: meanwhile no reader can read."""
    seen: list[BusState | None] = []
    _observed(monkeypatch, bus, "_restart", lambda: seen.append(bus.read(Tail(EPOCH, 10, 0), 0)))
    bus.publish(whole(11), 105.0)
    assert seen == [None, None]
    assert bus.seconds[CONFIRMED] == 105.0


# -- the sequence lock


def test_a_reader_in_the_middle_of_a_write_is_told_so(bus: NodeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that is frozen there holds up no reader: it asks Redis. Afterwards the version is even, and another."""
    seen: list[BusState | None] = []
    _observed(monkeypatch, bus, "_write", lambda: seen.append(bus.read(Tail(EPOCH, 10, 0), 0)))
    before = bus.words[VERSION]
    bus.publish(more(10, "a"))
    bus.publish_volatile(["b"])
    assert seen == [None, None, None, None]
    assert bus.words[VERSION] > before
    assert bus.words[VERSION] % 2 == 0
    assert records(bus, 10) == [("a", 11)]


def test_a_reader_that_a_write_overtakes_reads_again(bus: NodeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts that it has read belong to two moments: it never sees half of a page."""
    writes: list[Callable[[], None]] = [lambda: bus.publish(more(11, "b", "c")), lambda: bus.publish(more(10, "a"))]
    slots = bus._read

    def overtaken(version: int, known: Tail | None, volatile_seen: int) -> BusState:
        state = slots(version, known, volatile_seen)
        if writes:
            writes.pop()()
        return state

    monkeypatch.setattr(bus, "_read", overtaken)
    assert records(bus, 10) == [("a", 11), ("b", 12), ("c", 13)]


def test_a_reader_that_is_overtaken_again_and_again_gives_up(bus: NodeBus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading never blocks: after a few tries Redis is asked instead."""
    slots = bus._read

    def overtaken(version: int, known: Tail | None, volatile_seen: int) -> BusState:
        state = slots(version, known, volatile_seen)
        bus.publish_volatile(["a"])
        return state

    monkeypatch.setattr(bus, "_read", overtaken)
    assert bus.read(Tail(EPOCH, 10, 0), 0) is None


class _Epoch(str):
    """One at whose writing the writer is interrupted."""

    __slots__ = ()

    def encode(self, *_: str) -> bytes:
        raise InterruptedError


def _interrupting_restart() -> Page:
    return Page(Tail(_Epoch("e2"), 1, 0), 0, [], restart=True)


def _interrupt(*_: object) -> None:
    raise InterruptedError


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda bus: bus.publish(more(11, "b", "c"), 106.0), id="records"),
        pytest.param(lambda bus: bus.publish_volatile(["b"]), id="volatile"),
        pytest.param(lambda bus: bus.publish(_interrupting_restart(), 106.0), id="restart"),
    ],
)
def test_a_write_that_is_interrupted_vouches_for_nothing(
    bus: NodeBus, monkeypatch: pytest.MonkeyPatch, write: Callable[[NodeBus], None]
) -> None:
    """Whatever was begun is void, a reader is not vouched for by what stood there before, and the next page begins anew, with
    even and odd where they belong."""
    bus.publish(more(10, "a"), 105.0)
    with monkeypatch.context() as patch:
        patch.setattr(bus, "_write", _interrupt)
        with pytest.raises(InterruptedError):
            write(bus)
    assert bus.words[VERSION] % 2 == 0
    assert bus.seconds[CONFIRMED] == NEVER
    assert read(bus, 10).page is None
    bus.publish(whole(13), 107.0)
    bus.publish(more(13, "d"))
    assert records(bus, 13) == [("d", 14)]
    assert bus.words[VERSION] % 2 == 0


# -- volatile patterns


def test_volatile_patterns_reach_each_reader_once(bus: NodeBus) -> None:
    """They have no seq: each reader counts how many it has seen."""
    assert bus.publish_volatile(["a", "b"]) == 2
    state = read(bus, 10)
    assert (state.volatile, state.volatile_count) == (["a", "b"], 2)
    assert bus.publish_volatile(["c"]) == 3
    assert read(bus, 10, volatile_seen=2).volatile == ["c"]
    assert read(bus, 10, volatile_seen=3).volatile == []
    assert bus.words[VOLATILE] == 3


def test_volatile_patterns_do_not_take_room_from_records(bus: NodeBus) -> None:
    """Redis away for a while must not push out what a child has yet to read."""
    bus.publish(more(10, "a", "b", "c", "d"))
    bus.publish_volatile([f"v{number}" for number in range(200)])
    assert records(bus, 10) == [("a", 11), ("b", 12), ("c", 13), ("d", 14)]


def test_a_reader_that_missed_volatile_patterns_takes_them_for_everything(bus: NodeBus) -> None:
    """The overwritten patterns are unknown; a miss too many is the safe mistake. One fewer, and each is there."""
    patterns = [f"v{number}" for number in range(64)]
    bus.publish_volatile(patterns)
    assert read(bus, 10).volatile == patterns
    bus.publish_volatile(["one too many"])
    assert read(bus, 10).volatile == ["*"]
    assert read(bus, 10, volatile_seen=1).volatile == [*patterns[1:], "one too many"]


def test_what_is_settled_is_counted_and_never_fewer(bus: NodeBus) -> None:
    """A child that is forked now need not know what the log has by now."""
    bus.publish_volatile(["a", "b", "c"])
    bus.settle_volatile(2)
    bus.settle_volatile(1)
    assert bus.words[SETTLED] == 2


# -- across processes


def test_a_forked_child_reads_what_its_parent_writes_later() -> None:
    """The memory is one, from before the fork: no message passes."""
    bus = NodeBus()
    to_child, to_parent = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.read(to_child[0], 1)
            seen = bus.read(Tail(EPOCH, 10, 0), 0)
            if seen is not None and seen.page is not None and bus.seconds[CONFIRMED] == 106.0:
                os.write(to_parent[1], repr(seen.page.records).encode())
                status = 0
        finally:
            os._exit(status)
    bus.publish(whole(10), 105.0)
    bus.publish(more(10, "a"), 106.0)
    os.write(to_child[1], b"!")
    assert os.waitpid(pid, 0)[1] == 0
    assert os.read(to_parent[0], 100) == b"[('a', 11)]"
    for descriptor in (*to_child, *to_parent):
        os.close(descriptor)


def _observed(monkeypatch: pytest.MonkeyPatch, bus: NodeBus, name: str, look: Callable[[], None]) -> None:
    """Look before and after each call of that step."""
    step = getattr(bus, name)

    def stepped(*given: object) -> object:
        look()
        result = step(*given)
        look()
        return result

    monkeypatch.setattr(bus, name, stepped)

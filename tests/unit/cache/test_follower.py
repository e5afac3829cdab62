"""The node's follower by itself: what it takes from a notice, when it asks the log, and how it behaves while the log is away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from faults import Clock, nothing, once

from pipeline.cache.coherence.bus import CONFIRMED, SETTLED, NodeBus
from pipeline.cache.coherence.log import LocalInvalidationLog
from pipeline.cache.coherence.node import MAX_PATTERNS, NodeFollower, Notice
from pipeline.cache.coherence.tail import Page, Tail
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.patterns.pattern import MAX_PATTERN_BYTES


class Server:
    """A log and a registry on one server, with a switch. The log's rules are the real ones; it is kept in this process."""

    def __init__(self) -> None:
        self.log = LocalInvalidationLog()
        self.away = False
        self.full = False
        self.log_reads = 0
        self.acknowledged: list[tuple[str, str]] = []
        self.before_answer: Callable[[], None] = nothing
        self.after_append: Callable[[], None] = nothing

    def begin_anew(self) -> None:
        """As a server that lost all it had."""
        self.log = LocalInvalidationLog()

    def append(self, patterns: Sequence[str]) -> Tail:
        self._answer()
        if self.full:
            raise SharedTierUnavailableError("Redis refused: it is full")
        tail = self.log.append(patterns)
        self.after_append()
        return tail

    def read_since(self, known: Tail | None) -> Page:
        self._answer()
        self.log_reads += 1
        return self.log.read_since(known)

    def beat(self, _: str) -> bytes | None:
        self._answer()
        return bytes(self.log.read_since(None).tail)

    def alive(self) -> list[str]:
        return []

    def acknowledge(self, invalidation_id: str, node: str) -> None:
        self._answer()
        self.acknowledged.append((invalidation_id, node))

    def _answer(self) -> None:
        self.before_answer()
        if self.away:
            raise SharedTierUnavailableError("a test took the server away")


class Node:
    """A follower on its bus, and a child's eyes: the records that a view which stood at the bus's start would take from it."""

    def __init__(self, server: Server, *, slots: int = 1024) -> None:
        self.server = server
        self.clock = Clock()
        self.bus = NodeBus(slots)
        registry: Any = server
        self.follower = NodeFollower("node", self.bus, server, registry, clock=self.clock)
        self.follower.beat()
        self.start = self.tail

    @property
    def tail(self) -> Tail:
        tail = self.bus.tail
        assert tail is not None
        return tail

    def patterns(self) -> list[str]:
        """The records that came by the log, in its order."""
        state = self.bus.read(self.start, 0)
        assert state is not None
        assert state.page is not None
        return [text for text, _ in sorted(state.page.records, key=lambda record: record[1])]

    def volatile(self) -> list[str]:
        state = self.bus.read(self.start, 0)
        assert state is not None
        return state.volatile

    def append(self, *patterns: str) -> tuple[str, int, list[str]]:
        """Another process invalidates; the notice that follows from it."""
        tail = self.server.log.append(patterns)
        return tail.epoch, tail.seq, list(patterns)

    def count(self, name: str) -> int:
        return self.follower.counters.snapshot()[name]


@pytest.fixture
def node() -> Node:
    return Node(Server())


# -- notices


def test_a_notice_that_follows_is_applied_without_asking_the_log(node: Node) -> None:
    """This makes it fast: no round trip. It confirms nothing."""
    reads, confirmed = node.server.log_reads, node.bus.seconds[CONFIRMED]
    node.clock.tick(5.0)
    for patterns in (("a",), ("b:*", "c"), ("a",)):
        assert node.follower.receive(*node.append(*patterns)) is not None
    assert node.patterns() == ["a", "b:*", "c", "a"]
    assert node.server.log_reads == reads
    assert node.bus.seconds[CONFIRMED] == confirmed
    assert node.count("in_step") == 3


def test_a_notice_after_a_lost_one_is_filled_from_the_log(node: Node) -> None:
    """The lost notice's records come with it, before the bus says that it stands there."""
    node.append("lost", "lost too")
    node.follower.receive(*node.append("heard"))
    assert node.patterns() == ["lost", "lost too", "heard"]
    assert node.count("gaps") == 1


def test_notices_in_the_wrong_order_are_all_applied(node: Node) -> None:
    """The later one brings the earlier with it; the earlier one then is known."""
    first, second = node.append("a"), node.append("b")
    node.follower.receive(*second)
    node.follower.receive(*first)
    assert node.patterns() == ["a", "b"]
    assert (node.count("gaps"), node.count("in_step")) == (1, 1)


def test_a_notice_that_comes_twice_is_one(node: Node) -> None:
    """A broker may deliver again, and a beat may have been faster."""
    notice, reads = node.append("a"), node.server.log_reads
    node.follower.receive(*notice)
    node.follower.receive(*notice)
    assert node.patterns() == ["a"]
    assert node.server.log_reads == reads, "there is nothing to ask"
    later = node.append("b")
    node.follower.beat()
    node.follower.receive(*later)
    assert node.patterns() == ["a", "b"]


def test_a_notice_that_overlaps_what_is_known_is_filled_from_the_log(node: Node) -> None:
    """Its patterns do not begin where the bus ends."""
    node.follower.receive(*node.append("a"))
    tail = node.server.log.append(("b", "c"))
    node.follower.receive(tail.epoch, tail.seq, ["x", "b", "c"])
    assert node.patterns() == ["a", "b", "c"]


def test_a_notice_of_a_former_epoch_changes_nothing(node: Node) -> None:
    """It was under way when the server lost all its data; the log tells the present state."""
    late = node.append("a")
    node.server.begin_anew()
    node.follower.beat()
    tail = node.tail
    node.follower.receive(*late)
    assert node.tail == tail
    assert node.volatile() == []


def test_a_notice_of_a_new_epoch_begins_anew(node: Node) -> None:
    """Before any reading: the notice is the first to tell."""
    node.server.begin_anew()
    notice = node.append("a")
    node.follower.receive(*notice)
    assert (node.tail.epoch, node.tail.seq) == notice[:2]
    state = node.bus.read(node.start, 0)
    assert state is not None
    assert state.page is None, "a child of the former epoch must ask Redis"


def test_a_notice_before_anything_was_read_brings_the_log() -> None:
    """The subscription begins before the first reading."""
    server = Server()
    bus = NodeBus()
    registry: Any = server
    follower = NodeFollower("node", bus, server, registry)
    tail = server.log.append(["a"])
    follower.receive(tail.epoch, tail.seq, ["a"])
    assert bus.tail == tail


_MALFORMED: list[Any] = [
    (None, None, None),
    (None, 1, ["a"]),
    (b"e", 1, ["a"]),
    ("e" * 17, 1, ["a"]),
    ("é", 1, ["a"]),
    ("e:1", 1, ["a"]),
    ("e", "1", ["a"]),
    ("e", 1.0, ["a"]),
    ("e", True, ["a"]),
    ("e", -1, ["a"]),
    ("e", 2**62, ["a"]),
    ("e", None, ["a"]),
    ("e", 1, None),
    ("e", 1, "a"),
    ("e", 1, b"a"),
    ("e", 1, {"a": 1}),
    ("e", 1, []),
    ("e", 1, [""]),
    ("e", 1, ["a", None]),
    ("e", 1, ["a", 7]),
    ("e", 1, [["a"]]),
    ("e", 1, [{"a": 1}]),
    ("e", 1, ["\ud800"]),
    ("e", 1, ["[a"]),
    ("e", 1, ["x" * (MAX_PATTERN_BYTES + 1)]),
    ("e", 1, ["a"] * (MAX_PATTERNS + 1)),
    ("e", 1, ["a"], ""),
    ("e", 1, ["a"], 7),
    ("e", 1, ["a"], "i" * 65),
    ("e", 1, ["a"], ["i"]),
]


@pytest.mark.parametrize("fields", _MALFORMED, ids=lambda fields: repr(fields)[:40])
def test_what_is_no_notice_is_counted_and_dropped(node: Node, fields: tuple[Any, ...]) -> None:
    """Any program may write to the broker: no message may end a main process, change a bus, or be acknowledged."""
    before = node.tail
    assert node.follower.receive(*fields) is None
    assert node.count("malformed") == 1
    assert node.count("notices") == 0
    assert (node.tail, node.patterns(), node.volatile(), node.server.acknowledged) == (before, [], [], [])


@pytest.mark.parametrize("fields", _MALFORMED, ids=lambda fields: repr(fields)[:40])
def test_what_is_no_notice_is_refused_with_one_error(fields: tuple[Any, ...]) -> None:
    """And with a text that names the field."""
    with pytest.raises(ValueError, match=r"epoch|seq|pattern|invalidation_id"):
        Notice(*fields)


def test_a_notice_with_a_seq_that_nobody_has_taken_does_not_move_the_bus(node: Node) -> None:
    """Well-formed, and a lie: the log is asked, and it alone says where it stands."""
    node.append("a")
    epoch = node.tail.epoch
    node.follower.receive(epoch, 10**15, ["x"])
    assert node.tail.seq == 1
    assert node.patterns() == ["a"]


# -- acknowledging


def test_a_notice_is_acknowledged_after_it_is_on_the_bus(node: Node) -> None:
    """The caller may rely on it: from then on no child serves a matching entry. Without a waiting caller no acknowledgement is
    sent."""
    seen: list[list[str]] = []
    node.server.before_answer = lambda: seen.append(node.patterns())
    node.follower.receive(*node.append("a"), "id-1")
    node.follower.receive(*node.append("b"))
    assert seen == [["a"]]
    assert node.server.acknowledged == [("id-1", "node")]


def test_an_acknowledgement_that_cannot_be_sent_ends_nothing(node: Node) -> None:
    """The caller hears that this node is silent; the children follow all the same."""
    notice = node.append("a")
    node.server.away = True
    assert node.follower.receive(*notice, "id-1") is not None
    assert node.patterns() == ["a"]
    assert node.count("out_of_reach") == 1


# -- beating


def test_a_beat_heals_a_lost_notice_and_confirms(node: Node) -> None:
    """Confirmed is the moment before the server was asked."""
    node.append("lost")
    node.clock.tick(3.0)
    assert node.follower.beat()
    assert node.patterns() == ["lost"]
    assert node.bus.seconds[CONFIRMED] == node.clock()


def test_a_beat_with_nothing_new_confirms_without_reading_the_log(node: Node) -> None:
    """An idle node costs a command a beat."""
    reads = node.server.log_reads
    node.clock.tick(3.0)
    assert node.follower.beat()
    assert node.server.log_reads == reads
    assert node.bus.seconds[CONFIRMED] == node.clock()


def test_a_beat_that_is_not_answered_confirms_nothing(node: Node) -> None:
    """The lease of all children runs out: that is its purpose."""
    confirmed = node.bus.seconds[CONFIRMED]
    node.clock.tick(3.0)
    node.server.away = True
    assert not node.follower.beat()
    assert not node.follower.catch_up()
    assert node.bus.seconds[CONFIRMED] == confirmed
    assert node.count("out_of_reach") == 2


def test_a_beat_takes_the_moment_before_it_asks(node: Node) -> None:
    """A reply that was long on its way confirms the state when it left, and when that was is unknown."""
    asked = node.clock()
    node.server.before_answer = lambda: node.clock.tick(0.7)
    node.follower.beat()
    assert node.bus.seconds[CONFIRMED] == asked


def test_a_server_that_lost_everything_is_followed_into_the_new_epoch(node: Node) -> None:
    """The former log's records are void, also when the new one's seqs are lower."""
    node.follower.receive(*node.append("a", "b", "c"))
    node.server.begin_anew()
    node.append("d")
    node.clock.tick(1.0)
    assert node.follower.beat()
    assert node.tail.seq == 1
    state = node.bus.read(node.start, 0)
    assert state is not None
    assert state.page is None


def test_a_follower_that_fell_behind_the_log_begins_anew() -> None:
    """The log was trimmed past it: its children ask Redis, where the floor voids entries that cannot be judged."""
    server = Server()
    server.log = LocalInvalidationLog(max_records=2)
    node = Node(server)
    for number in range(5):
        node.append(f"p{number}")
    node.follower.beat()
    assert node.tail == Tail(node.start.epoch, 5, 3)
    state = node.bus.read(node.start, 0)
    assert state is not None
    assert state.page is None


def test_without_a_log_a_follower_neither_beats_nor_catches_up() -> None:
    """No Redis is configured: there is nothing to ask, and every notice is applied as it comes."""
    bus = NodeBus()
    follower = NodeFollower("node", bus, None, None)
    assert not follower.beat()
    assert not follower.catch_up()
    follower.receive("e", 5, ["a"], "id-1")
    follower.receive("", 0, ["b"])
    state = bus.read(None, 0)
    assert state is not None
    assert (state.volatile, state.empty) == (["a", "b"], True)
    assert bus.words[SETTLED] == 2, "a child that is forked later begins with nothing: it need not know them"


# -- while the log is away


def test_a_notice_without_a_seq_reaches_the_children_at_once(node: Node) -> None:
    """Redis is away, the broker is not."""
    node.server.away = True
    node.follower.receive("", 0, ["a", "b:*"])
    assert node.volatile() == ["a", "b:*"]
    assert node.count("volatile") == 1


def test_a_gap_that_the_log_cannot_fill_is_at_least_what_the_notice_says(node: Node) -> None:
    """A notice that was lost before it stays unknown until the next beat; the lease bounds that."""
    node.append("lost")
    notice = node.append("heard")
    node.server.away = True
    node.follower.receive(*notice)
    assert node.volatile() == ["heard"]
    assert node.patterns() == []
    node.server.away = False
    node.follower.beat()
    assert node.patterns() == ["lost", "heard"]
    assert node.tail.seq == 3, "appended once more: nobody can know that the log has it"


def test_what_came_without_a_seq_is_appended_when_the_log_is_back(node: Node) -> None:
    """Their maker may be gone by then. Once, and before anything is confirmed."""
    node.server.away = True
    node.follower.receive("", 0, ["a"])
    node.follower.receive("", 0, ["b", "a"])
    node.follower.beat()
    node.server.away = False
    node.clock.tick(1.0)
    assert node.follower.beat()
    assert sorted(node.patterns()) == ["a", "b"]
    assert node.bus.seconds[CONFIRMED] == node.clock()
    assert node.bus.words[SETTLED] == 3
    node.follower.beat()
    assert node.tail.seq == 2


def test_what_cannot_be_appended_is_kept_and_nothing_is_confirmed_meanwhile(node: Node) -> None:
    """A server that answers reads and is full: children must not be vouched for while the node owes the log something."""
    confirmed = node.bus.seconds[CONFIRMED]
    node.server.full = True
    node.follower.receive("", 0, ["a"])
    node.clock.tick(1.0)
    assert not node.follower.beat()
    assert node.bus.seconds[CONFIRMED] == confirmed
    node.server.full = False
    assert node.follower.beat()
    assert node.patterns() == ["a"]


def test_what_comes_while_the_pending_is_appended_is_not_forgotten(node: Node) -> None:
    """In a pool of threads the consumer and the timer are two: the one adds while the other appends."""
    node.server.away = True
    node.follower.receive("", 0, ["a"])
    node.server.away = False

    def meanwhile() -> None:
        node.follower.receive("", 0, ["a", "b"])

    node.server.after_append = once(meanwhile)
    node.follower.beat()
    assert node.bus.words[SETTLED] == 1
    node.follower.beat()
    assert node.patterns() == ["a", "a", "b"]
    assert node.bus.words[SETTLED] == 3


def test_more_than_the_bus_can_hold_while_the_log_is_away_is_everything_for_a_child(node: Node) -> None:
    """And still each by its name in the log, when it is back."""
    patterns = [f"p{number}" for number in range(70)]
    node.server.away = True
    for text in patterns:
        node.follower.receive("", 0, [text])
    assert node.volatile() == ["*"]
    node.server.away = False
    node.follower.beat()
    assert node.patterns() == patterns

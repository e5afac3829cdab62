"""Claims, acknowledgements, deaths and returns in any order, on a real server, held against a model of a few lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from redis import Redis
from servers import ValkeyServer

from workers.node.fetch import claims as module
from workers.node.fetch.claims import NODES, SILENT_MS, Claim, Claims, claims_of, deliveries
from workers.node.guard.bounds import MAX_BYTES, is_cut, size_of

SOURCES = ("urgent", "usual")
NAMES = ("a", "b", "c")


def item(number: int) -> bytes:
    return json.dumps({"headers": {"id": number}, "properties": {"delivery_info": {}}}).encode()


def number_of(raw: bytes) -> int:
    number: int = json.loads(raw)["headers"]["id"]
    return number


class Fleet(RuleBasedStateMachine):
    """Three nodes and two lists. In the model a message is in one list, with one node, or done; a list's first item is its next.

    A node's thread of work is outside: what it was given stays in its hands, also when it has been taken from it meanwhile.
    """

    client: ClassVar[Redis[bytes]]

    @initialize()
    def begin(self) -> None:
        self.client.flushdb()
        self.now: dict[str, float] = {}
        self.nodes = {name: Claims(self.client, name) for name in NAMES}
        self.dead: set[str] = set()
        self.lists: dict[str, list[int]] = {source: [] for source in SOURCES}
        self.with_node: dict[str, dict[str, list[int]]] = {name: {source: [] for source in SOURCES} for name in NAMES}
        self.hands: dict[str, list[Claim]] = {name: [] for name in NAMES}
        self.deaths: dict[int, int] = {}
        self.done: set[int] = set()
        self.sent = 0
        for node in self.nodes.values():
            node.beat(SOURCES)
        for number in range(6):  # so that few steps are in vain
            self.send(SOURCES[number % 2])

    @rule(source=st.sampled_from(SOURCES))
    def send(self, source: str) -> None:
        self.client.lpush(source, item(self.sent))
        self.lists[source].append(self.sent)
        self.deaths[self.sent] = 0
        self.sent += 1

    @rule(name=st.sampled_from(NAMES), limit=st.integers(0, 5), data=st.data())
    def exchange(self, name: str, limit: int, data: st.DataObject) -> None:
        """Acknowledge some of what it has in hand, its own or no more, and claim more."""
        if name in self.dead:
            return
        mine = self.hands[name]
        settled = data.draw(st.lists(st.sampled_from(mine), unique=True)) if mine else []
        claimed = self.nodes[name].exchange(settled, SOURCES, 1, limit)
        for claim in settled:
            mine.remove(claim)
            self._settle(name, claim)
        wanted = []
        for source in SOURCES:
            while self.lists[source] and len(wanted) < limit:
                number = self.lists[source].pop(0)
                self.with_node[name][source].append(number)
                wanted.append((source, number))
        assert [(claim.source, number_of(claim.item)) for claim in claimed] == wanted
        mine.extend(claimed)

    @rule(name=st.sampled_from(NAMES), source=st.sampled_from(SOURCES), data=st.data())
    def pick(self, name: str, source: str, data: st.DataObject) -> None:
        """Claim some from anywhere in a list, among them ones that are not there."""
        if name in self.dead:
            return
        there = list(reversed(self.client.lrange(source, 0, -1)))
        wanted = data.draw(st.lists(st.sampled_from(there), unique=True)) if there else []
        picked = self.nodes[name].pick(source, [*wanted, item(10_000)])
        assert [claim.item for claim in picked] == wanted
        for claim in picked:
            self.lists[source].remove(number_of(claim.item))
            self.with_node[name][source].append(number_of(claim.item))
        self.hands[name].extend(picked)

    @rule(name=st.sampled_from(NAMES), redelivered=st.booleans())
    def give_back(self, name: str, redelivered: bool) -> None:
        if name in self.dead:
            return
        claims, self.hands[name] = self.hands[name], []
        self.nodes[name].give_back(claims, redelivered=redelivered)
        for source in SOURCES:
            given = [number_of(claim.item) for claim in claims if claim.source == source and self._has(name, claim)]
            self.lists[source] = given + self.lists[source]
            self.with_node[name][source] = [number for number in self.with_node[name][source] if number not in given]

    @rule(name=st.sampled_from(NAMES))
    def fall_silent(self, name: str) -> None:
        """It is killed or frozen: to others the same. What it has in hand it still has, should it wake."""
        self.client.zincrby(NODES, -SILENT_MS - 1000, name)
        self.dead.add(name)

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def wake(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.dead)))
        self.nodes[name].beat(SOURCES)
        self.dead.discard(name)

    @rule(name=st.sampled_from(NAMES), other=st.sampled_from(NAMES))
    def recover(self, name: str, other: str) -> None:
        """One that lives gives back what another had; of one that lives nothing is taken."""
        if name in self.dead or name == other:
            return
        given = self.nodes[name].recover(other)
        if other not in self.dead:
            assert given == 0
            return
        for source in SOURCES:
            theirs = self.with_node[other][source]
            for number in theirs:
                self.deaths[number] += 1
            self.lists[source] = theirs + self.lists[source]
            self.with_node[other][source] = []

    @rule(name=st.sampled_from(NAMES))
    def leave(self, name: str) -> None:
        if name in self.dead:
            return
        self.nodes[name].leave(SOURCES)
        for source in SOURCES:
            self.lists[source] = self.with_node[name][source] + self.lists[source]
            self.with_node[name][source] = []
        self.dead.add(name)

    def _has(self, name: str, claim: Claim) -> bool:
        """Whether a node's claim is still its own: its text is that of this delivery."""
        return claim.item in self.texts[name, claim.source]

    def _settle(self, name: str, claim: Claim) -> None:
        if self._has(name, claim):
            self.with_node[name][claim.source].remove(number_of(claim.item))
            self.done.add(number_of(claim.item))

    @invariant()
    def every_message_is_in_one_place(self) -> None:
        self.texts = {(name, source): self.client.lrange(claims_of(name, source), 0, -1) for name in NAMES for source in SOURCES}
        for source in SOURCES:
            raw = self.client.lrange(source, 0, -1)
            assert [number_of(each) for each in reversed(raw)] == self.lists[source]
            for each in raw:
                assert deliveries(json.loads(each)["headers"]) == self.deaths[number_of(each)]
            for name in NAMES:
                assert [number_of(each) for each in reversed(self.texts[name, source])] == self.with_node[name][source]
        where = [number for source in SOURCES for number in self.lists[source]]
        where += [number for name in NAMES for source in SOURCES for number in self.with_node[name][source]]
        assert sorted([*where, *self.done]) == list(range(self.sent))


@contextmanager
def changed(name: str, part: str, other: str) -> Iterator[None]:
    """A script with another part in place of that one."""
    source: Callable[[str], str] = module._source
    assert part in source(name)
    module._source = lambda asked: source(asked).replace(part, other) if asked == name else source(asked)
    try:
        yield
    finally:
        module._source = source


def run(valkey: ValkeyServer, examples: int) -> None:
    with valkey.client() as client:
        Fleet.client = client
        checked: Any = settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
            derandomize=True,
            database=None,
        )
        run_state_machine_as_test(Fleet, settings=checked)


def test_every_message_is_always_in_one_place(valkey: ValkeyServer) -> None:
    run(valkey, 60)


MUTANTS = {
    "a claim is forgotten": (
        "exchange",
        "redis.call('LMOVE', KEYS[2 * number - 1], KEYS[2 * number], 'RIGHT', 'LEFT')",
        "redis.call('RPOP', KEYS[2 * number - 1])",
    ),
    "a claim is returned twice": ("give_back", "if redis.call('LREM', KEYS[1], 1, ARGV[i]) == 1 then", "if true then"),
    "a claim is returned in vain": ("give_back", "redis.call('RPUSH', KEYS[2], ARGV[i + 1])", ""),
    "a returned claim comes last": ("give_back", "redis.call('RPUSH'", "redis.call('LPUSH'"),
    "a node that lives is robbed": ("give_back", "if ARGV[1] ~= '' then", "if false then"),
    "an acknowledged claim stays": ("exchange", "redis.call('LREM', KEYS[2 * tonumber(ARGV[i])], -1, ARGV[i + 1])", ""),
    "what is picked stays where it lay": (
        "pick",
        "redis.call('LREM', KEYS[1], -1, item)",
        "redis.call('LPOS', KEYS[1], item) and 1 or 0",
    ),
    "what is picked is nobody's": ("pick", "redis.call('LPUSH', KEYS[2], kept)", ""),
}  # fmt: skip


@pytest.mark.parametrize("mutant", sorted(MUTANTS))
def test_a_broken_step_is_seen(mutant: str, valkey: ValkeyServer) -> None:
    with changed(*MUTANTS[mutant]), pytest.raises(AssertionError):
        run(valkey, 100)


def test_an_acknowledgement_of_what_another_owns_is_seen(valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A return that leaves the text as it was: a node that wakes would acknowledge another's claim, were its list the same."""
    monkeypatch.setattr(module, "claims_of", lambda _, source: f"claims:{source}")
    with pytest.raises(AssertionError):
        run(valkey, 100)


def long_item(number: int) -> bytes:
    return json.dumps({"body": "x" * (MAX_BYTES + number), "headers": {"id": number}, "properties": {}}).encode()


def as_told(number: int) -> tuple[int, bool]:
    return len(long_item(number)), True


@pytest.mark.parametrize("way", ["exchange", "pick", "what the server moved", "a dead node's"])
def test_an_item_that_is_too_long_is_claimed_in_its_short_form(way: str, valkey: ValkeyServer) -> None:
    """And is acknowledged, and given back, in that form: the rest of it is gone."""
    with valkey.client() as client:
        client.flushdb()
        node, other = Claims(client, "a"), Claims(client, "b")
        for each in (node, other):
            each.beat(SOURCES)
        client.lpush("usual", item(1), long_item(2), item(3))
        if way == "exchange":
            assert [size_of(claim.item) for claim in node.exchange([], ["usual"], 1, 1)] == [len(item(1))]
            (claim,) = node.exchange([], ["usual"], 1, 1)
        elif way == "pick":
            told = next(each for each in node.oldest("usual", 10) if is_cut(each))
            assert client.llen("usual") == 3
            assert len(client.lindex("usual", 1)) == len(long_item(2)), "of a list that is not ours nothing is changed"
            (claim,) = node.pick("usual", [told])
        else:
            for _ in range(2):
                client.lmove("usual", claims_of("a", "usual"), "RIGHT", "LEFT")
            claim = next(each for each in node.kept("usual") if is_cut(each.item))
        assert (size_of(claim.item), is_cut(claim.item)) == as_told(2)
        assert max(map(len, client.lrange(claims_of("a", "usual"), 0, -1))) < 70_000
        if way == "a dead node's":
            client.zincrby(NODES, -SILENT_MS - 1000, "a")
            assert other.recover("a") == 2
            assert [is_cut(each) for each in client.lrange("usual", 0, -1)].count(True) == 1
        else:
            node.exchange([claim], ["usual"], 1, 0)
            left = client.lrange("usual", 0, -1) + client.lrange(claims_of("a", "usual"), 0, -1)
            assert sorted(map(number_of, left)) == [1, 3]


def test_a_look_cuts_what_is_too_long_and_bounds_the_rest(valkey: ValkeyServer) -> None:
    with valkey.client() as client:
        client.flushdb()
        node = Claims(client, "a")
        node.beat(SOURCES)
        half = json.dumps({"body": "x" * (MAX_BYTES // 2)}).encode()
        client.lpush("usual", *[half + b" " * number for number in range(5)], long_item(9))
        found = node.look({"usual": b""}, 64)["usual"]
        assert found == [half + b" ", half], "the oldest, so many as have no more together than one may"
        newest = client.lindex("usual", 0)
        assert is_cut(newest)
        assert node.look({"usual": newest}, 64)["usual"] == [], "it is known by the form that it has there"


def test_a_claim_of_many_takes_no_more_bytes_than_one_may_have(valkey: ValkeyServer) -> None:
    with valkey.client() as client:
        client.flushdb()
        node = Claims(client, "a")
        node.beat(SOURCES)
        half = json.dumps({"body": "x" * (MAX_BYTES // 2)}).encode()
        client.lpush("usual", *[half + b" " * number for number in range(5)])
        assert len(node.exchange([], ["usual"], 1, 64)) == 2

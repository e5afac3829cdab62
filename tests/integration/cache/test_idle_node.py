"""What a node costs that nobody asks, and that its cache is as coherent as that of a busy one. Commands are counted by a real
server of the test's own; time passes when told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from faults import Clock
from servers import ValkeyServer, calls

from pipeline.cache import LocalCache, RedisCache, TwoTierCache
from pipeline.cache.coherence.bus import CONFIRMED, NodeBus
from pipeline.cache.coherence.log import RedisInvalidationLog
from pipeline.cache.coherence.node import QUIET_S, NodeFollower
from pipeline.cache.coherence.registry import ALIVE_MS, IDLE_BEAT_S, NodeRegistry, beat_every_s, settle_s
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection

BOUND_S = 1.0
EVERY_S = beat_every_s(BOUND_S)
NAMESPACE = "idle"
KEYS = KeySpace(NAMESPACE)
COMMANDS_A_BEAT = 7
"""The script's call, and within it TIME, ZADD, PEXPIRE, TOUCH, GET and INFO."""


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def client(server: ValkeyServer) -> Iterator[redis.Redis]:
    with closing(server.client()) as client:
        client.flushall()
        yield client


class Node:
    """A node's main process and one child of its pool, on one clock."""

    def __init__(self, server: ValkeyServer, clock: Clock) -> None:
        self.clock = clock
        self.bus = NodeBus()
        self.connection = RedisConnection(server.url, timeout_s=5.0)
        log = RedisInvalidationLog(self.connection, KEYS, retention_s=600)
        self.follower = NodeFollower("node", self.bus, log, NodeRegistry(self.connection, KEYS), clock=clock)
        l2 = RedisCache(url=server.url, namespace=NAMESPACE, timeout_s=5.0)
        self.child = TwoTierCache(LocalCache(clock=clock), l2, staleness_bound_s=BOUND_S, bus=self.bus, clock=clock)
        self.follower.catch_up()
        self.follower.beat()

    def pass_(self, seconds: float, *, reads: str = "") -> None:
        """As the main process's timer has it; the child reads that key each time, if there is one."""
        for _ in range(round(seconds / EVERY_S)):
            self.clock.tick(EVERY_S)
            if reads:
                self.child.get(reads)
            self.follower.beat_if_due(EVERY_S)

    def close(self) -> None:
        self.child.close()
        self.connection.close()


@pytest.fixture
def node(server: ValkeyServer, client: redis.Redis, clock: Clock) -> Iterator[Node]:
    with closing(Node(server, clock)) as node:
        yield node


def test_an_idle_node_sends_a_beat_every_few_seconds_and_nothing_else(node: Node, client: redis.Redis) -> None:
    """Of 120 looks whether one is due. Each beat is one call, of few commands."""
    node.pass_(QUIET_S)
    before = calls(client)
    node.pass_(60.0)
    counted = calls(client) - before
    beats = counted["evalsha"]
    assert 60 / (IDLE_BEAT_S + EVERY_S) <= beats <= 60 / (IDLE_BEAT_S - EVERY_S)
    assert counted["touch"] == beats, "one TOUCH of many names"
    # INFO is asked by the counting as well, and left out of it.
    assert counted.total() == (COMMANDS_A_BEAT - 1) * beats


def test_an_idle_node_is_known_to_be_alive(node: Node) -> None:
    """It never lets a list of nodes forget it, nor a new one be believed without it."""
    node.pass_(QUIET_S)
    beaten_s, longest_s = node.clock(), 0.0
    for _ in range(120):
        confirmed_s = node.bus.seconds[CONFIRMED]
        node.pass_(EVERY_S)
        if node.bus.seconds[CONFIRMED] != confirmed_s:
            beaten_s = node.clock()
        longest_s = max(longest_s, node.clock() - beaten_s + EVERY_S)
    assert longest_s <= settle_s(BOUND_S) < ALIVE_MS / 1000 / 2


def test_with_a_long_bound_no_beat_is_left_out_for_a_timer_that_is_not_exact(node: Node) -> None:
    """A look may be as long a pause as one beat after another, so that a moment too early is early enough."""
    every_s = beat_every_s(60.0)
    for early_s in (0.1, -0.1) * 5:
        node.clock.tick(every_s - early_s)
        asked_at_s = node.clock()
        node.follower.beat_if_due(every_s)
        assert node.bus.seconds[CONFIRMED] == asked_at_s


def test_a_node_that_is_read_beats_as_ever(node: Node, client: redis.Redis) -> None:
    """At each look, so that its processes answer from L1 and ask Redis nothing themselves."""
    node.child.get_or_compute("k", lambda: 1)
    node.pass_(QUIET_S, reads="k")
    before = calls(client)
    node.pass_(30.0, reads="k")
    counted = calls(client) - before
    assert counted["evalsha"] == 30 / EVERY_S
    assert counted["getex"] == 0, "the child did not ask"


def test_one_that_is_asked_now_and_then_beats_as_ever(node: Node, client: redis.Redis) -> None:
    """More often than it takes to be idle is enough to be answered from L1 the next time."""
    node.child.get_or_compute("k", lambda: 1)
    node.pass_(BOUND_S, reads="k")
    before = calls(client)
    for _ in range(5):
        node.pass_(QUIET_S - 2 * EVERY_S)
        assert node.child.get("k") == 1
        node.pass_(EVERY_S)
    assert (calls(client) - before)["getex"] == 0


def test_the_first_read_of_an_idle_node_asks_redis_and_the_next_ones_need_not(node: Node, client: redis.Redis) -> None:
    """The lease has run out: the bound is kept by it, and not by the beats."""
    node.child.get_or_compute("k", lambda: 1)
    node.pass_(2 * QUIET_S)
    node.clock.tick(BOUND_S)
    before = calls(client)
    assert node.child.get("k") == 1
    assert (calls(client) - before)["getex"] == 1
    node.pass_(EVERY_S)  # a beat
    before = calls(client)
    node.pass_(5.0, reads="k")
    counted = calls(client) - before
    assert (counted["getex"], counted["evalsha"]) == (0, 5 / EVERY_S)


def test_an_idle_node_serves_nothing_that_was_invalidated_longer_ago_than_the_bound(
    node: Node, server: ValkeyServer, client: redis.Redis
) -> None:
    """No notice has come, and no beat since."""
    node.child.get_or_compute("k", lambda: "old")
    node.pass_(2 * QUIET_S)
    node.follower.beat()
    with closing(TwoTierCache(LocalCache(), RedisCache(url=server.url, namespace=NAMESPACE, timeout_s=5.0))) as elsewhere:
        assert elsewhere.invalidate("k").durable
    confirmed_s = node.bus.seconds[CONFIRMED]
    node.pass_(BOUND_S)
    assert node.bus.seconds[CONFIRMED] == confirmed_s, "it has not beaten"
    assert node.child.get_or_compute("k", lambda: "new") == "new"


def test_what_an_idle_node_owes_the_log_is_appended_at_once(node: Node, server: ValkeyServer, client: redis.Redis) -> None:
    """Heard while the server was away: the look after its return, and not the next idle beat."""
    node.pass_(2 * QUIET_S)
    node.follower.beat()
    node.follower.receive("", 0, ["k"])
    node.pass_(EVERY_S)
    assert client.zscore(KEYS.records, "k") is not None


def test_the_names_of_dead_nodes_go_when_another_one_comes(node: Node, client: redis.Redis) -> None:
    """The list is no longer than the nodes that lived at the same time, and one more."""
    client.zadd(KEYS.nodes, {f"dead{number}": 1000 + number for number in range(50)})
    node.follower.beat()
    assert client.zcard(KEYS.nodes) == 52
    registry = NodeRegistry(node.connection, KEYS)
    assert registry.alive() == ["node"]
    registry.beat("another")
    assert set(client.zrange(KEYS.nodes, 0, -1)) == {b"", b"node", b"another"}

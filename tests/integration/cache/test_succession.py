"""One server takes another one's place, without all that the other had acknowledged: a replica that lagged, an old snapshot, a
master that was put aside and brought back. Nothing that was invalidated is served for it, whether that was before or after."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis
from polling import until
from servers import ValkeyServer

from pipeline.cache import MISS, LocalCache, RedisCache, TwoTierCache
from pipeline.cache.coherence.bus import NodeBus
from pipeline.cache.coherence.log import RedisInvalidationLog
from pipeline.cache.coherence.node import NodeFollower
from pipeline.cache.coherence.registry import NodeRegistry
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection

NAMESPACE = "succession"
KEYS = KeySpace(NAMESPACE)
Succeed = Callable[[], None]


@contextmanager
def lagging_replica(master: ValkeyServer) -> Iterator[Succeed]:
    """It is promoted as it was when this began, and takes the master's port."""
    with ValkeyServer() as replica, replica.client() as client, master.client() as ahead:
        client.execute_command("REPLICAOF", "127.0.0.1", master.port)
        until(lambda: client.info("replication").get("master_link_status") == "up")
        until(lambda: client.get(KEYS.tail) == ahead.get(KEYS.tail))
        client.execute_command("REPLICAOF", "NO", "ONE")

        def succeed() -> None:
            master.kill()
            client.config_set("port", master.port)

        yield succeed
        client.config_set("port", replica.port)


@contextmanager
def old_snapshot(master: ValkeyServer) -> Iterator[Succeed]:
    with master.client() as client:
        client.save()

    def succeed() -> None:
        master.kill()
        master.start()

    yield succeed


@contextmanager
def put_aside(master: ValkeyServer) -> Iterator[Succeed]:
    """The master is demoted and promoted again. Meanwhile, for all that it knows, another one was written to."""

    def succeed() -> None:
        with master.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", 1)
            client.execute_command("REPLICAOF", "NO", "ONE")

    yield succeed


WAYS = {"lagging replica": lagging_replica, "old snapshot": old_snapshot}


@pytest.fixture
def master() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def make(master: ValkeyServer) -> Iterator[Callable[[], TwoTierCache]]:
    made: list[TwoTierCache] = []

    def make_cache() -> TwoTierCache:
        made.append(
            TwoTierCache(LocalCache(), RedisCache(url=master.url, namespace=NAMESPACE, timeout_s=5.0), staleness_bound_s=60.0)
        )
        return made[-1]

    yield make_cache
    for cache in made:
        cache.close()


@pytest.mark.parametrize("way", WAYS)
def test_numbers_that_were_lost_are_not_given_out_again(master: ValkeyServer, make: Callable[[], TwoTierCache], way: str) -> None:
    """Three invalidations are lost and three others take their place: a process that stood at the third takes none of them for
    those it knows. Neither does a computation that began there, nor a process that begins later."""
    here, there = make(), make()
    for number in range(5):
        there.invalidate(f"before:{number}")
    with WAYS[way](master) as succeed:
        for number in range(3):
            there.invalidate(f"lost:{number}")
        here.refresh()
        here.get_or_compute("k", lambda: "old")
        begun, go_on = threading.Event(), threading.Event()

        def compute() -> str:
            begun.set()
            assert go_on.wait(20)
            return "old"

        slow = threading.Thread(target=here.get_or_compute, args=("slow", compute))
        slow.start()
        assert begun.wait(20)
        succeed()
        assert [make().invalidate(name).durable for name in ("k", "slow", "z")] == [True] * 3
        go_on.set()
        slow.join(20)
        here.refresh()
        late = make()
        for cache in (here, late):
            for key in ("k", "slow"):
                assert cache.get_or_compute(key, lambda: "new") == "new"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("first", ["reader", "newcomer", "beat"])
def test_what_was_acknowledged_and_lost_is_honoured(
    master: ValkeyServer, make: Callable[[], TwoTierCache], way: str, first: str
) -> None:
    """The new server has the entry, and has never heard of its invalidation. The next process that comes to it voids older
    entries."""
    here, there = make(), make()
    here.get_or_compute("k", lambda: "old")
    there.refresh()
    with WAYS[way](master) as succeed:
        assert there.invalidate("k").durable
        succeed()
        with master.client() as client:
            assert client.exists(KEYS.entry("k")), "nothing is to be seen here"
        if first == "newcomer":
            make().get("unrelated")
        elif first == "beat":
            beating = make()
            assert beating.l2 is not None
            assert NodeRegistry(beating.l2.connection, KEYS).beat("node") is None
        here.l1.clear()
        assert here.get_or_compute("k", lambda: "new") == "new"
        assert make().get("k") == "new"


def test_a_master_that_was_put_aside_and_brought_back_is_another_history(
    master: ValkeyServer, make: Callable[[], TwoTierCache]
) -> None:
    """Its connections live on, and its log is as it was. The next to append begins anew: no process here can know what was
    acknowledged elsewhere in between."""
    here, there = make(), make()
    here.get_or_compute("k", lambda: "old")
    here.refresh()
    with put_aside(master) as succeed:
        succeed()
    assert there.invalidate("unrelated").durable
    here.l1.clear()
    assert here.get_or_compute("k", lambda: "new") == "new"


def test_a_demoted_master_is_not_taken_for_an_outage(master: ValkeyServer) -> None:
    """Out of reach, L1 is served within its own time. A server that says that it is a replica is proof of another one, where
    invalidations are made that no process here can hear of: past the lease L1 serves nothing."""
    cache = TwoTierCache(LocalCache(), RedisCache(url=master.url, namespace=NAMESPACE, timeout_s=5.0), staleness_bound_s=0.05)
    cache.get_or_compute("k", lambda: "old")
    assert cache.get("k") == "old"
    with master.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", 1)
        until(lambda: cache.lookup("k") is MISS)
        assert "k" in cache.l1
        assert [cache.get("k"), cache.get("k")] == [MISS, MISS]
        assert cache.degraded
        client.execute_command("REPLICAOF", "NO", "ONE")
    until(lambda: cache.invalidate("other").durable)
    assert cache.get_or_compute("k", lambda: "new") == "new"
    cache.close()


def test_a_demoted_master_answers_nothing_that_is_asked_of_the_log(master: ValkeyServer) -> None:
    """Also what would change nothing: "nothing is new" would renew a lease."""
    connection = RedisConnection(master.url, timeout_s=5.0, retry_pause_s=0)
    log, nodes = RedisInvalidationLog(connection, KEYS, retention_s=600), NodeRegistry(connection, KEYS)
    known = log.append(["a"])
    asked: dict[str, Callable[[], object]] = {
        "append": lambda: log.append(["b"]),
        "read on": lambda: log.read_since(known),
        "read all": lambda: log.read_since(None),
        "beat": lambda: nodes.beat("a-node"),
    }
    for ask in asked.values():
        ask()
    with master.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", 1)
    for ask in asked.values():
        with pytest.raises(SharedTierUnavailableError, match="READONLY"):
            ask()
    connection.close()


def test_a_node_that_is_still_with_a_demoted_master_minds_what_it_hears_of_the_next_one(master: ValkeyServer) -> None:
    """The notice is of a log that the node has not come to; the one that it is with must not say that nothing is new."""
    bus = NodeBus()
    connection = RedisConnection(master.url, timeout_s=5.0, retry_pause_s=0)
    log = RedisInvalidationLog(connection, KEYS, retention_s=600)
    follower = NodeFollower("a-node", bus, log, NodeRegistry(connection, KEYS))
    child = TwoTierCache(
        LocalCache(), RedisCache(url=master.url, namespace=NAMESPACE, timeout_s=5.0), staleness_bound_s=60.0, bus=bus
    )
    follower.beat()
    child.get_or_compute("k", lambda: "old")
    assert child.get("k") == "old"
    with master.client() as client:
        client.execute_command("REPLICAOF", "127.0.0.1", 1)
    assert follower.receive("another-history", 1, ["k"]) is not None
    assert child.get("k") is MISS
    child.close()
    connection.close()


def test_a_server_that_goes_on_keeps_its_log(master: ValkeyServer, make: Callable[[], TwoTierCache]) -> None:
    """The control: lost connections and forgotten scripts are no succession."""
    here, there = make(), make()
    here.get_or_compute("k", lambda: "value")
    with master.client() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        client.script_flush()
    assert there.invalidate("unrelated").durable
    here.l1.clear()
    assert here.get("k") == "value"


def test_a_beat_keeps_the_records_where_a_full_server_looks_last(make: Callable[[], TwoTierCache]) -> None:
    """By the measure that such a server evicts by: an entry that is read hundreds of times is evicted before."""
    with ValkeyServer(maxmemory="50mb", maxmemory_policy="allkeys-lfu") as server, server.client() as client:
        cache = TwoTierCache(LocalCache(), RedisCache(url=server.url, namespace=NAMESPACE, timeout_s=5.0))
        cache.get_or_compute("hot", lambda: 1)
        cache.invalidate("other")
        assert cache.l2 is not None
        nodes = NodeRegistry(cache.l2.connection, KEYS)
        for _ in range(100):
            nodes.beat("node")
        for _ in range(300):
            cache.l1.clear()
            assert cache.get("hot") == 1
        assert frequency(client, KEYS.records) >= frequency(client, KEYS.entry("hot"))
        cache.close()


def frequency(client: redis.Redis, name: bytes) -> int:
    seen: object = client.execute_command("OBJECT", "FREQ", name)
    assert isinstance(seen, int)
    return seen

"""Every order of events in which a cache could lose an invalidation, each forced: one process is held where it hurts, another
goes on, and then all are asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from coherence.puppet import Puppet
from faults import Clock, SteppedRedisCache, nothing, once, step_into_log
from servers import ValkeyServer

from pipeline.cache import MISS, Invalidation, LocalCache, RedisCache, TwoTierCache
from pipeline.cache.coherence.bus import BusState, NodeBus
from pipeline.cache.coherence.log import RedisInvalidationLog
from pipeline.cache.coherence.node import NodeFollower
from pipeline.cache.coherence.registry import NodeRegistry
from pipeline.cache.coherence.tail import Tail
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.breaker import CircuitBreaker
from pipeline.cache.server.connection import RedisConnection

MISSED = ("miss", None)
MakePuppet = Callable[..., Puppet]
Step = Callable[[], None]


@pytest.fixture
def make_puppet(redis_url: str, namespace: str) -> Iterator[MakePuppet]:
    made: list[Puppet] = []

    def make(bound_s: float = 1e-9) -> Puppet:
        made.append(Puppet(redis_url, namespace, bound_s))
        return made[-1]

    yield make
    for puppet in made:
        puppet.close()


@pytest.fixture
def here(make_puppet: MakePuppet) -> Puppet:
    return make_puppet()


@pytest.fixture
def there(make_puppet: MakePuppet) -> Puppet:
    return make_puppet()


# -- processes


@pytest.mark.parametrize("what", ["compute", "compute_reading"])
@pytest.mark.parametrize("pattern", ["a:k:1", "a:*", "a:?:[1-3]", "*", "dep:1", "dep:*", "d*1"])
def test_an_invalidation_during_a_computation(here: Puppet, there: Puppet, pattern: str, what: str) -> None:
    """Of the key or of a dependency, by any kind of pattern, and whether or not the process has heard of it when it stores the
    result: that goes to the caller, and is never served again."""
    here.begin("computing", what, "a:k:1", "old", "dep:1")
    assert there.invalidate(pattern)[2]
    assert here.finish() == ("no", "old")
    assert here.read("a:k:1") == MISSED
    assert there.read("a:k:1") == MISSED


def test_an_invalidation_of_something_else_during_a_computation(here: Puppet, there: Puppet) -> None:
    """The counterpart: entries that do not match stay, in both tiers and for both processes."""
    here.begin("computing", "compute", "a:k:1", "value", "dep:1")
    assert there.invalidate("a:k:11", "a:k:1:*", "dep:?1", "A:k:1")[2]
    assert here.finish() == ("no", "value")
    assert here.read("a:k:1") == ("l1", "value")
    assert there.read("a:k:1") == ("l2", "value")


def test_an_invalidation_between_the_read_of_l2_and_the_fill_of_l1(here: Puppet, there: Puppet) -> None:
    """The read began before and may have the old value; L1 must not keep it."""
    there.compute("k", "old", "dep")
    here.begin("read", "read", "k")
    there.invalidate("dep")
    assert here.finish() in (("l2", "old"), MISSED)
    assert here.read("k") == MISSED


def test_an_invalidation_and_a_new_value_between_the_read_of_l2_and_the_fill_of_l1(here: Puppet, there: Puppet) -> None:
    """L1 must not put the old value before the new one either."""
    there.compute("k", "old")
    here.begin("read", "read", "k")
    there.invalidate("k")
    there.compute("k", "new")
    here.finish()
    assert here.read("k") in (("l1", "new"), ("l2", "new"))


def test_an_invalidation_between_reading_the_routing_and_computing_the_response(here: Puppet, there: Puppet) -> None:
    """The response is as old as its routing, whatever was learned in between."""
    there.respond("old")
    there.invalidate("response:r")
    here.begin("routed", "respond", "old")
    there.invalidate("routing:*")
    assert here.finish() == ("no", "by old")
    for puppet in (here, there):
        assert puppet.read("response:r") == MISSED
    assert here.respond("new") == ("no", "by new")
    assert there.read("response:r") == ("l2", "by new")


def test_a_response_from_a_routing_that_l1_still_held(make_puppet: MakePuppet, there: Puppet) -> None:
    """Within the bound a process may take an old routing from L1; a value computed from that must not pass as fresh in L2, nor
    outlive the routing in its own L1."""
    here = make_puppet(bound_s=3600.0)
    here.respond("old")
    there.invalidate("routing:r")
    there.compute("routing:r", "new")
    assert here.read("routing:r") == ("l1", "old"), "that is what the bound allows"
    assert there.read("response:r") == MISSED
    here.begin("routed", "respond", "old")
    assert there.respond("new") == ("no", "by new")
    here.finish()
    assert there.read("response:r") == ("l1", "by new")
    assert make_puppet().read("response:r") in (("l2", "by new"), MISSED)


def test_an_invalidation_of_a_dependency_that_is_never_cached(here: Puppet, there: Puppet) -> None:
    """A user is no entry, and yet a user's answers can be made misses; before, during and after."""
    there.compute("k", "old", "user:1")
    here.read("k")
    there.invalidate("user:1")
    assert here.read("k") == MISSED
    here.begin("computing", "compute", "k", "older", "user:1")
    there.invalidate("user:*")
    here.finish()
    assert there.read("k") == MISSED
    there.compute("k", "of another", "user:2")
    there.invalidate("user:1")
    assert here.read("k") == ("l2", "of another")


def test_an_invalidation_of_a_key_that_is_written_at_that_moment(here: Puppet, there: Puppet) -> None:
    """The entry lands after it, and lands invalid."""
    here.begin("writing", "compute", "k", "old")
    there.invalidate("k")
    assert here.finish() == ("no", "old")
    assert there.read("k") == MISSED
    assert here.read("k") == MISSED


def test_an_invalidation_of_a_key_that_is_set_at_that_moment(here: Puppet, there: Puppet) -> None:
    """It came after the set had taken its place in the log: the value that lands later is older."""
    here.begin("writing", "set", "k", "mine")
    there.invalidate("k")
    assert here.finish()
    assert there.read("k") == MISSED
    assert here.read("k") == MISSED


def test_an_invalidation_before_a_set_has_its_place_in_the_log(here: Puppet, there: Puppet) -> None:
    """The counterpart: the set is the later of the two, and stands."""
    here.begin("appending", "set", "k", "mine")
    there.invalidate("k")
    assert here.finish()
    assert there.read("k") == ("l2", "mine")


def test_a_set_while_another_is_written(here: Puppet, there: Puppet) -> None:
    """The later one in the log wins, or neither: the earlier one's bytes may cover it, and are not served."""
    here.begin("writing", "set", "k", "earlier")
    there.set("k", "later")
    here.finish()
    assert there.read("k") in (("l1", "later"), MISSED)
    assert here.read("k") == MISSED


def test_a_set_while_the_old_value_is_computed(here: Puppet, there: Puppet) -> None:
    """The computation's bytes may cover the new ones, and are not served."""
    here.begin("computing", "compute", "k", "old")
    there.set("k", "new")
    assert here.finish() == ("no", "old")
    assert here.read("k") in (("l2", "new"), MISSED)
    assert there.read("k") == ("l1", "new")


def test_an_invalidation_twice_during_one_computation(here: Puppet, there: Puppet, make_puppet: MakePuppet) -> None:
    """An equal pattern replaces its record: values computed before, between and after are told apart all the same."""
    third = make_puppet()
    here.begin("computing", "compute", "k", "before")
    there.invalidate("k")
    third.begin("computing", "compute", "k", "between")
    there.invalidate("k")
    assert there.compute("k", "after") == ("no", "after")
    here.finish()
    assert there.read("k") == ("l1", "after")
    third.finish()
    assert there.read("k") == ("l1", "after")
    for puppet in (here, third, make_puppet()):
        assert puppet.read("k") in (("l2", "after"), MISSED)


def test_an_invalidation_by_two_processes_at_once(here: Puppet, there: Puppet, make_puppet: MakePuppet) -> None:
    """Each takes a seq of its own; a value computed between the two is older than the second."""
    third = make_puppet()
    third.compute("k", "old")
    here.begin("appending", "invalidate", "k", "other")
    first = there.invalidate("k")
    assert third.compute("k", "between") == ("no", "between")
    second = here.finish()
    assert first[0] == second[0]
    assert first[1] < second[1]
    for puppet in (here, there, third):
        assert puppet.read("k") == MISSED


def test_an_invalidation_that_has_not_returned_holds_once_it_is_in_the_log(here: Puppet, there: Puppet) -> None:
    """The caller is held after the append: others see it already, and none sees it undone."""
    there.compute("k", "old")
    here.begin("appended", "invalidate", "k")
    assert there.read("k") == MISSED
    assert there.compute("k", "new") == ("no", "new")
    assert here.finish()[2]
    assert here.read("k") == ("l2", "new")


# -- threads of one process


def test_a_view_that_begins_anew_while_another_thread_judges(redis_url: str, namespace: str) -> None:
    """Redis lost all it had; one thread has an entry of the former epoch in its hands while another learns of the new one. The
    new one's records say nothing of that entry, which was invalidated in the former: it must not be served, nor kept."""
    l2 = SteppedRedisCache(redis_url, namespace)
    cache = TwoTierCache(LocalCache(), l2, staleness_bound_s=1e-9)
    other = TwoTierCache(LocalCache(), RedisCache(url=redis_url, namespace=namespace))
    other.get_or_compute("k", lambda: "old")
    cache.refresh()

    def redis_is_emptied_and_another_thread_hears_of_it() -> None:
        assert other.invalidate("k").durable
        with redis.Redis.from_url(l2.url) as client:
            client.delete(l2.keys.tail, l2.keys.records, l2.keys.marks, l2.keys.entry("k"))
        assert other.invalidate("another", "and another").durable
        thread = threading.Thread(target=cache.refresh)
        thread.start()
        thread.join()

    l2.after_read = once(redis_is_emptied_and_another_thread_hears_of_it)
    assert cache.get("k") is MISS
    assert cache.get("k") is MISS
    for each in (cache, other):
        each.close()


class Reading:
    """A thread that reads the log for a cache, held before it asks or after it was answered. By then it has noted the moment."""

    def __init__(self, cache: TwoTierCache) -> None:
        self._held, self._released = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=cache.refresh)

    def hold(self) -> None:
        """Hold this thread, and no other that comes by."""
        if threading.current_thread() is self._thread:
            self._held.release()
            assert self._released.acquire(timeout=20), "it was never let go"

    def begin(self) -> None:
        """Return when it is held."""
        self._thread.start()
        assert self._held.acquire(timeout=20), "it did not come to where it is held"

    def go_on(self) -> None:
        """Let go, and return when it is held again."""
        self._released.release()
        assert self._held.acquire(timeout=20), "it did not come to where it is held"

    def finish(self) -> None:
        self._released.release()
        self._thread.join(20)
        assert not self._thread.is_alive()


class Beginning:
    """A process that begins, with several threads. None of them knows the log when it asks, so that each is sent all of it."""

    def __init__(self, redis_url: str, namespace: str) -> None:
        self.l2, self._clock = SteppedRedisCache(redis_url, namespace), Clock()
        self.cache = TwoTierCache(LocalCache(), self.l2, clock=self._clock)
        self._log = step_into_log(self.cache)

    def asking(self) -> Reading:
        """A thread that is about to ask, later than all before it."""
        reading = Reading(self.cache)
        self._clock.tick(0.1)
        self._log.before_read = reading.hold
        reading.begin()
        self._log.before_read = nothing
        return reading

    def answered(self) -> Reading:
        """The same; it was answered, and has not taken the answer in."""
        reading = self.asking()
        self.hear(reading)
        return reading

    def hear(self, reading: Reading) -> None:
        """Let it be answered, and hold it again."""
        self._log.after_read = reading.hold
        reading.go_on()
        self._log.after_read = nothing

    def get(self, key: str, *, read: Step = nothing, answered: Step = nothing, judging: Step = nothing) -> Any:
        """Read in this thread, later than all others, with a step after the read, after the log's answer, and before judging."""
        self._clock.tick(0.1)
        here = threading.current_thread()

        def mine(step: Step) -> Step:
            step = once(step)
            return lambda: step() if threading.current_thread() is here else None

        self.l2.after_read, self._log.after_read, self.l2.before_decode = mine(read), mine(answered), mine(judging)
        return self.cache.get(key)

    def lose_the_log(self) -> None:
        """It begins anew with the next call; the entries are still there."""
        self.l2.raw().delete(self.l2.keys.tail)


@pytest.fixture
def beginning(redis_url: str, namespace: str) -> Iterator[Beginning]:
    beginning = Beginning(redis_url, namespace)
    yield beginning
    beginning.cache.close()


@pytest.fixture
def writer(redis_url: str, namespace: str) -> Iterator[TwoTierCache]:
    """Another process, which has stored `k`."""
    cache = TwoTierCache(LocalCache(), RedisCache(url=redis_url, namespace=namespace))
    cache.get_or_compute("k", lambda: "old")
    yield cache
    cache.close()


def test_a_view_that_an_answer_of_the_former_log_takes_back(writer: TwoTierCache, beginning: Beginning) -> None:
    """The reader asks last, and has an older page of the new log than a thread that asked first and was answered late. All the
    same it has asked: an answer to an earlier question cannot change by what the entry is judged that was read."""
    first, second = beginning.asking(), beginning.answered()
    beginning.lose_the_log()
    assert writer.invalidate("k").durable

    def the_log_moves_on_and_the_first_hears_of_it() -> None:
        assert writer.invalidate("another").durable
        first.finish()

    assert beginning.get("k", answered=the_log_moves_on_and_the_first_hears_of_it, judging=second.finish) is MISS
    assert beginning.cache.get("k") is MISS


def test_a_view_that_was_taken_back_and_stands_behind_the_readers_page(writer: TwoTierCache, beginning: Beginning) -> None:
    """Between the reader's question and its answer the view went to the former log, and to an earlier state of the new one: the
    page continues from further on, and is not taken. Nothing keeps that view from being taken back again."""
    first, second, third, fourth = beginning.asking(), beginning.answered(), beginning.asking(), beginning.answered()
    beginning.lose_the_log()
    assert writer.invalidate("k").durable
    beginning.hear(third)

    def the_log_moves_on_and_the_first_hears_of_it() -> None:
        assert writer.invalidate("another").durable
        first.finish()

    def the_view_goes_back_and_forth() -> None:
        second.finish()
        third.finish()

    steps = {"read": the_log_moves_on_and_the_first_hears_of_it, "answered": the_view_goes_back_and_forth}
    assert beginning.get("k", **steps, judging=fourth.finish) is MISS
    assert beginning.cache.get("k") is MISS


# -- a node


class Node:
    """A main process's follower and a child's cache, on one bus. Time passes when told; notices are handed over by the test."""

    def __init__(self, redis_url: str, namespace: str, *, slots: int = 1024) -> None:
        self.clock = Clock()
        self.bus = NodeBus(slots)
        self._url, self._namespace = redis_url, namespace
        connection, keys = RedisConnection(redis_url, retry_pause_s=0.0), KeySpace(namespace)
        log = RedisInvalidationLog(connection, keys, retention_s=3600.0)
        self.follower = NodeFollower("node", self.bus, log, NodeRegistry(connection, keys), clock=self.clock)
        self.follower.beat()
        self._connections = [connection]
        self.child = self.fork()

    def fork(self) -> TwoTierCache:
        """A cache as a child makes it that is forked now."""
        l2 = RedisCache(url=self._url, namespace=self._namespace)
        l2.connection.breaker = CircuitBreaker(pause_s=0.0)
        self._connections.append(l2.connection)
        child = TwoTierCache(LocalCache(), l2, strict=True, bus=self.bus, clock=self.clock, max_ttl_s=3600.0)
        child.refresh()
        return child

    def hear(self, done: Invalidation) -> None:
        """As `workers.queue.broadcast` announces it."""
        epoch, seq = (done.epoch, done.seq) if done.durable else ("", 0)
        assert self.follower.receive(epoch, seq, list(done.patterns)) is not None

    def source(self, key: str) -> str:
        found = self.child.lookup(key)
        return "miss" if found is MISS else found.source

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    """A server of the test's own, which remembers its data when it is stopped."""
    with ValkeyServer(keep_on_disk=True) as server:
        yield server


@pytest.fixture
def outsider(redis_url: str, namespace: str) -> Iterator[TwoTierCache]:
    """A process without a bus, on the tests' server."""
    cache = TwoTierCache(LocalCache(), RedisCache(url=redis_url, namespace=namespace), max_ttl_s=3600.0)
    yield cache
    cache.close()


@pytest.fixture
def node(redis_url: str, namespace: str) -> Iterator[Node]:
    node = Node(redis_url, namespace, slots=4)
    yield node
    node.close()


def test_a_notice_is_heard_by_a_child_at_its_next_read(node: Node, outsider: TwoTierCache) -> None:
    """Without a round trip, within the lease, and although nothing else has told it."""
    node.child.get_or_compute("k", lambda: "old", deps=("dep",))
    node.child.get_or_compute("kept", lambda: "value")
    done = outsider.invalidate("dep")
    assert node.source("k") == "l1", "the notice has not come yet, and the lease allows it"
    node.hear(done)
    assert node.source("k") == "miss"
    assert node.source("kept") == "l1"


def test_a_bus_that_begins_anew_while_a_child_reads_it(
    node: Node, outsider: TwoTierCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child has half of the former epoch in its hands: it must not take it for the whole of either."""
    node.child.get_or_compute("k", lambda: "old")
    node.hear(outsider.invalidate("another"))  # so that there is something to read on the bus
    l2 = outsider.l2
    assert l2 is not None

    def redis_is_emptied_and_the_main_process_hears_of_it() -> None:
        with redis.Redis.from_url(l2.url) as client:
            client.delete(l2.keys.tail, l2.keys.records, l2.keys.marks, l2.keys.entry("k"))
        node.hear(outsider.invalidate("k"))

    overtake = once(redis_is_emptied_and_the_main_process_hears_of_it)
    read = node.bus._read

    def overtaken(version: int, known: Tail | None, volatile_seen: int) -> BusState:
        state = read(version, known, volatile_seen)
        overtake()
        return state

    monkeypatch.setattr(node.bus, "_read", overtaken)
    assert node.source("k") == "miss"
    assert node.source("k") == "miss"


def test_a_child_whose_main_process_is_frozen_in_the_middle_of_a_write(
    node: Node, outsider: TwoTierCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child goes by its lease, and when that has run out the bus cannot be read: it asks Redis, and waits for no process."""
    node.child.get_or_compute("k", lambda: "old")
    node.child.get_or_compute("kept", lambda: "value")
    done = outsider.invalidate("k")
    seen: list[str] = []
    write = node.bus._write

    def frozen(index: int, text: str, seq: int) -> None:
        node.clock.tick(1.0)
        seen.extend((node.source("kept"), node.source("k")))
        assert node.bus.read(node.bus.tail, 0) is None
        write(index, text, seq)

    monkeypatch.setattr(node.bus, "_write", frozen)
    node.hear(done)
    assert seen == ["l1", "miss"]
    assert node.source("k") == "miss"


def test_a_child_that_fell_behind_the_ring(node: Node, outsider: TwoTierCache) -> None:
    """The records that it lacks were overwritten: it asks Redis, and goes on by the bus from there."""
    node.child.get_or_compute("k", lambda: "old")
    node.child.get_or_compute("kept", lambda: "value")
    node.hear(outsider.invalidate("k"))
    for number in range(9):
        node.hear(outsider.invalidate(f"another:{number}"))
    assert node.source("k") == "miss"
    assert node.source("kept") == "l1"
    node.hear(outsider.invalidate("kept"))
    assert node.source("kept") == "miss"


def test_lost_late_and_doubled_notices_reach_a_child_in_the_end(node: Node, outsider: TwoTierCache) -> None:
    """In any order: each that comes brings what came before it in the log, and the beat brings the rest."""
    keys = [f"k{number}" for number in range(4)]
    for key in keys:
        node.child.get_or_compute(key, lambda: "old")
    done = [outsider.invalidate(key) for key in keys[:3]]
    node.hear(done[2])
    assert [node.source(key) for key in keys] == ["miss", "miss", "miss", "l1"]
    node.child.get_or_compute("k0", lambda: "new")
    for late in (done[0], done[2], done[1]):
        node.hear(late)
    assert node.source("k0") == "l1", "it is newer than the notice that came late"
    outsider.invalidate("k3")
    assert node.source("k3") == "l1", "lost, and within the lease"
    assert node.follower.beat()
    assert node.source("k3") == "miss"


def test_a_lost_notice_and_a_main_process_that_does_not_beat(node: Node, outsider: TwoTierCache) -> None:
    """The lease runs out at the bound, and not a moment later; then the child asks for itself."""
    node.child.get_or_compute("k", lambda: "old")
    node.clock.tick(0.5)
    node.follower.beat()
    outsider.invalidate("k")
    node.clock.tick(0.999)
    assert node.source("k") == "l1"
    node.clock.tick(0.001)
    assert node.source("k") == "miss"


def test_a_notice_while_redis_is_away_reaches_every_child_and_the_log_when_redis_is_back(
    server: ValkeyServer, namespace: str
) -> None:
    """At once in the node, also in a child that was forked meanwhile; before anything is read from L2 again; and for all other
    processes from the moment at which one that heard of it is back in touch. The process that made it may be gone by then."""
    node = Node(server.url, namespace)
    origin = TwoTierCache(LocalCache(), RedisCache(url=server.url, namespace=namespace), strict=True, max_ttl_s=3600.0)
    node.child.get_or_compute("k", lambda: "old", deps=("dep",))
    assert origin.get("k") == "old"
    server.stop()
    done = origin.invalidate("dep")
    origin.close()
    assert not done.durable
    node.hear(done)
    assert node.source("k") == "miss"
    forked_meanwhile = node.fork()

    server.start()
    assert server.client().exists(KeySpace(namespace).entry("k")), "the old bytes are still there"
    assert forked_meanwhile.get("k") is MISS
    assert node.source("k") == "miss"
    assert node.follower.beat()
    stranger = TwoTierCache(LocalCache(), RedisCache(url=server.url, namespace=namespace), max_ttl_s=3600.0)
    assert stranger.get("k") is MISS
    assert node.fork().get("k") is MISS
    stranger.close()
    node.close()


def test_a_notice_while_redis_is_away_is_appended_by_the_main_process_alone(server: ValkeyServer, namespace: str) -> None:
    """No process of the node reads in the meantime: the beat alone carries it to the log."""
    node = Node(server.url, namespace)
    node.child.get_or_compute("k", lambda: "old")
    server.stop()
    assert node.follower.receive("", 0, ["k"]) is not None
    assert not node.follower.beat()
    server.start()
    assert node.follower.beat()
    stranger = TwoTierCache(LocalCache(), RedisCache(url=server.url, namespace=namespace), max_ttl_s=3600.0)
    assert stranger.get("k") is MISS
    stranger.close()
    node.close()

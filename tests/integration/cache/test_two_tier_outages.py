"""The two tiers while Redis is stopped, frozen, full or emptied, while it comes back, and in a forked child."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from faults import Clock, SteppedRedisCache, lost, step_into_log
from polling import until
from programs import run_program
from servers import ValkeyServer

from pipeline.cache import MISS, Found, LocalCache, RedisCache, TwoTierCache

BOUND_S = 1.0
TIMEOUT_S = 0.1

MakeCache = Callable[..., TwoTierCache]


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    """A server of the test's own, to break at will."""
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(server: ValkeyServer, clock: Clock) -> Iterator[MakeCache]:
    """Makes a cache as another process would have it. Its circuit breaker ticks with the test's clock, too."""
    made: list[TwoTierCache] = []

    def make_cache(*, timeout_s: float = TIMEOUT_S, **options: Any) -> TwoTierCache:
        l2 = SteppedRedisCache(server.url, "outage", timeout_s=timeout_s)
        l2.connection.breaker._clock = clock
        l2.connection.probe_patience_s = 5.0  # on a busy machine a server that is there may take longer than it should
        cache = TwoTierCache(LocalCache(100, clock=clock), l2, clock=clock, ttl_jitter=0.0, staleness_bound_s=BOUND_S, **options)
        made.append(cache)
        return cache

    yield make_cache
    server.start()
    for cache in made:
        cache.close()


def breaker_tries_again(clock: Clock) -> None:
    clock.tick(1.0)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("fault", ["stopped", "frozen"])
def test_an_outage_costs_no_answer(make: MakeCache, server: ValkeyServer, clock: Clock, fault: str, strict: bool) -> None:
    """Reads are served from L1, marked as unconfirmed, or bypass it in strict mode; computations go on; nothing raises."""
    cache = make(strict=strict)
    cache.get_or_compute("k", lambda: "old")
    {"stopped": server.stop, "frozen": server.freeze}[fault]()
    clock.tick(BOUND_S)
    found = cache.fetch("k", lambda: "new")
    assert found == (Found("new", "no", True) if strict else Found("old", "l1", True))
    assert cache.degraded
    assert cache.fetch("k2", lambda: 2) == Found(2, "no", True)
    assert cache.get("absent") is MISS
    assert cache.delete("k2") in (True, False)
    assert cache.delete_pattern("k*") >= 0
    assert cache.clear() >= 0
    stats = cache.get_stats()
    assert stats["l2"]["available"] is False
    assert {"cache_type", "memory_used", "connected_clients"} <= stats["l2"].keys()
    assert stats["degraded"] >= 1
    if fault == "frozen":
        server.thaw()


@pytest.mark.parametrize("strict", [False, True])
def test_in_an_outage_a_computation_that_runs_is_joined_as_l1_is_served(
    make: MakeCache, server: ValkeyServer, clock: Clock, strict: bool
) -> None:
    """Whether it was invalidated since cannot be known: its outcome is marked as unconfirmed, and in strict mode bypassed."""
    here, there = make(strict=strict), make()
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> str:
        begun.set()
        assert go_on.wait(20)
        return "old"

    with ThreadPoolExecutor(2) as pool:
        try:
            first = pool.submit(here.fetch, "k", slow)
            assert begun.wait(20)
            assert there.invalidate("k").durable
            server.stop()
            clock.tick(BOUND_S)
            second = pool.submit(here.fetch, "k", lambda: "new")
            if strict:
                assert second.result(20) == Found("new", "no", True)
            else:
                until(lambda: here.get_stats()["l1"]["misses"] == 2)
        finally:
            go_on.set()
        assert first.result(20).value == "old"
        if not strict:
            found = second.result(20)
            assert (found.value, found.degraded) == ("old", True)
            assert found.source in ("joined", "l1")


def test_l1_outlives_an_outage_by_its_ttl_and_by_60_s_at_most(make: MakeCache, server: ValkeyServer, clock: Clock) -> None:
    """Unconfirmed, an entry has its own time still, and not more."""
    cache = make()
    cache.get_or_compute("short", lambda: 1, ttl=10)
    cache.get_or_compute("long", lambda: 2, ttl=3600)
    server.stop()
    clock.tick(10.5)
    assert cache.get("short") is MISS
    assert cache.get("long") == 2
    clock.tick(50)
    assert cache.get("long") is MISS


@pytest.mark.parametrize(
    "call", ["get", "fetch", "set", "invalidate", "delete", "delete_pattern", "get_stats", "as_of", "available"]
)
def test_a_frozen_server_costs_one_time_out_and_then_nothing(
    make: MakeCache, server: ValkeyServer, clock: Clock, call: str
) -> None:
    """Each call is bounded by the time-out, not by a multiple; while the breaker is open no call waits at all."""
    timeout_s, slack_s = 0.5, 0.45  # below a second time-out
    cache = make(timeout_s=timeout_s)
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: cache.get("k"),
        "fetch": lambda: cache.fetch("k", lambda: 1),
        "set": lambda: cache.set("k", 1),
        "invalidate": lambda: cache.invalidate("k"),
        "delete": lambda: cache.delete("k"),
        "delete_pattern": lambda: cache.delete_pattern("*"),
        "get_stats": cache.get_stats,
        "as_of": cache.as_of,
        "available": lambda: cache.l2.available,  # type: ignore[union-attr]  # has one
    }
    connected = call != "as_of"  # which asks only a process that knows nothing yet
    if connected:
        cache.refresh()
    clock.tick(BOUND_S)
    server.freeze()
    try:
        started = time.monotonic()
        calls[call]()
        assert time.monotonic() - started < timeout_s + slack_s
        assert not cache.l2.connection.breaker.closed  # type: ignore[union-attr]  # has one
        started = time.monotonic()
        for _ in range(100):
            calls[call]()
        assert time.monotonic() - started < slack_s  # one time-out each would be 50 s
    finally:
        server.thaw()


def test_a_cache_that_never_saw_its_server_works_and_finds_it_later(make: MakeCache, server: ValkeyServer, clock: Clock) -> None:
    """A process may start before Redis does."""
    server.stop()
    cache = make()
    assert cache.get_or_compute("k", lambda: "alone") == "alone"
    assert cache.fetch("k", lambda: "again").source == "l1"
    server.start()
    breaker_tries_again(clock)
    cache.get("k")
    assert not cache.degraded
    assert cache.get_or_compute("k2", lambda: "shared") == "shared"
    other = make()
    assert other.get("k2") == "shared"


@pytest.mark.parametrize("fault", ["stopped", "frozen", "killed"])
def test_a_cache_recovers_without_a_restart(make: MakeCache, server: ValkeyServer, clock: Clock, fault: str) -> None:
    """Once Redis answers again, the first read after the breaker's pause is an ordinary one, and so is every one after it."""
    here, there = make(), make()
    for round_ in range(2):
        here.get_or_compute(f"k{round_}", lambda: "value")
        {"stopped": server.stop, "frozen": server.freeze, "killed": server.kill}[fault]()
        clock.tick(BOUND_S)
        for cache in (here, there):
            cache.get("k")
            assert cache.degraded
        server.thaw() if fault == "frozen" else server.start()
        breaker_tries_again(clock)
        for cache in (here, there):
            assert cache.refresh()
            assert not cache.degraded
        assert here.fetch("new", partial(int, round_)) == Found(round_, "no", False)
        found = there.lookup("new")
        assert found == Found(round_, "l2", False)
        assert here.invalidate("new").durable
        assert there.l1.clear() >= 1
        assert there.get("new") is MISS


@pytest.mark.parametrize("first", ["get", "fetch", "invalidate", "refresh", "set"])
def test_an_invalidation_made_during_an_outage_reaches_the_others_when_it_ends(
    make: MakeCache, server: ValkeyServer, clock: Clock, first: str
) -> None:
    """It says that it is not durable, holds here at once, and is appended before anything is read from L2."""
    here, there = make(), make()
    here.get_or_compute("k", lambda: "old", deps=("dep:1",))
    assert there.get("k") == "old"
    server.freeze()
    try:
        done = here.invalidate("dep:*")
        assert not done.durable
        assert here.get("k") is MISS
        assert here.get_or_compute("k", lambda: "newer", deps=("dep:1",)) == "newer"
        assert here.get("k") == "newer"
    finally:
        server.thaw()
    breaker_tries_again(clock)
    steps: dict[str, Callable[[], object]] = {
        "get": lambda: here.get("anything"),
        "fetch": lambda: here.fetch("anything", lambda: 1),
        "invalidate": lambda: here.invalidate("anything"),
        "refresh": here.refresh,
        "set": lambda: here.set("anything", 1),
    }
    steps[first]()
    there.l1.clear()
    assert there.get("k") is MISS
    assert here.get("k") in ("newer", MISS)
    assert not here._view.pending
    assert there.get_or_compute("k", lambda: "newest", deps=("dep:1",)) == "newest"


def test_a_computation_begun_before_an_invalidation_in_an_outage_is_not_kept(
    make: MakeCache, server: ValkeyServer, clock: Clock
) -> None:
    """Pending or appended, the invalidation is newer than its inputs."""
    cache = make()
    cache.refresh()
    server.freeze()
    try:

        def compute() -> str:
            assert not cache.invalidate("k").durable
            return "from old inputs"

        assert cache.get_or_compute("k", compute) == "from old inputs"
        assert cache.get("k") is MISS
    finally:
        server.thaw()
    breaker_tries_again(clock)
    assert cache.get("k") is MISS


def test_a_value_set_during_an_outage_is_read_back_here(make: MakeCache, server: ValkeyServer, clock: Clock) -> None:
    """It replaces the old value in this process; after the outage no caller is served the old one."""
    here, there = make(), make()
    here.set("k", "old")
    assert there.get("k") == "old"
    server.freeze()
    try:
        assert not here.set("k", "new").durable
        assert here.get("k") == "new"
    finally:
        server.thaw()
    breaker_tries_again(clock)
    here.refresh()
    there.refresh()
    assert here.get("k") in ("new", MISS)
    assert there.get("k") in ("new", MISS)


def test_a_server_that_lost_everything_is_a_new_epoch_for_all(make: MakeCache, server: ValkeyServer, clock: Clock) -> None:
    """The entries of L1s were made under a log that is gone: no process serves them once it has asked."""
    here, there = make(), make()
    here.get_or_compute("k", lambda: "old")
    assert there.get("k") == "old"
    before = here.as_of().epoch
    server.stop()
    server.start()
    clock.tick(BOUND_S)
    assert [cache.get("k") for cache in (here, there)] == [MISS, MISS]
    assert here.as_of().epoch == there.as_of().epoch != before
    assert here.get_or_compute("k", lambda: "new") == "new"
    assert there.get("k") == "new"


def test_a_server_that_is_full_costs_no_answer(make: MakeCache, server: ValkeyServer, clock: Clock) -> None:
    """It reads and refuses to write: an invalidation is not durable and holds here; it is appended when there is room."""
    here, there = make(), make()
    here.get_or_compute("k", lambda: "old")
    assert there.get("k") == "old"
    with server.client() as admin:
        admin.config_set("maxmemory", "1")
        assert not here.invalidate("k").durable
        assert here.get("k") is MISS
        assert here.fetch("k", lambda: "computed").source == "no"
        assert here.get("k") in ("computed", MISS)
        clock.tick(BOUND_S)
        assert here.get("k") in ("computed", MISS)
        admin.config_set("maxmemory", "0")
    clock.tick(BOUND_S)
    here.refresh()
    assert there.get("k") is MISS


def test_a_reader_that_cannot_append_does_not_read_past_what_it_has_invalidated(make: MakeCache, clock: Clock) -> None:
    """As long as the append fails, L2's copy of an entry that was invalidated here is not served here."""
    here, there = make(), make()
    there.get_or_compute("k", lambda: "old")
    log = step_into_log(here)
    log.before_append = lost
    assert not here.invalidate("k").durable
    for _ in range(3):
        assert here.get("k") is MISS
        clock.tick(BOUND_S)


def test_redis_may_be_configured_and_never_there(clock: Clock) -> None:
    """A wrong address is an outage like any other."""
    cache = TwoTierCache(LocalCache(), RedisCache(url="redis://127.0.0.1:1/0", timeout_s=TIMEOUT_S), clock=clock)
    assert cache.fetch("k", lambda: 1).source == "no"
    found = cache.fetch("k", lambda: 2)
    assert (found.value, found.source) == (1, "l1")
    assert cache.degraded
    assert not cache.invalidate("k").durable
    assert cache.get("k") is MISS


FORK = """
    import os, sys
    from pipeline.cache import LocalCache, RedisCache, TwoTierCache
    from pipeline.cache.server.link import encode

    url, namespace = sys.argv[1:]
    shared = RedisCache(url=url, namespace=namespace, timeout_s=5.0)
    parent = TwoTierCache(LocalCache(), shared)
    assert parent.get_or_compute("k", lambda: "parent's") == "parent's"
    address = lambda: shared.connection.ask(encode(b"CLIENT", b"ID"), ("CLIENT",))
    before = address()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for round_ in range(200):
                shared.set(f"child:{round_}", round_)
                assert shared.get(f"child:{round_}") == round_
            assert address() != before, "the child speaks on its parent's socket"
            cache = TwoTierCache(LocalCache(), shared)
            assert cache.lookup("k").source == "l2"
            assert cache.invalidate("k").durable
            os.write(writing, b"x")
            status = 0
        finally:
            os._exit(status)
    for round_ in range(200):
        shared.set(f"parent:{round_}", round_)
        assert shared.get(f"parent:{round_}") == round_, "the parent read an answer that was its child's"
    os.close(writing)
    assert os.read(reading, 1) == b"x"
    assert os.waitpid(child, 0)[1] == 0
    parent.refresh()
    assert not parent.get("k")
    assert address() == before, "the child closed its parent's socket"
    print("ok")
"""


def test_a_forked_child_has_a_connection_of_its_own(redis_url: str, namespace: str) -> None:
    """Both go on, at the same time, and neither reads the other's answers nor closes its socket."""
    done = run_program(FORK, redis_url, namespace)
    assert done.stdout.strip() == "ok", done.stderr

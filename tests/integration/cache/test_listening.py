"""A process without a node's bus hears what others invalidate: by a thread, begun at its first read, of no part in the proof.

The staleness bound is a minute here where the lease must not be what made a process forget.
"""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from polling import until
from programs import run_program
from servers import ValkeyServer, calls

from pipeline.cache import LocalCache, RedisCache, TwoTierCache
from pipeline.cache.coherence import listener as listening
from pipeline.cache.coherence.bus import NodeBus
from pipeline.cache.coherence.log import RedisInvalidationLog
from pipeline.cache.coherence.node import NodeFollower
from pipeline.cache.coherence.published import page_in
from pipeline.cache.coherence.tail import Page
from pipeline.cache.keys import KeySpace

LONG_S = 60.0
Make = Callable[..., TwoTierCache]


@pytest.fixture
def make(redis_url: str, namespace: str) -> Iterator[Make]:
    """Caches of as many processes, with real clocks."""
    made: list[TwoTierCache] = []

    def make_cache(url: str = redis_url, **options: Any) -> TwoTierCache:
        options = {"listens": True, "staleness_bound_s": LONG_S, **options}
        made.append(TwoTierCache(LocalCache(100), RedisCache(url=url, namespace=namespace, timeout_s=1.0), **options))
        return made[-1]

    yield make_cache
    for cache in made:
        cache.close()


def hears(cache: TwoTierCache) -> bool:
    listener = cache._coherence.listener
    return listener is not None and listener.hears


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "cache-listener"}


def filled(cache: TwoTierCache, key: str = "k") -> TwoTierCache:
    """With the key in its L1, and its listener at work."""
    cache.get_or_compute(key, lambda: "old", ttl=600)
    until(lambda: hears(cache), "it hears")
    assert cache.lookup(key).source == "l1"  # type: ignore[union-attr]
    return cache


def test_what_another_process_invalidates_is_a_miss_at_once(make: Make) -> None:
    """By key, prefix, glob, and by what it was computed from: long before the lease ends."""
    here, there = make(), make(listens=False)
    for number, pattern in enumerate(("k0", "k1:*", "*k2*", "dep:*")):
        key = f"k{number}:x" if number in (1, 2) else f"k{number}"
        here.get_or_compute(key, lambda: "old", ttl=600, deps=("dep:1",) if number == 3 else ())
        until(lambda: hears(here), "it hears")
        assert here.get(key) == "old"
        began_s = time.monotonic()
        there.invalidate(pattern)
        until(lambda: here.get(key, None) is None, pattern, bound_s=5)  # noqa: B023 - called at once
        assert time.monotonic() - began_s < LONG_S / 4


def test_it_begins_with_the_first_read_and_ends_with_the_cache(make: Make) -> None:
    """A program that makes a cache, or only invalidates, has no thread; after `close` there is none, and a later read begins
    anew."""
    before = threads()
    cache = make()
    cache.invalidate("anything")
    assert threads() == before
    filled(cache)
    assert len(threads() - before) == 1
    cache.close()
    assert threads() == before
    filled(cache, "another")
    assert len(threads() - before) == 1


def test_the_thread_of_a_forgotten_cache_ends(redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps nothing alive."""
    monkeypatch.setattr(listening, "WAIT_S", 0.05)
    before = threads()
    cache = filled(TwoTierCache(LocalCache(10), RedisCache(url=redis_url, namespace=namespace), listens=True))
    forgotten = weakref.ref(cache._coherence)
    del cache
    gc.collect()
    until(lambda: threads() == before, "its thread has ended")
    assert forgotten() is None


def test_a_process_whose_node_writes_the_bus_has_no_listener(make: Make, redis_url: str, namespace: str) -> None:
    """A pool child follows its main process."""
    before, bus, keys = threads(), NodeBus(), KeySpace(namespace)
    child = make(bus=bus)
    assert child.l2 is not None
    log = RedisInvalidationLog(child.l2.connection, keys, retention_s=7200)
    assert NodeFollower("n", bus, log, None).catch_up()
    child.get_or_compute("k", lambda: 1)
    assert threads() == before


def test_a_bus_that_nobody_writes_leaves_it_to_the_listener(make: Make) -> None:
    """So it is in a program that was installed for workers and is none itself."""
    here, there = filled(make(bus=NodeBus())), make(listens=False)
    there.invalidate("k")
    until(lambda: here.get("k", None) is None, "it has heard", bound_s=5)


FORKS = """
    import os, sys, threading, time
    from pipeline.cache import LocalCache, RedisCache, TwoTierCache

    url, namespace = sys.argv[1:]
    def wait(condition):
        ends_s = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < ends_s
            time.sleep(0.01)
    def named():
        return [thread.name for thread in threading.enumerate()].count("cache-listener")
    cache = TwoTierCache(LocalCache(10), RedisCache(url=url, namespace=namespace), listens=True, staleness_bound_s=0.2)
    other = TwoTierCache(LocalCache(10), RedisCache(url=url, namespace=namespace))
    cache.get_or_compute("k", lambda: "old", ttl=600)
    wait(lambda: cache._coherence.listener.hears)
    children = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            assert named() == 0 and not cache._coherence.listener.begun
            wait(lambda: (cache.get("k", None), cache._coherence.listener.hears)[1])  # at its first look beyond L1
            assert named() == 1
            os.write(1, b"child\\n")  # in one piece: print writes the end of the line by itself
            cache.close()
            assert named() == 0
            os._exit(0)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
    assert cache._coherence.listener.hears and named() == 1, "what the children closed was theirs"
    cache.get_or_compute("k", lambda: "old", ttl=600)
    began_s = time.monotonic()
    other.invalidate("k")
    wait(lambda: cache.get("k", None) is None)
    print("parent", flush=True)
    cache.close(); other.close()
"""


def test_across_a_fork_each_side_has_its_own(redis_url: str, namespace: str) -> None:
    """The thread is not in the child, and the parent's connection is not shared: what the child closes is its own."""
    done = run_program(FORKS, redis_url, namespace)
    assert (done.stdout.split(), done.returncode) == (["child", "child", "parent"], 0), done.stderr


def test_after_a_restart_of_the_server_it_hears_again(
    namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log began anew meanwhile. What is lost is told once, and never raised."""
    monkeypatch.setattr(listening, "FIRST_PAUSE_S", 0.05)
    with ValkeyServer() as server:

        def make_one(*, listens: bool) -> TwoTierCache:
            l2 = RedisCache(url=server.url, namespace=namespace)
            return TwoTierCache(LocalCache(10), l2, listens=listens, staleness_bound_s=LONG_S)

        with closing(make_one(listens=True)) as here, closing(make_one(listens=False)) as there:
            filled(here)
            server.stop()
            until(lambda: not hears(here), "it knows that it does not hear")
            server.start()
            until(lambda: hears(here), "it hears again")
            filled(here, "new")
            there.invalidate("new")
            until(lambda: here.get("new", None) is None, "it has heard", bound_s=5)
    assert sum("cache.not_listening" in record.message for record in caplog.records) <= 2


@pytest.mark.parametrize("denied", ["-publish", "-subscribe"])
def test_without_the_right_to_publish_or_subscribe_the_lease_remains(
    namespace: str, denied: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The append does not fail for the notice's sake, nor does a read; a reader learns of it within the bound."""
    bound_s = 0.3
    with ValkeyServer() as server, server.client() as control:
        control.execute_command("ACL", "SETUSER", "half", "on", ">pw", "~*", "&*", "+@all", denied)
        url = f"redis://half:pw@127.0.0.1:{server.port}/0"

        def make_one() -> TwoTierCache:
            return TwoTierCache(LocalCache(10), RedisCache(url=url, namespace=namespace), listens=True, staleness_bound_s=bound_s)

        with closing(make_one()) as here, closing(make_one()) as there:
            here.get_or_compute("k", lambda: "old", ttl=600)
            assert there.invalidate("k").durable
            returned_s = time.monotonic()
            until(lambda: here.get("k", None) is None, "the lease has run out")
            assert time.monotonic() - returned_s < bound_s + 1
            assert not here.degraded
            assert not there.degraded
    if denied == "-subscribe":
        assert any("cache.not_listening: Redis refused: NOPERM" in record.message for record in caplog.records)


def test_foreign_messages_on_the_channel_do_no_harm(make: Make, redis_url: str, namespace: str) -> None:
    """Nothing is served that should not be, the thread goes on, and the next notice is heard."""
    here, there = filled(make()), make(listens=False)
    channel = KeySpace(namespace).notices(0)
    tail = here._coherence.view.tail
    with closing(ValkeyClient(redis_url)) as client:
        for message in (b"", b"garbage", b"\xff" * 100_000, b'%b:%d:0 %d ["k","' % (tail.epoch.encode(), 9, 3), b"e:1:0 0 [1]"):
            client.publish(channel, message)
        # One that claims a future that the log does not have: at most a miss, and no seq is skipped for it.
        client.publish(channel, b'%b:%d:0 %d ["other"]' % (tail.epoch.encode(), tail.seq + 101, tail.seq + 100))
    there.invalidate("k")
    until(lambda: here.get("k", None) is None, "it has heard", bound_s=5)
    assert here._coherence.view.tail.seq == tail.seq + 1


def ValkeyClient(url: str) -> Any:  # noqa: N802 - as a class
    import redis

    return redis.Redis.from_url(url)


def test_a_lost_message_is_made_up_for_by_the_next(make: Make) -> None:
    """Which does not continue what is known: then the log is read."""
    here, there = filled(make()), make(listens=False)
    here._coherence.hear, kept = (lambda _page: None), here._coherence.hear  # type: ignore[method-assign]
    here.get_or_compute("l", lambda: "old", ttl=600)
    there.invalidate("k")
    time.sleep(0.05)  # the message is dropped, or comes late: either is harmless
    here._coherence.hear = kept  # type: ignore[method-assign]
    there.invalidate("unrelated")
    until(lambda: here.get("k", None) is None, "it knows both", bound_s=5)
    assert here.get("l") == "old"


def test_more_patterns_than_a_message_takes_are_read_from_the_log(make: Make) -> None:
    """The message tells the tail alone."""
    here, there = filled(make()), make(listens=False)
    patterns = [f"{number:03}:" + "x" * 200 for number in range(100)]
    there.invalidate(*patterns, "k")
    until(lambda: here.get("k", None) is None, "it has heard", bound_s=5)


def test_databases_of_one_server_do_not_hear_each_other(make: Make, valkey: ValkeyServer) -> None:
    """A server's channels are those of all its databases."""
    here, elsewhere = filled(make()), make(valkey.url_of(5), listens=False)
    heard: list[Page | None] = []
    hear = here._coherence.hear
    here._coherence.hear = lambda page: (heard.append(page), hear(page))  # type: ignore[assignment,func-returns-value,method-assign]
    elsewhere.invalidate("k")
    there = make(listens=False)
    there.invalidate("l")
    until(lambda: heard, "it hears its own")
    assert [[text for text, _ in page.records] if page else None for page in heard] == [["l"]]


def test_what_a_process_invalidates_itself_costs_no_further_exchange(make: Make, valkey: ValkeyServer) -> None:
    """Its own listener may be faster than the answer: then nothing is left to be read."""
    here = filled(make())
    with valkey.client() as control:
        before = calls(control)
        for number in range(50):
            here.invalidate(f"own:{number}")
        done = calls(control) - before
    assert done["evalsha"] <= 55, done


def test_while_nothing_is_appended_it_costs_no_command(namespace: str) -> None:
    """At most 2 a second and process, those of the lease: the server is asked for nothing by the listener."""
    bound_s = 0.2
    with ValkeyServer() as server, server.client() as control:
        l2 = RedisCache(url=server.url, namespace=namespace, timeout_s=5.0)
        with closing(TwoTierCache(LocalCache(10), l2, listens=True, staleness_bound_s=bound_s)) as here:
            filled(here)
            here.refresh()  # the thread may have opened a second connection, after which the log is read once more
            before, began_s = calls(control), time.monotonic()
            while time.monotonic() < began_s + 2.0:
                here.get("k")
                time.sleep(0.005)
            took_s = time.monotonic() - began_s
            done = calls(control) - before
    assert done.total() <= 2 * (took_s / bound_s + 1), done
    assert done.keys() <= {"get", "getex"}


def test_the_messages_of_the_script_are_read_as_pages(make: Make, redis_url: str, namespace: str) -> None:
    """From the first append of a log on, whatever is in a pattern."""
    there = make(listens=False)
    assert there.l2 is not None
    log = RedisInvalidationLog(there.l2.connection, KeySpace(namespace), retention_s=7200)
    with closing(log.subscribe()) as heard:
        for patterns in (["a"], ["a", "a", "b:*"], ["é:\u2028:*", 'quote"\\\\and\\*', "한글:?"]):
            before = log.read_since(None).tail.seq
            tail = log.append(patterns)
            message = heard.receive(5.0)
            assert message is not None
            page = page_in(message)
            assert page is not None
            assert (page.tail, page.after, page.restart) == (tail, before, False)
            assert page.records == [(text, before + at) for at, text in enumerate(patterns, start=1)]
        assert heard.receive(0) is None


def test_a_deaf_listener_breaks_no_promise(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Subscribed, and nothing comes: the lease alone bounds what is served."""
    bound_s = 0.3
    here, there = make(staleness_bound_s=bound_s), make(listens=False)
    monkeypatch.setattr(listening.Listener, "tell", lambda *_: None)
    filled(here)
    there.invalidate("k")
    returned_s = time.monotonic()
    until(lambda: here.get("k", None) is None, "the lease has run out")
    assert time.monotonic() - returned_s < bound_s + 1


def test_a_wait_of_the_thread_ends_at_once_when_the_cache_is_closed(make: Make) -> None:
    """Not only after its pause, nor after its wait."""
    cache = filled(make())
    began_s = time.monotonic()
    cache.close()
    assert time.monotonic() - began_s < 1.0

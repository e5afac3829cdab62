"""A cache that is made, and used, before a fork: as a module of a program that forks its workers has it."""

from __future__ import annotations

import pytest
from programs import run_program

BEGIN = """
    import os, sys, threading, time
    from pipeline.cache import LocalCache, RedisCache, TwoTierCache

    url, namespace = sys.argv[1:]
    def make():
        return TwoTierCache(LocalCache(100), RedisCache(url=url, namespace=namespace, timeout_s=5), lease_s=0.6)

    def ended(child):
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    cache = make()
"""

LEASE = """
    cache.fetch("before", lambda: time.sleep(0.05))  # its keeper's thread lives on for a while
    assert any(thread.name == "lease-keeper" for thread in threading.enumerate())
    begun_read, begun_write = os.pipe()
    go_on_read, go_on_write = os.pipe()
    child = os.fork()
    if child == 0:
        def compute():
            os.write(begun_write, b".")
            os.read(go_on_read, 1)
            return "the child's"
        assert cache.fetch("k", compute).source == "no"
        os._exit(0)
    os.read(begun_read, 1)
    other, found = make(), []
    waiting = threading.Thread(target=lambda: found.append(other.fetch("k", lambda: "a second one")))
    waiting.start()
    waiting.join(2.0)  # more than three leases
    assert found == [], found
    os.write(go_on_write, b".")
    waiting.join(20)
    assert found[0].value == "the child's" and found[0].source == "joined", found
    ended(child)
"""

HELD = """
    # Every lock that there is, held by a thread that is not in the child; a flight of it, too, and its lease.
    from pipeline.cache import locks
    held, over = threading.Event(), threading.Event()
    cache.set("k", 1)

    def hold(inside):
        if inside:
            with inside[0]:
                hold(inside[1:])
        else:
            held.set()
            over.wait(20)

    def compute():
        begun.set()
        over.wait(20)
        return "the parent's"

    alone = TwoTierCache()
    computing = []
    for each in (cache, alone):
        begun = threading.Event()
        computing.append(threading.Thread(target=each.fetch, args=("flight", compute)))
        computing[-1].start()
        assert begun.wait(20)
    all_locks = [lock for lock in locks._alive() if isinstance(lock, locks.Lock)]
    assert len(all_locks) > 4
    holder = threading.Thread(target=hold, args=(all_locks,))
    holder.start()
    assert held.wait(20)
    child = os.fork()
    if child == 0:
        assert cache.get("k") == 1
        cache.set("k", 2)
        assert cache.get("k") == 2
        assert alone.fetch("flight", lambda: "mine").value == "mine"
        cache.invalidate("flight")  # so that its owner in the fleet, the parent, need not be waited for
        assert cache.fetch("flight", lambda: "mine").value == "mine"
        assert cache.delete("k") and cache.delete_pattern("*") >= 0 and cache.get_stats()
        os._exit(0)
    deadline = time.monotonic() + 20
    while (gone := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    over.set()
    holder.join()
    for thread in computing:
        thread.join()
    if gone[0] == 0:
        os.kill(child, 9)
        sys.exit("the child hangs")
    assert os.waitstatus_to_exitcode(gone[1]) == 0
"""

INSIDE = """
    # In the middle of a computation: what its thread holds in the fleet is the parent's.
    import redis
    from pipeline.cache.keys import KeySpace

    def compute():
        child = os.fork()
        if child == 0:
            raise SystemExit(0)
        ended(child)
        with redis.Redis.from_url(url) as client:
            assert client.exists(KeySpace(namespace).lease("k")), "the child has given back its parent's lease"
        return "the parent's"

    assert cache.fetch("k", compute).value == "the parent's"
"""

TREE = """
    # Children of children, while threads of each use the cache all the time.
    def use(over, rounds=10**9):
        for number in range(rounds):
            if over.is_set():
                return
            key = f"k:{number % 30}"
            assert cache.get_or_compute(key, lambda: key, ttl=0.3) == key
            if number % 7 == 0:
                cache.invalidate(key)

    def generation(depth):
        over = threading.Event()
        threads = [threading.Thread(target=use, args=(over,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        children = []
        for _ in range(2 if depth else 0):
            time.sleep(0.02)
            child = os.fork()
            if child == 0:
                use(threading.Event(), 30)
                generation(depth - 1)
                os._exit(0)
            children.append(child)
        for child in children:
            ended(child)
        over.set()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()

    generation(2)
"""


@pytest.mark.parametrize("story", [LEASE, HELD, INSIDE, TREE], ids=["a lease is kept", "locks are held", "inside", "a tree"])
def test_a_child_goes_on_with_its_parents_cache(redis_url: str, namespace: str, story: str) -> None:
    """With leases, flights and locks of its own: it waits for no thread that is not there, gives up nothing of its parent's."""
    done = run_program(BEGIN + story, redis_url, namespace)
    assert done.returncode == 0, done.stderr

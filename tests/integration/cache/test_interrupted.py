"""The cache used by a signal handler in the middle of its own thread's use of it: it works or raises, and waits for nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from broken_off import interrupted_at
from polling import until
from programs import run_program
from slow import BOUND_S, Slow

from pipeline.cache import MISS, ReentrantUseError, TwoTierCache

pytestmark = pytest.mark.usefixtures("own_locks")

MakeCache = Callable[..., TwoTierCache]
Use = Callable[[TwoTierCache], Any]

USES: dict[str, Use] = {
    "get": lambda cache: cache.get("there"),
    "set": lambda cache: cache.set("set", "set").durable,
    "invalidate": lambda cache: cache.invalidate("gone:*").durable,
    "fetch": lambda cache: cache.fetch("computed", lambda: "computed").value,
}


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(10) as pool:
        yield pool


@pytest.mark.parametrize("shared", [True, False], ids=["with L2", "L1 only"])
@pytest.mark.parametrize("interruption", USES)
@pytest.mark.parametrize("use", ["set", "invalidate", "fetch"])
def test_the_cache_bears_itself_in_the_middle(
    make: MakeCache, pool: ThreadPoolExecutor, use: str, interruption: str, shared: bool
) -> None:
    """At every line inside every lock: both come to their end, and the cache is whole after it."""
    expected = {"get": "there", "set": shared, "invalidate": shared, "fetch": "computed"}
    cache = make() if shared else TwoTierCache()
    for step in range(1, 300):
        cache.invalidate("computed")
        cache.set("there", "there")
        cache.set("gone:1", "gone")
        outcomes: list[object] = []

        def interrupt() -> None:
            try:
                outcomes.append(USES[interruption](cache))  # noqa: B023 - called in this very round
            except ReentrantUseError as error:
                outcomes.append(error)  # noqa: B023 - as above

        inside = interrupted_at(step, lambda: outcomes.append(USES[use](cache)), interrupt)  # noqa: B023 - as above
        assert outcomes[-1] == expected[use]
        if not inside:
            assert step > 10
            break
        refused = isinstance(outcomes[0], ReentrantUseError)
        assert refused or outcomes[0] == expected[interruption] or (interruption == "get" and outcomes[0] is MISS)
        assert not cache._flight._flights
        assert cache.get("there") == "there"
        if interruption == "invalidate" and not refused:
            assert cache.get("gone:1") is MISS
    else:
        pytest.fail("it has no end")
    for ask in USES.values():
        pool.submit(ask, cache).result(BOUND_S)


def test_who_was_interrupted_inside_waits_for_no_thread(make: MakeCache, pool: ThreadPoolExecutor) -> None:
    """That thread may be waiting for the very lock inside which this one was interrupted: it computes for itself."""
    cache = make(wait_s=600)
    slow = Slow("theirs")
    first = pool.submit(cache.fetch, "k", slow)
    assert slow.begun.wait(BOUND_S)
    mine: list[object] = []

    def interrupt() -> None:
        slow.go_on.set()  # from here on the other thread wants the lock
        mine.append(cache.fetch("k", lambda: "mine").value)

    assert interrupted_at(3, lambda: cache.l1.set("other", 1), interrupt)
    assert mine[0] in ("mine", "theirs")
    assert first.result(BOUND_S).value == "theirs"


def test_a_handler_may_ask_for_what_its_thread_waits_for(here: TwoTierCache, pool: ThreadPoolExecutor) -> None:
    """It waits on top of it, and both have the value."""
    slow = Slow("theirs")
    first = pool.submit(here.fetch, "k", slow)
    assert slow.begun.wait(BOUND_S)
    second = pool.submit(here.fetch, "k", lambda: pytest.fail("a second computation"))
    until(lambda: len(here._flight._flights["k"]._bells) == 1)
    flight = here._flight._flights["k"]
    assert not flight.wait(0.01)
    slow.go_on.set()
    assert flight.wait(BOUND_S)
    assert {each.result(BOUND_S).value for each in (first, second)} == {"theirs"}


SIGNALS = """
    import random, signal, sys, threading, time
    from pipeline.cache import MISS, LocalCache, RedisCache, ReentrantUseError, TwoTierCache

    url, namespace = sys.argv[1:]
    l2 = RedisCache(url=url, namespace=namespace, timeout_s=5) if url else None
    cache = TwoTierCache(LocalCache(8), l2, wait_s=20)
    handled = refused = 0
    over = threading.Event()
    ends_s = time.monotonic() + 1.5

    def use(rng):
        key = f"k:{rng.randrange(12)}"
        kind = rng.randrange(10)
        if kind < 4:
            assert cache.get(key) in (MISS, key)
        elif kind < 7:
            assert cache.get_or_compute(key, lambda: key, ttl=5) == key
        elif kind == 7:
            cache.set(key, key)
        elif kind == 8:
            cache.invalidate(key)
        else:
            cache.delete(key)
            cache.get_stats() if rng.random() < 0.1 else None

    def handler(*_):
        global handled, refused
        handled += 1
        try:
            use(in_handler)
        except ReentrantUseError:
            refused += 1
        if time.monotonic() < ends_s:
            signal.setitimer(signal.ITIMER_REAL, 0.0002 + in_handler.random() * 0.001)

    def work(seed):
        rng = random.Random(seed)
        while not over.is_set():
            use(rng)

    in_handler = random.Random(1)
    threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(2)]
    for thread in threads:
        thread.start()
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    rng = random.Random(2)
    while time.monotonic() < ends_s:
        use(rng)
    signal.setitimer(signal.ITIMER_REAL, 0)
    over.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    cache.l1.set("last", 1)
    assert len(cache.l1._eviction) == len(cache.l1) <= 8
    assert not cache._flight._flights
    assert handled > 20, handled
    print("handled", handled, "refused", refused)
"""


@pytest.mark.parametrize("shared", [True, False], ids=["with L2", "L1 only"])
def test_signals_that_use_the_cache_all_the_time(redis_url: str, namespace: str, shared: bool) -> None:
    """While the main thread and others use it too: no value of another key, no thread hangs, and L1 keeps its bound."""
    done = run_program(SIGNALS, redis_url if shared else "", namespace)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("handled ")

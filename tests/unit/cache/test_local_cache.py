"""L1 by itself: against a naive model, under threads, and to the last entry that it may keep."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
from broken_off import broken_off_at
from faults import Clock
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline.cache import MISS, LocalCache
from pipeline.cache.encoding.codec import ANY, codec_for
from pipeline.cache.entry import AsOf
from pipeline.cache.memory.local import Slot

KEYS = ["a", "a:b", "a:c", "b", "b:c:d", "*"]


class Model:
    """The cache as its pages describe it, as slow and plain as can be: two lists of keys, the oldest first."""

    def __init__(self, size: int, now: Callable[[], float]) -> None:
        self.size = size
        self.now = now
        self.entries: dict[str, tuple[int, float]] = {}
        self.probation: list[str] = []
        self.main: list[str] = []
        self.used: set[str] = set()
        self.ghosts: dict[int, int] | None = None

    def alive(self, key: str) -> bool:
        return key in self.entries and self.entries[key][1] > self.now()

    def forget(self, key: str) -> None:
        if key in self.entries:
            del self.entries[key]
            (self.main if key in self.main else self.probation).remove(key)
            self.used.discard(key)

    def ask(self, key: str) -> None:
        """As a reader does: one that has expired goes, and is remembered."""
        if self.alive(key):
            self.used.add(key)
        elif key in self.entries:
            self.haunt(key)
            self.forget(key)

    def haunt(self, key: str) -> None:
        if self.ghosts is not None:
            self.ghosts[hash(key) % (2 * self.size)] = hash(key) & 0xFFFFFFFF

    def put(self, key: str, value: int, ends_at: float) -> None:
        if key in self.entries:
            queue = self.main if key in self.main else self.probation
            queue.remove(key)
            queue.append(key)
            self.used.add(key)
        else:
            place = hash(key) % (2 * self.size)
            recalled = self.ghosts is not None and self.ghosts.get(place) == hash(key) & 0xFFFFFFFF
            if recalled:
                del self.ghosts[place]
            if len(self.entries) == self.size:
                self.evict()
            (self.main if recalled else self.probation).append(key)
        self.entries[key] = (value, ends_at)

    def evict(self) -> None:
        if self.ghosts is None:
            self.ghosts = {}
        while True:
            queue = self.probation if len(self.probation) >= max(1, self.size // 10) or not self.main else self.main
            key = queue[0]
            if key in self.used and self.alive(key):
                queue.remove(key)
                self.used.remove(key)
                self.main.append(key)
                continue
            if key in self.used or queue is self.probation:
                self.haunt(key)
            self.forget(key)
            return


class AgainstAModel(RuleBasedStateMachine):
    """Any sequence of calls gives the model's results, keeps the same entries, and counts the same."""

    @initialize(size=st.sampled_from([1, 2, 3, 4, 5, 25]))
    def begin(self, size: int) -> None:
        self.clock = Clock()
        self.cache = LocalCache(size, clock=self.clock)
        self.model = Model(size, self.clock)
        self.hits = self.misses = 0

    @rule(key=st.sampled_from(KEYS), value=st.integers(0, 9), ttl=st.sampled_from([1, 5, 60]))
    def set(self, key: str, value: int, ttl: int) -> None:
        self.cache.set(key, value, ttl=ttl)
        self.model.put(key, value, self.clock() + ttl)

    @rule(numbers=st.lists(st.integers(0, 12), max_size=60), ttl=st.sampled_from([1, 60]))
    def read_through(self, numbers: list[int], ttl: int) -> None:
        """As a program does: a missing value is computed and kept."""
        for number in numbers:
            self.get(f"n:{number}")
            if f"n:{number}" not in self.cache:
                self.set(f"n:{number}", number, ttl)

    @rule(first=st.integers(13, 60), count=st.integers(1, 30))
    def scan(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            self.set(f"n:{number}", number, 60)

    @rule(key=st.sampled_from(KEYS) | st.integers(0, 90).map("n:{}".format))
    def get(self, key: str) -> None:
        self.model.ask(key)
        if key in self.model.entries:
            self.hits += 1
            assert self.cache.get(key) == self.model.entries[key][0]
        else:
            self.misses += 1
            assert self.cache.get(key) is MISS

    @rule(key=st.sampled_from(KEYS))
    def contains(self, key: str) -> None:
        assert (key in self.cache) == self.model.alive(key)

    @rule(key=st.sampled_from(KEYS))
    def delete(self, key: str) -> None:
        assert self.cache.delete(key) == self.model.alive(key)
        self.model.forget(key)

    @rule(prefix=st.sampled_from(["a:", "b:", "n:1", ""]))
    def delete_pattern(self, prefix: str) -> None:
        doomed = [key for key in self.model.entries if key.startswith(prefix)]
        alive = sum(map(self.model.alive, doomed))
        assert alive <= self.cache.delete_pattern(prefix + "*") <= len(doomed)
        for key in doomed:
            self.model.forget(key)

    @rule()
    def clear(self) -> None:
        alive = sum(map(self.model.alive, self.model.entries))
        assert alive <= self.cache.clear() <= len(self.model.entries)
        for key in list(self.model.entries):
            self.model.forget(key)

    @rule(seconds=st.sampled_from([0.5, 1, 4.5, 60]))
    def tick(self, seconds: float) -> None:
        self.clock.tick(seconds)

    @invariant()
    def it_keeps_what_the_model_keeps(self) -> None:
        assert set(self.cache.slots) == set(self.model.entries)
        assert len(self.cache) == len(self.model.entries) <= self.model.size

    @invariant()
    def the_figures_are_right(self) -> None:
        stats = self.cache.get_stats()
        assert (stats["hits"], stats["misses"], stats["size"]) == (self.hits, self.misses, len(self.cache))


TestAgainstAModel = pytest.mark.slow(AgainstAModel.TestCase)


def kept(cache: LocalCache, keys: Iterable[str]) -> list[str]:
    return [key for key in keys if key in cache]


def test_what_is_not_used_again_is_evicted_first() -> None:
    """A read and a second write are uses; asking whether it is there is not."""
    cache = LocalCache(4)
    for key in "abcd":
        cache.set(key, key)
    cache.get("a")
    cache.set("b", "again")
    assert "c" in cache
    cache.set("e", "e")
    cache.set("f", "f")
    assert kept(cache, "abcdef") == ["a", "b", "e", "f"]


def test_a_scan_does_not_push_out_what_is_used() -> None:
    """However long it is: keys that are asked for once pass through a tenth of the room. An LRU would keep nothing of the
    rest."""
    cache = LocalCache(100)
    hot = [f"hot:{number}" for number in range(90)]
    for key in hot * 2:
        if cache.get(key) is MISS:
            cache.set(key, key)
    for number in range(10_000):
        cache.set(f"scan:{number}", number)
    assert kept(cache, hot) == hot


def test_what_comes_back_soon_after_it_was_evicted_stays() -> None:
    """Its ghost is remembered: a second coming is a use, and the next scan passes it by."""
    cache = LocalCache(10)
    for number in range(11):
        cache.set(f"scan:{number}", number)
    assert "scan:0" not in cache
    cache.set("scan:0", 0)
    for number in range(100, 200):
        cache.set(f"scan:{number}", number)
    assert "scan:0" in cache


def test_what_expired_has_no_second_turn() -> None:
    """However much it was used: its place goes before that of what can still be served."""
    clock = Clock()
    cache = LocalCache(2, clock=clock)
    cache.set("old", "old", ttl=10)
    cache.get("old")
    cache.set("a", "a", ttl=1000)
    clock.tick(10)
    cache.set("new", "new", ttl=1000)
    assert kept(cache, ["old", "a", "new"]) == ["a", "new"]


def test_what_expired_and_is_asked_for_comes_back_as_used() -> None:
    """A short time to live costs a popular key a miss, not its place among the popular ones."""
    clock = Clock()
    cache = LocalCache(10, clock=clock)
    for number in range(11):
        cache.set(f"scan:{number}", number, ttl=1000)
    cache.set("k", "k", ttl=10)
    clock.tick(10)
    assert cache.get("k") is MISS
    cache.set("k", "k", ttl=1000)
    for number in range(100, 200):
        cache.set(f"scan:{number}", number, ttl=1000)
    assert "k" in cache


@pytest.mark.parametrize("size", [0, -1])
def test_a_cache_that_could_keep_nothing_is_refused(size: int) -> None:
    """By the parameter's name."""
    with pytest.raises(ValueError, match="max_size"):
        LocalCache(size)


def test_an_entry_ends_to_the_moment() -> None:
    """At its end it is a miss, just before it is not."""
    clock = Clock(0.0)
    cache = LocalCache(clock=clock)
    cache.set("k", 1, ttl=10)
    clock.now_s = 9.999
    assert cache.get("k") == 1
    assert "k" in cache
    clock.now_s = 10.0
    assert "k" not in cache
    assert cache.get("k") is MISS
    assert len(cache) == 0


def test_the_statistics_have_the_names_and_forms_that_dashboards_read() -> None:
    """'cache_type', 'size', 'max_size', 'hits', 'misses' and a rate as '90.9%'."""
    cache = LocalCache(50)
    assert cache.get_stats()["hit_rate"] == "0.0%"
    for number in range(42):
        cache.set(str(number), number)
    for _ in range(10):
        cache.get("1")
    cache.get("absent")
    assert cache.get_stats() == {
        "cache_type": "L1 Local",
        "size": 42,
        "max_size": 50,
        "hits": 10,
        "misses": 1,
        "hit_rate": "90.9%",
    }


def test_counts_are_exact_under_threads() -> None:
    """Eight threads: no hit and no miss is lost, no entry too many is kept, no reader sees another reader's value."""
    cache = LocalCache(100)
    barrier = threading.Barrier(8)
    wrong: list[Any] = []

    def work(thread: int) -> None:
        barrier.wait(20)
        for number in range(2_000):
            key = f"{thread}:{number % 10}"
            if number < 10:
                cache.set(key, [thread])
            value = cache.get(key)
            if value != [thread]:
                wrong.append(value)
            value.append("mine")
            cache.get(f"absent:{number}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    stats = cache.get_stats()
    assert wrong == []
    assert (stats["hits"], stats["misses"], stats["size"]) == (16_000, 16_000, 80)


def test_threads_that_write_beyond_the_size_never_exceed_it() -> None:
    """Nor break the queues while keys go, by name and by pattern."""
    cache = LocalCache(16)
    stop = threading.Event()
    wrong: list[Any] = []

    def work(thread: int) -> None:
        try:
            for number in range(3_000):
                cache.set(f"{thread}:{number % 40}", number)
                cache.get(f"{(thread + 1) % 4}:{number % 40}")
                if number % 50 == 0:
                    cache.delete_pattern(f"{thread}:1*")
                if len(cache) > 16:
                    wrong.append(len(cache))
        except Exception as error:  # noqa: BLE001 - any at all fails the test, in the main thread
            wrong.append(error)
        finally:
            stop.set()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert len(cache._eviction) == len(cache) <= 16


@pytest.mark.parametrize("change", ["evict", "replace", "delete", "delete_pattern", "expire", "clear"])
def test_a_change_that_was_broken_off_costs_nothing_but_itself(change: str) -> None:
    """At whichever line: the bound holds, no entry is lost sight of, and kept values are right."""
    for step in range(1, 500):
        clock = Clock()
        cache = LocalCache(5, clock=clock)
        for key in ("brief", "a", "b", "c", "d"):
            cache.set(key, key, ttl=5 if key == "brief" else 1000)
        for key in "ab":
            cache.get(key)
        cache.set("e", "e", ttl=1000)
        clock.tick(10)
        changes: dict[str, Callable[[], object]] = {
            "evict": lambda: cache.set("new", "new", ttl=1000),  # noqa: B023 - called in this very round
            "replace": lambda: cache.set("a", "a", ttl=1000),  # noqa: B023 - as above
            "delete": lambda: cache.delete("b"),  # noqa: B023 - as above
            "delete_pattern": lambda: cache.delete_pattern("*"),  # noqa: B023 - as above
            "expire": lambda: cache.get("brief"),  # noqa: B023 - as above
            "clear": cache.clear,
        }
        went_on = not broken_off_at(step, changes[change], "memory/local.py", "memory/eviction.py")
        assert len(cache) <= 5
        assert all(cache.get(key) in (MISS, key) for key in ("brief", "new", *"abcde"))
        for number in range(20):
            cache.set(f"scan:{number}", number, ttl=1000)
            assert len(cache._eviction) == len(cache) <= 5
        for number in range(100):  # two turns of whatever is left, and it is gone
            cache.set(f"more:{number}", number, ttl=1000)
            cache.get(f"more:{number}")
        assert all(key.startswith("more:") for key in cache.slots)
        if went_on:
            assert step > 5
            return
    pytest.fail("the change has no end")


class Watched(msgspec.Struct, frozen=True, weakref=True):
    """A value that tells when it is gone."""

    number: int


@pytest.mark.parametrize("way", ["evicted", "replaced", "deleted", "cleared"])
def test_what_goes_is_freed_at_once(way: str) -> None:
    """No place in a queue keeps it, nor does it wait for the garbage collector."""
    cache = LocalCache(5)
    values = [Watched(number) for number in range(5)]
    watched = [weakref.ref(value) for value in values]
    for value in values:
        cache.put(f"k{value.number}", Slot(codec_for(Watched), b"", value, 1e9, AsOf("e", 1, 0), ()))
    del value, values
    gc.disable()
    try:
        if way == "cleared":
            cache.clear()
        for number in range(5):
            if way == "deleted":
                assert cache.delete(f"k{number}")
            elif way != "cleared":
                cache.set(f"k{number}" if way == "replaced" else f"new:{number}", number)
        assert [reference() for reference in watched] == [None] * 5
    finally:
        gc.enable()


# -- as a tier


def slot(value: object, generation: int, expires_at: float = 100.0) -> Slot:
    payload, carried = ANY.encode(value)
    return Slot(ANY, payload, carried, expires_at, AsOf("e", 1, generation), ())


def test_only_a_slot_of_this_generation_is_a_hit() -> None:
    """An entry judged by older records is to be judged again: it stays, and is not counted."""
    cache = LocalCache()
    kept = slot("v", 3)
    cache.put("k", kept)
    assert cache.hit("k", 0.0, 3) is kept
    assert cache.hit("k", 0.0, 4) is None
    assert cache.hit("k", 0.0, 2) is None
    assert cache.hit("k", 100.0, 3) is None
    assert cache.hit("absent", 0.0, 3) is None
    stats = cache.get_stats()
    assert (stats["hits"], stats["misses"]) == (1, 0)


def test_a_discard_spares_what_another_thread_has_put_in_its_place() -> None:
    """It names the slot, not the key."""
    cache = LocalCache()
    old, new = slot("old", 1), slot("new", 2)
    cache.put("k", old)
    cache.put("k", new)
    cache.discard("k", old)
    assert cache.peek("k", 0.0) is new
    cache.discard("k", new)
    assert cache.peek("k", 0.0) is None
    cache.discard("k", new)


def test_a_slot_gives_each_caller_his_own_value() -> None:
    """And the same object only of what cannot be changed."""
    listed, text = slot([1], 1), slot("text" * 10, 1)
    assert listed.value(Any) == listed.value(Any)
    assert listed.value(Any) is not listed.value(Any)
    assert text.value(Any) is text.value(Any)

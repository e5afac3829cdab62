"""L1 by itself: against a naive model, under threads, and to the last entry that it may keep."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import pytest
from faults import Clock
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline.cache import MISS, LocalCache
from pipeline.cache.codec import ANY
from pipeline.cache.entry import AsOf
from pipeline.cache.local import Slot

KEYS = ["a", "a:b", "a:c", "b", "b:c:d", "*"]


class AgainstAModel(RuleBasedStateMachine):
    """Any sequence of calls gives what a table of (value, end) in the order of use gives."""

    @initialize(size=st.integers(1, 5))
    def begin(self, size: int) -> None:
        self.clock = Clock()
        self.cache = LocalCache(size, clock=self.clock)
        self.size = size
        self.model: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self.hits = self.misses = 0

    def _alive(self, key: str) -> bool:
        return key in self.model and self.model[key][1] > self.clock()

    @rule(key=st.sampled_from(KEYS), value=st.integers(0, 9), ttl=st.sampled_from([1, 5, 60]))
    def set(self, key: str, value: int, ttl: int) -> None:
        self.cache.set(key, value, ttl=ttl)
        self.model[key] = (value, self.clock() + ttl)
        self.model.move_to_end(key)
        if len(self.model) > self.size:
            self.model.popitem(last=False)

    @rule(key=st.sampled_from(KEYS))
    def get(self, key: str) -> None:
        if self._alive(key):
            self.hits += 1
            self.model.move_to_end(key)
            assert self.cache.get(key) == self.model[key][0]
        else:
            self.misses += 1
            self.model.pop(key, None)
            assert self.cache.get(key) is MISS

    @rule(key=st.sampled_from(KEYS))
    def contains(self, key: str) -> None:
        assert (key in self.cache) == self._alive(key)

    @rule(key=st.sampled_from(KEYS))
    def delete(self, key: str) -> None:
        assert self.cache.delete(key) == self._alive(key)
        self.model.pop(key, None)

    @rule(prefix=st.sampled_from(["a:", "b:", ""]))
    def delete_pattern(self, prefix: str) -> None:
        doomed = [key for key in self.model if key.startswith(prefix)]
        alive = sum(map(self._alive, doomed))
        assert alive <= self.cache.delete_pattern(prefix + "*") <= len(doomed)
        for key in doomed:
            del self.model[key]

    @rule()
    def clear(self) -> None:
        alive = sum(map(self._alive, self.model))
        assert alive <= self.cache.clear() <= len(self.model)
        self.model.clear()

    @rule(seconds=st.sampled_from([0.5, 1, 4.5, 60]))
    def tick(self, seconds: float) -> None:
        self.clock.tick(seconds)

    @invariant()
    def the_figures_are_right(self) -> None:
        stats = self.cache.get_stats()
        assert (stats["hits"], stats["misses"]) == (self.hits, self.misses)
        assert stats["size"] == len(self.cache) == len(self.model) <= self.size


TestAgainstAModel = AgainstAModel.TestCase


def test_the_entry_used_least_recently_is_pushed_out() -> None:
    """A read and a write are uses; asking whether it is there is none."""
    cache = LocalCache(3)
    for key in "abc":
        cache.set(key, key)
    cache.get("a")
    cache.set("b", "again")
    assert "c" in cache
    cache.set("d", "d")
    assert [key for key in "abcd" if key in cache] == ["a", "b", "d"]


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
    """Eight threads: no hit and no miss is lost, no entry too many is kept, no reader sees another's value."""
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
    """Nor break the order of use while keys go, by name and by pattern."""
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
    assert len(cache) <= 16


# -- as a tier


def slot(value: object, generation: int, expires_at: float = 100.0) -> Slot:
    payload, carried = ANY.encode(value)
    return Slot(ANY, payload, carried, expires_at, AsOf("e", 1, generation), ())


def test_only_a_slot_of_this_generation_is_a_hit() -> None:
    """What was judged by older records is to be judged again: it stays, and is not counted."""
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

"""L1 bounded in bytes as well as in entries."""

from __future__ import annotations

import gc
import random
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from broken_off import broken_off_at

from pipeline.cache import MISS, LocalCache, TwoTierCache
from pipeline.cache.memory.local import LARGEST_SHARE

MB = 2**20


class Answer(msgspec.Struct, frozen=True):
    content: str
    numbers: tuple[int, ...] = ()


def total(cache: LocalCache) -> int:
    return sum(slot.size_bytes for slot in cache.slots.values())


def test_a_thousand_large_answers_are_no_surprise() -> None:
    """Of 100 KB each, in 10 MB: some hundred stay, those that were asked for among them."""
    cache = LocalCache(1_000, max_bytes=10 * MB)
    for number in range(1_000):
        cache.set(f"k:{number}", "x" * 100_000)
        cache.get("k:7")
        assert cache.get_stats()["size_bytes"] == total(cache) <= 10 * MB
    assert 90 <= len(cache) <= 105
    assert cache.get("k:7") is not MISS
    unbounded = LocalCache(1_000)
    for number in range(200):
        unbounded.set(f"k:{number}", "x" * 100_000)
    assert len(unbounded) == 200


@pytest.mark.parametrize("replaced", [False, True])
def test_one_that_is_larger_than_a_share_is_not_kept(*, replaced: bool) -> None:
    """Nor is its predecessor, and nothing else goes for it."""
    cache = LocalCache(1_000, max_bytes=MB)
    for number in range(100):
        cache.set(f"k:{number}", "x" * 1_000)
    if replaced:
        cache.set("large", "small")
    cache.set("large", "x" * int(MB * LARGEST_SHARE))
    assert cache.get("large") is MISS
    assert len(cache) == 100


def test_one_that_grows_in_its_place_makes_room() -> None:
    cache = LocalCache(1_000, max_bytes=100_000)
    for number in range(100):
        cache.set(f"k:{number % 20}", "x" * (100 * (number // 20 + 1) * 10))
        assert cache.get_stats()["size_bytes"] == total(cache) <= 100_000


def test_after_any_changes_the_sum_is_that_of_the_slots() -> None:
    """By threads, too."""
    cache = LocalCache(50, max_bytes=100_000)

    def change(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(2_000):
            key = f"{rng.choice('ab')}:{rng.randrange(40)}"
            what = rng.randrange(20)
            if what < 14:
                cache.set(key, "x" * rng.randrange(20_000))
            elif what < 17:
                cache.delete(key)
            elif what < 19:
                cache.get(key)
            elif rng.random() < 0.1:
                cache.clear()
            else:
                cache.delete_pattern("a:*")

    threads = [threading.Thread(target=change, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.get_stats()["size_bytes"] == total(cache) <= 100_000


@pytest.mark.parametrize(
    "change",
    [
        lambda cache: cache.set("k:1", "y" * 3_000),
        lambda cache: cache.set("new", "y" * 3_000),
        lambda cache: cache.delete("k:1"),
        lambda cache: cache.delete_pattern("*"),
        lambda cache: cache.clear(),
    ],
    ids=["replaced", "new", "deleted", "dropped", "cleared"],
)
def test_a_change_that_is_broken_off_leaves_a_sum_that_the_next_puts_right(change: Callable[[LocalCache], Any]) -> None:
    """A signal may raise between any two steps."""
    step = 0
    while True:
        step += 1
        cache = LocalCache(100, max_bytes=20_000)
        for number in range(10):
            cache.set(f"k:{number}", "x" * 1_000)
        stopped = broken_off_at(step, lambda cache=cache: change(cache), "memory/local.py", "memory/eviction.py")
        cache.set("after", 1)
        assert cache.get_stats()["size_bytes"] == total(cache) <= 20_000
        if not stopped:
            break
    assert step > 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "of"),
    [
        (lambda n: f"{n}" + "x" * 5_000, Any),
        (lambda n: f"{n}" + "가" * 2_000, Any),
        (lambda n: {"n": n, "list": [{"a": 1.5, "b": f"text {i}"} for i in range(100)]}, Any),
        (lambda n: Answer(f"{n}" + "x" * 3_000), Answer),
        (lambda n: Answer(f"{n}", tuple(range(1_000, 1_500))), Answer),
        (lambda n: n, Any),
    ],
    ids=["texts", "wide texts", "documents", "structs", "structs of numbers", "numbers"],
)
def test_the_estimate_is_near_the_truth(value: Callable[[int], Any], of: Any) -> None:
    """What the interpreter says that the entries take is no more than a third above the bound."""
    cache = TwoTierCache(LocalCache(2_000, max_bytes=MB))
    cache.get_or_compute("warm", lambda: value(0), type=of)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(1_500):
        cache.get_or_compute(f"key:{number}", lambda number=number: value(number), type=of, deps=(f"dep:{number}",))
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert total(cache.l1) <= MB
    lineage = 1_500 * 500  # what is remembered of deps is no entry
    assert taken - lineage < MB * 4 / 3


@pytest.mark.parametrize("max_bytes", [0, -1])
def test_a_bound_below_one_is_refused(max_bytes: int) -> None:
    with pytest.raises(ValueError, match=r"^max_bytes: "):
        LocalCache(10, max_bytes=max_bytes)

"""L1 in the middle of a change that is interrupted by another one of the same thread: a signal handler's, or a finalizer's."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
from broken_off import BrokenOffError, interrupted_at
from faults import Clock

from pipeline.cache import MISS, LocalCache

pytestmark = pytest.mark.usefixtures("own_locks")

Change = Callable[[LocalCache], object]

CHANGES: dict[str, Change] = {
    "evict": lambda cache: cache.set("new", "new", ttl=1000),
    "replace": lambda cache: cache.set("a", "a", ttl=1000),
    "delete": lambda cache: cache.delete("b"),
    "delete_pattern": lambda cache: cache.delete_pattern("?"),
    "expire": lambda cache: cache.get("brief"),
    "clear": lambda cache: cache.clear(),
}
INTERRUPTIONS: dict[str, Change] = {
    "read": lambda cache: [cache.get(key) for key in ("brief", "new", *"abcde")],
    "write": lambda cache: cache.set("other", "other", ttl=1000),
    "write the same": lambda cache: cache.set("a", "a", ttl=1000),
    "write many": lambda cache: [cache.set(f"many:{number}", f"many:{number}", ttl=1000) for number in range(10)],
    "delete": lambda cache: cache.delete("b"),
    "delete and write": lambda cache: (cache.delete("d"), cache.set("d", "d", ttl=1000)),
    "delete_pattern": lambda cache: cache.delete_pattern("*"),
    "clear": lambda cache: cache.clear(),
}


def filled(size: int) -> LocalCache:
    """A full one: some of it used, one entry past its end, and a memory of one that was evicted."""
    clock = Clock()
    cache = LocalCache(size, clock=clock)
    for key in ("gone", "c", "a", "b", "d", "brief"):
        cache.set(key, key, ttl=5 if key == "brief" else 1000)
    for key in "ab":
        cache.get(key)
    cache.set("e", "e", ttl=1000)
    clock.tick(10)
    return cache


def check(cache: LocalCache, size: int) -> None:
    """Kept values are right, within the bound, and go in their turn."""
    assert len(cache) <= size + 1  # until the next change: the slots written in between and the change itself
    assert all(cache.get(key) in (MISS, key) for key in tuple(cache.slots))
    for number in range(10):
        cache.set(f"scan:{number}", number, ttl=1000)
        assert len(cache._eviction) == len(cache) <= size
    for number in range(30):  # two turns of whatever is left, and it is gone
        cache.set(f"more:{number}", number, ttl=1000)
        cache.get(f"more:{number}")
    assert [key for key in cache.slots if not key.startswith("more:")] == []


@pytest.mark.parametrize("interruption", INTERRUPTIONS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_bears_another_one_in_its_middle(change: str, interruption: str) -> None:
    """At whichever line, and whatever it is: no thread waits, the bound holds, no entry is lost sight of, kept values are
    right."""
    for size in (1, 5):
        for step in range(1, 200):
            cache = filled(size)
            went_on = not interrupted_at(step, lambda: CHANGES[change](cache), lambda: INTERRUPTIONS[interruption](cache))  # noqa: B023 - called in this very round
            check(cache, size)
            if went_on:
                assert step > 3 or size == 1
                break
        else:
            pytest.fail("the change has no end")


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_handler_deletes_is_gone_and_what_it_writes_is_there(change: str) -> None:
    """For the handler itself, at once: it is no worse off than any other caller, except for space."""
    for step in range(1, 200):
        cache = filled(5)
        seen: list[object] = []

        def interruption() -> None:
            cache.set("e", "written", ttl=1000)  # noqa: B023 - called in this very round
            cache.delete("d")  # noqa: B023 - as above
            seen.extend([cache.get("e"), cache.get("d")])  # noqa: B023 - as above

        assert "d" in cache
        assert "e" in cache
        if not interrupted_at(step, lambda: CHANGES[change](cache), interruption):  # noqa: B023 - as above
            assert step > 3
            return
        assert seen[1] is MISS
        assert seen[0] in (MISS, "written")
        assert cache.get("e") in (MISS, "written")
        assert cache.get("d") is MISS
    pytest.fail("the change has no end")


def test_a_change_that_is_interrupted_and_then_broken_off_is_made_good() -> None:
    """As by a handler that writes and then raises."""
    for step in range(1, 200):
        cache = filled(5)

        def interruption() -> None:
            cache.set("other", "other", ttl=1000)  # noqa: B023 - called in this very round
            raise BrokenOffError

        try:
            if not interrupted_at(step, lambda: cache.set("new", "new", ttl=1000), interruption):  # noqa: B023 - as above
                assert step > 3
                return
        except BrokenOffError:
            check(cache, 5)
    pytest.fail("the change has no end")


def test_a_finalizer_may_use_the_cache_anywhere() -> None:
    """The collector runs one wherever something is made: also inside a change."""
    cache = LocalCache(20)
    ran = 0

    class Cycle:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            nonlocal ran
            ran += 1
            cache.set(f"final:{ran % 7}", ran)
            cache.delete(f"k:{ran % 40}")
            cache.get("k:1")

    before = gc.get_threshold()
    gc.set_threshold(3)
    try:
        for number in range(3_000):
            Cycle()
            cache.set(f"k:{number % 40}", number)
            cache.get(f"k:{number % 40}")
    finally:
        gc.set_threshold(*before)
    assert ran > 1_000
    assert len(cache) <= 21
    cache.set("last", 1)
    assert len(cache._eviction) == len(cache) <= 20

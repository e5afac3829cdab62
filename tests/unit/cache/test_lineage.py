"""What a process remembers of deps: how much it takes, and that sharing mixes nothing up."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Final

from pipeline.cache.lineage import KEPT, MOST_SHARED, NARROW, TOO_MANY, Lineage

MOST_BYTES: Final = 250
"""A key: its name of a hundred characters, and its place."""


def deps_of(number: int) -> tuple[str, ...]:
    """New texts each time, as the pipeline makes them for each answer."""
    routing = number % 10
    return (
        f"routing:curious-medium-topic {routing}",
        f"prompt:sage:curious-medium-topic {routing}",
        f"persona:sage:info {routing}",
    )


def test_keys_with_equal_deps_share_them() -> None:
    lineage = Lineage()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(KEPT):
        lineage.note(f"persona:sage:curious-medium-topic {number:072}", deps_of(number))
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert taken < KEPT * MOST_BYTES
    assert all(lineage.of(f"persona:sage:curious-medium-topic {number:072}") == deps_of(number) for number in range(KEPT))


def test_it_is_bounded_and_forgets_none_of_the_last() -> None:
    lineage = Lineage()
    for number in range(5 * KEPT):
        lineage.note(f"key {number}", (f"dep {number}",))
    assert len(lineage._newer) + len(lineage._older) <= 2 * KEPT
    assert len(lineage._equal) <= MOST_SHARED
    assert all(lineage.of(f"key {number}") == (f"dep {number}",) for number in range(4 * KEPT, 5 * KEPT))


def test_deps_that_are_others_each_time_are_not_held() -> None:
    """One key, which is noted anew and takes one place; wide deps are held by their key alone."""
    lineage = Lineage()
    for number in range(3 * MOST_SHARED):
        lineage.note("key", (f"dep {number}", *(f"more {number} {each}" for each in range(number % (2 * NARROW)))))
    assert len(lineage._equal) <= MOST_SHARED
    assert max(map(len, lineage._equal)) <= NARROW


def test_too_many_deps_are_known_by_their_identity() -> None:
    """Somebody's key may have the name that stands for them."""
    lineage, equal = Lineage(), (*TOO_MANY,)
    lineage.note("somebody's", equal)
    lineage.note("wide", TOO_MANY)
    lineage.note("another's", (*TOO_MANY,))
    assert lineage.of("wide") is TOO_MANY
    assert lineage.of("somebody's") is lineage.of("another's") is equal

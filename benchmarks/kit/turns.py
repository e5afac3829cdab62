"""Short calls timed in turn, so that the machine's other load falls on all of them alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

Batch = Callable[[], float]
"""Runs some calls. Returns how many nanoseconds one took."""
WARM_UP_ROUNDS: Final = 2


@contextmanager
def no_collections() -> Iterator[None]:
    """The garbage collector rests meanwhile: its runs have nothing to do with the calls that they interrupt."""
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def in_turn(
    batches: Mapping[str, Batch], rounds: int, before: Callable[[], object] = lambda: None, *, warm_up: int = WARM_UP_ROUNDS
) -> dict[str, list[float]]:
    """The time of each batch in each round, in nanoseconds. `before` each round is not timed, nor do the warm-up rounds count."""
    took_ns: dict[str, list[float]] = {name: [] for name in batches}
    with no_collections():
        for number in range(-warm_up, rounds):
            before()
            for name, batch in batches.items():
                mean_ns = batch()
                if number >= 0:
                    took_ns[name].append(mean_ns)
    return took_ns


def batch_of(call: Callable[[str], object], keys: Iterable[str]) -> Batch:
    """One call for each key, each time the same keys. The time includes the loop around a call, some 10 ns."""
    fixed = tuple(keys)

    def run() -> float:
        began_ns = time.perf_counter_ns()
        for key in fixed:
            call(key)
        return (time.perf_counter_ns() - began_ns) / len(fixed)

    return run

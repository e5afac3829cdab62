"""Sequences of keys as a cache may be asked for them, the same in each run, and the most hits that any cache could have."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

UNIVERSE: Final = 100_000  # of keys, for Zipf
ZIPF: Final = (0.6, 0.8, 1.0, 1.2)


def zipf(exponent: float, keys: int, requests: int, seed: int = 1) -> list[int]:
    """The key of rank r comes with a probability in proportion to 1 / r**exponent."""
    weights = list(itertools.accumulate(1 / rank**exponent for rank in range(1, keys + 1)))
    return random.Random(seed).choices(range(keys), cum_weights=weights, k=requests)  # noqa: S311 - the same requests each time


def scan(size: int, requests: int) -> list[int]:
    """Zipf 0.9 over 20 sizes' worth of keys; after each ten sizes' worth of requests come two of keys that never come again."""
    popular = iter(zipf(0.9, 20 * size, requests))
    fresh = itertools.count(20 * size)
    trace: list[int] = []
    while len(trace) < requests:
        trace += itertools.islice(popular, 10 * size)
        trace += itertools.islice(fresh, 2 * size)
    return trace[:requests]


def loop(size: int, requests: int) -> list[int]:
    """Half as many keys again as there is room for, over and over, in the same order."""
    return [number % (size * 3 // 2) for number in range(requests)]


def shift(size: int, requests: int) -> list[int]:
    """Zipf 1.0 over four sizes' worth of keys, all of which move on by half a size after each five sizes' worth of requests."""
    return [key + number // (5 * size) * (size // 2) for number, key in enumerate(zipf(1.0, 4 * size, requests))]


TRACES: Final[Mapping[str, Callable[[int, int], Sequence[int]]]] = {
    "zipf06": lambda _, requests: zipf(0.6, UNIVERSE, requests),
    "zipf08": lambda _, requests: zipf(0.8, UNIVERSE, requests),
    "zipf10": lambda _, requests: zipf(1.0, UNIVERSE, requests),
    "zipf12": lambda _, requests: zipf(1.2, UNIVERSE, requests),
    "scan": scan,
    "loop": loop,
    "shift": shift,
}
"""By name: makes a trace of that many requests for a cache of that size."""


def best_hits(trace: Sequence[int], size: int, warm_up: int) -> int:
    """The hits, after the first `warm_up` requests, of a cache that knows the future: it evicts the key that comes again last, or
    does not take in the new one (Belady 1966)."""
    never = len(trace)
    follows = [never] * len(trace)  # when the same key comes again
    seen: dict[int, int] = {}
    for at in range(len(trace) - 1, -1, -1):
        follows[at] = seen.get(trace[at], never)
        seen[trace[at]] = at
    kept: dict[int, int] = {}
    latest: list[tuple[int, int]] = []  # (minus when it comes again, key): also of what is kept no more, or comes sooner now
    hits = 0
    for at, key in enumerate(trace):
        again = follows[at]
        if key in kept:
            hits += at >= warm_up
        elif again == never:
            continue  # keeping it gains nothing
        elif len(kept) >= size:
            while True:
                last, candidate = latest[0]
                if kept.get(candidate) == -last:
                    break
                heapq.heappop(latest)
            if again >= -last:
                continue
            heapq.heappop(latest)
            del kept[candidate]
        if again == never:
            kept.pop(key, None)  # a hit, and the last of its key: its room is free
            continue
        kept[key] = again
        heapq.heappush(latest, (-again, key))
    return hits

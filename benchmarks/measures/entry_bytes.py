"""`python -m benchmarks.measures.entry_bytes NAME COUNT`: the bytes that an entry of that cache adds to a process.

Its key and its value do not count: every entry has the same value, and the keys are made before the measurement. What a cache
makes of them for itself does.
"""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.peers.caches_l1 import EVICTION_PEERS, L1_PEERS
from pipeline.cache import LocalCache

TTL_S: Final = 3_600
KEPT: Final = ("persona", "cachetools_lru", "cachetools_ttl", "theine", "moka")


def kept_by(name: str, count: int) -> Callable[[str, Any], Any]:
    """The function that keeps an entry in a cache with room for `count`."""
    if name == "persona":
        cache = LocalCache(count)
        return lambda key, value: cache.set(key, value, TTL_S)
    return ({**EVICTION_PEERS, **L1_PEERS})[name](count, TTL_S).set


def resident_bytes() -> int:
    """This process's memory now; where the system does not tell that, its highest so far."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main(name: str, count: int) -> float:
    keep = kept_by(name, count)
    value = "an answer of no great length"
    keep("warm-up", value)
    keys = [f"persona:lua:calm-medium-seek_advice:{number:032x}" for number in range(count)]
    gc.collect()
    before = resident_bytes()
    for key in keys:
        keep(key, value)
    gc.collect()
    return (resident_bytes() - before) / count


if __name__ == "__main__":
    print(main(sys.argv[1], int(sys.argv[2])))

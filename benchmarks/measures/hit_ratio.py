"""The hit ratio of L1, beside other caches of the same size and the optimum; and the memory of an entry."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from benchmarks.kit.contract import Benchmark, Figures, Measured, Progress
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.nodes import own_environment
from benchmarks.kit.traces import TRACES, best_hits
from benchmarks.kit.turns import no_collections
from benchmarks.measures.entry_bytes import KEPT
from benchmarks.peers.caches_l1 import EVICTION_PEERS, L1_PEERS, MISSING_NOTE, make_peers
from benchmarks.views.hit_ratio_view import view_hit_ratio
from pipeline.cache import LocalCache

TTL_S: Final = 3_600
BYTES_TIMEOUT_S: Final = 60.0


class Size(NamedTuple):
    """The size of the measurement."""

    entries: tuple[int, ...]
    requests: int
    warm_up: int
    kept: int


FULL: Final = Size(entries=(100, 1_000, 10_000), requests=100_000, warm_up=25_000, kept=100_000)
QUICK: Final = Size(entries=(100,), requests=4_000, warm_up=1_000, kept=20_000)


class Reader(NamedTuple):
    """A cache as a program reads through it."""

    get: Callable[[str], Any]
    set: Callable[[str, Any], Any]
    value: Callable[[Any], Any]


def measure_hit_ratio(progress: Progress, *, quick: bool = False) -> Measured:
    """The figures: `NAME_TRACE_SIZE_pct`, hits of all look-ups. Raises BenchmarkFailedError when a hit gave another value than
    was kept, when L1 held more than it may, or when any cache did better than the optimum."""
    size = QUICK if quick else FULL
    figures: Figures = {}
    missing: list[str] = []
    for entries in size.entries:
        for trace_name, make_trace in TRACES.items():
            progress(f"hit_ratio: {trace_name}, {entries} entries")
            trace = make_trace(entries, size.requests)
            counted = size.requests - size.warm_up
            best = best_hits(trace, entries, size.warm_up)
            figures[f"optimum_{trace_name}_{entries}_pct"] = 100 * best / counted
            peers, missing = make_peers(EVICTION_PEERS, entries, TTL_S)
            own = LocalCache(entries)
            readers = {"persona": Reader(lambda key: own.get(key, None), _keeping(own), lambda value: value)}  # noqa: B023 - read in this round
            readers |= {name: Reader(peer.get, peer.set, peer.value) for name, peer in peers.items()}
            for name, reader in readers.items():
                with no_collections():
                    hits = read_through(reader, trace, size.warm_up, name)
                if hits > best:
                    raise BenchmarkFailedError([f"{name}, {trace_name}, {entries} entries: {hits} hits, {best} are possible"])
                figures[f"{name}_{trace_name}_{entries}_pct"] = 100 * hits / counted
            for peer in peers.values():
                peer.close()
            if len(own) > entries:
                raise BenchmarkFailedError([f"L1 holds {len(own)} entries, {entries} are allowed"])
    others, absent = make_peers({name: L1_PEERS[name] for name in KEPT if name in L1_PEERS}, 1, TTL_S)
    for peer in others.values():
        peer.close()
    missing = sorted({*missing, *absent})
    progress(f"hit_ratio: the memory of {size.kept} entries")
    figures |= {f"{name}_entry_bytes": entry_bytes(name, size.kept) for name in KEPT if name not in missing}
    return Measured(figures, tuple(MISSING_NOTE.format(name) for name in missing))


def read_through(reader: Reader, trace: Sequence[int], warm_up: int, name: str) -> int:
    """Ask for each key in turn, and keep it after a miss. Returns the hits after the warm-up."""
    get, keep, value_of = reader
    hits = 0
    for at, number in enumerate(trace):
        key = f"k{number}"
        value = value_of(get(key))
        if value is None:
            keep(key, number)
        elif value != number:
            raise BenchmarkFailedError([f"{name}: another value than was kept"])
        elif at >= warm_up:
            hits += 1
    return hits


def entry_bytes(name: str, count: int) -> float:
    """The bytes that an entry adds to a process, beside its key and its value: measured in a process of its own with `count` of
    them."""
    command = [sys.executable, "-m", "benchmarks.measures.entry_bytes", name, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=BYTES_TIMEOUT_S, env=own_environment())  # noqa: S603 - this program's own
    if done.returncode:
        raise BenchmarkFailedError([f"{name}: the memory of an entry was not measured", *islice(done.stderr.splitlines(), 15)])
    return float(done.stdout)


def _keeping(cache: LocalCache) -> Callable[[str, Any], None]:
    return lambda key, value: cache.set(key, value, TTL_S)


BENCHMARK: Final = Benchmark(
    "hit_ratio",
    "What L1 keeps of all that it is asked for, and what an entry takes, beside other caches and the optimum.",
    7,
    measure_hit_ratio,
    view_hit_ratio,
)

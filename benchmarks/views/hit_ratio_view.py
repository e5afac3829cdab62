"""Hit ratios as a table for each size, and as plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmarks.views.view import BarPlot, Table, View, shown

_CACHES: Final = {
    "optimum": "optimum",
    "persona": "persona (S3-FIFO)",
    "cachetools_lru": "cachetools (LRU)",
    "theine": "theine (W-TinyLFU)",
    "moka": "moka (TinyLFU)",
}
_TRACES: Final = {
    "zipf06": "Zipf 0.6",
    "zipf08": "Zipf 0.8",
    "zipf10": "Zipf 1.0",
    "zipf12": "Zipf 1.2",
    "scan": "scan",
    "loop": "loop",
    "shift": "shift",
}
_SIZES: Final = (100, 1_000, 10_000)
_TEXT: Final = """
Each trace is read through each cache, key by key: what is not there is kept. The first quarter is the warm-up and does not count.
The optimum is that of a cache which knows the future (Belady). No cache can do better; the benchmark fails if one seems to.

*Zipf* is over 100,000 keys. *Scan* is Zipf 0.9, with keys that come once only in between. *Loop* asks for half as many keys again
as there is room for, over and over: an LRU has none of them. *Shift* is Zipf 1.0 over keys that all move on by half the size
every five sizes' worth of requests: what was popular is soon of no use, and a cache that counts how often a key came is misled.

The bytes of an entry are what a process grows by, beside the key and the one value that all entries share; `cachetools_lru` keeps
nothing but these two, while L1 keeps what it needs to judge an entry (its dependencies, its place in the log, its time to live),
and a value of its own that no other part of the program can change.
"""


def view_hit_ratio(figures: Mapping[str, float]) -> View:
    tables, plots = [], []
    for size in _SIZES:
        names = [name for name in _CACHES if f"{name}_zipf10_{size}_pct" in figures]
        if not names:
            continue
        columns = {trace: [f"{name}_{trace}_{size}_pct" for name in names] for trace in _TRACES}
        rows = [(_CACHES[name], *shown(figures, *(columns[trace][row] for trace in _TRACES))) for row, name in enumerate(names)]
        tables.append(Table(("hits, %", *_TRACES.values()), tuple(rows), title=f"{size} entries"))
        plots.append(
            BarPlot(
                f"hits_{size}",
                f"Hits, {size} entries",
                "% of all requests",
                tuple(_TRACES.values()),
                {_CACHES[name]: tuple(figures[columns[trace][row]] for trace in _TRACES) for row, name in enumerate(names)},
            )
        )
    weighed = [name for name in figures if name.endswith("_entry_bytes")]
    weights = tuple((name.removesuffix("_entry_bytes"), *shown(figures, name)) for name in weighed)
    return View(_TEXT, (*tables, Table(("cache", "bytes an entry"), weights)), tuple(plots))

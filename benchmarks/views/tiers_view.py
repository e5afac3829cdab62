"""The tiers' figures as tables: L1 and L2, each beside what a program might use in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmarks.views.view import BarPlot, Table, View, shown, shown_ratio

_SIZES: Final = {"100 B": "100b", "1 KB": "1kb", "10 KB": "10kb", "100 KB": "100kb"}
_L1_PEERS: Final = ("lru_cache", "cachetools_ttl", "cachebox", "theine", "moka")
_FACES: Final = {"L1, read by a computation": "l1_nested_hit_1kb_ns", "L1, awaited": "aio_hit_1kb_ns"}
_L2_PEERS: Final = ("dogpile", "aiocache", "cashews")
_TEXT: Final = """
One process, one thread; batches of calls in turn, the medians of the rounds. Values are text, but for the documents.

A hit of L1 is checked for its time to live and its type, against the node's bus, the lease and the log's generation, is counted,
and marks its entry. The others check at most the time to live. `cachebox` and `moka` are compiled; so is `functools.lru_cache`,
which has no time to live at all. Callers may change a document that they got, so that L1 makes one for each caller; the
others hand out the one that they keep, unless the caller copies it, as `copy.deepcopy` does in its column.

A hit of L2 reads a key that L1 does not hold: one round trip for the entry and the log's tail, the entry judged, decoded, and
kept in L1, where another one goes for it. Beside it stands what redis-py takes for a bare `GET` of the same text, which is then
neither decoded nor judged. `set` at L2 is an invalidation and a write; a fill is `get_or_compute` of a missing key, with the
lease that lets one process compute it. aiocache and cashews are for asyncio: what the event loop takes of a call is in it.
"""


def view_tiers(figures: Mapping[str, float]) -> View:
    peers = [name for name in _L1_PEERS if f"{name}_hit_1kb_ns" in figures]
    hits = Table(
        ("hit, 1 KB", "ns", "L1 to it"),
        (
            ("L1 (two tiers)", *shown(figures, "l1_hit_1kb_ns"), ""),
            ("L1 (LocalCache)", *shown(figures, "local_hit_1kb_ns"), ""),
            *((name, *shown(figures, figure), "") for name, figure in _FACES.items() if figure in figures),
            *((name, *shown(figures, f"{name}_hit_1kb_ns"), shown_ratio(figures, f"l1_to_{name}_hit_ratio")) for name in peers),
        ),
    )
    operations = Table(
        ("", *_SIZES),
        (
            _row(figures, "get, hit, ns", "l1_hit_{}_ns"),
            _row(figures, "get_or_compute, hit, ns", "l1_get_or_compute_{}_ns"),
            _row(figures, "cached, hit, ns", "l1_cached_{}_ns"),
            _row(figures, "get of a document, µs", "l1_document_{}_us"),
            _row(figures, "cachetools_ttl and deepcopy, µs", "cachetools_ttl_document_{}_us"),
            _row(figures, "set (LocalCache), µs", "local_set_{}_us"),
            *(_row(figures, f"set ({name}), µs", f"{name}_set_{{}}_us") for name in peers if name != "lru_cache"),
        ),
        title="Operations of L1",
    )
    misses = Table(("miss", "ns"), tuple((title, *shown(figures, f"{name}_miss_ns")) for title, name in _missers(peers).items()))
    others = [name for name in _L2_PEERS if f"{name}_hit_1kb_us" in figures]
    reads = Table(
        ("µs", *_SIZES),
        (
            _row(figures, "get", "l2_hit_{}_us"),
            _row(figures, "redis-py GET", "redis_get_{}_us"),
            ("L2 to it", *(_bare_ratio(figures, f"l2_to_redis_get_{label}_ratio") for label in _SIZES.values())),
            _row(figures, "get_or_compute", "l2_get_or_compute_{}_us"),
            _row(figures, "cached", "l2_cached_{}_us"),
            *(_row(figures, name, f"{name}_hit_{{}}_us") for name in others),
        ),
        title="Hits of L2",
    )
    beside = Table(
        ("1 KB, µs", "hit", "L2 to it", "miss", "set"),
        (
            ("L2", *shown(figures, "l2_hit_1kb_us"), "", *shown(figures, "l2_miss_us", "l2_set_us")),
            ("L2, fill", "-", "", "-", *shown(figures, "l2_fill_us")),
            (
                "redis-py",
                *shown(figures, "redis_get_1kb_us"),
                shown_ratio(figures, "l2_to_redis_get_1kb_ratio"),
                *shown(figures, "redis_miss_us", "redis_set_us"),
            ),
            *(
                (
                    name,
                    *shown(figures, f"{name}_hit_1kb_us"),
                    shown_ratio(figures, f"l2_to_{name}_hit_ratio"),
                    *shown(figures, f"{name}_miss_us", f"{name}_set_us"),
                )
                for name in others
            ),
        ),
        title="L2 beside other caches in Redis",
    )
    everyone = {"L1": "l1_hit_1kb_ns", **{name: f"{name}_hit_1kb_ns" for name in peers}}
    servers = {
        "L2": "l2_hit_1kb_us",
        "redis-py GET": "redis_get_1kb_us",
        **{name: f"{name}_hit_1kb_us" for name in others},
    }
    plots = (
        BarPlot("l1_hit", "A hit in memory, 1 KB", "ns", tuple(everyone), {"hit": _values(figures, everyone)}),
        BarPlot("l2_hit", "A hit in Redis, 1 KB", "µs", tuple(servers), {"hit": _values(figures, servers)}),
    )
    return View(_TEXT, (hits, operations, misses, reads, beside), plots)


def _missers(peers: list[str]) -> dict[str, str]:
    return {"L1 (no L2)": "l1", **{name: name for name in peers if name != "lru_cache"}}


def _bare_ratio(figures: Mapping[str, float], name: str) -> str:
    return f"{figures[name]:.2f}x"


def _row(figures: Mapping[str, float], title: str, pattern: str) -> tuple[str, ...]:
    return (title, *shown(figures, *(pattern.format(label) for label in _SIZES.values())))


def _values(figures: Mapping[str, float], names: Mapping[str, str]) -> tuple[float, ...]:
    return tuple(figures[name] for name in names.values())

"""The benchmarks of the tiers and the pipeline: the other side of each comparison, and that a fast but wrong call gives no
figure."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.traces import TRACES, best_hits
from benchmarks.measures.hit_ratio import Reader, read_through
from benchmarks.measures.pipeline import _Cases
from benchmarks.measures.tiers import ENTRIES, QUICK, _L1Bench
from benchmarks.peers.caches_l1 import L1Peer, make_peers
from benchmarks.views.hit_ratio_view import view_hit_ratio
from benchmarks.views.tiers_view import view_tiers
from pipeline.cache import LocalCache, TwoTierCache
from pipeline.settings import load_settings


def every_way(trace: tuple[int, ...], size: int, kept: frozenset[int] = frozenset()) -> int:
    """The most hits that any choice of what to keep can give, by trying them all."""
    if not trace:
        return 0
    key, rest = trace[0], trace[1:]
    if key in kept:
        return 1 + every_way(rest, size, kept)
    room = kept | {key}
    choices = [kept] if len(room) > size else [room]
    choices += [room - {other} for other in kept] if len(room) > size else []
    return max(every_way(rest, size, choice) for choice in choices)


@given(trace=st.lists(st.integers(0, 4), max_size=9), size=st.integers(1, 3))
def test_the_optimum_is_the_best_of_all_ways(trace: list[int], size: int) -> None:
    """No cache can do better, and one that knows the future can do as well."""
    assert best_hits(trace, size, 0) == every_way(tuple(trace), size)


def test_what_happens_in_the_warm_up_does_not_count() -> None:
    """Neither for the optimum nor for a cache that is measured."""
    trace = [1, 1, 2, 2, 1, 2]
    assert [best_hits(trace, 2, warm_up) for warm_up in (0, 2, 6)] == [4, 3, 0]
    cache: dict[str, Any] = {}
    reader = Reader(cache.get, cache.__setitem__, lambda value: value)
    assert read_through(reader, trace, 2, "dict") == 3


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_is_as_long_as_asked_and_the_same_each_time(name: str) -> None:
    """Else two caches would not be asked the same."""
    first = TRACES[name](10, 500)
    assert len(first) == 500
    assert list(first) == list(TRACES[name](10, 500))


def test_a_loop_is_what_an_lru_has_nothing_of() -> None:
    """Half as many keys again as there is room for; L1 has some of them, and never more than is possible."""
    trace = TRACES["loop"](10, 600)
    lru = lru_cache(10)(str)
    for key in trace:
        lru(key)
    assert (len(set(trace)), lru.cache_info().hits) == (15, 0)
    cache = LocalCache(10)
    own = read_through(Reader(lambda key: cache.get(key, None), cache.set, lambda value: value), trace, 0, "own")
    assert 0 < own <= best_hits(trace, 10, 0)


class Wrong:
    """A cache that answers at once, and something else each time."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def get(self, _: str) -> int:
        return next(self._numbers)

    def set(self, _: str, number: int) -> None:
        """Nothing is kept."""


def test_a_cache_that_gives_another_value_fails() -> None:
    """However many hits it has."""
    wrong = Wrong()
    with pytest.raises(BenchmarkFailedError, match="another value"):
        read_through(Reader(wrong.get, wrong.set, lambda value: value), [7, 7, 7], 0, "wrong")


def test_a_peer_that_is_not_installed_is_left_out() -> None:
    """And named, for the note."""

    def absent(_: int, __: float) -> L1Peer:
        raise ModuleNotFoundError

    kept: dict[str, Any] = {}
    peers, missing = make_peers({"absent": absent, "dict": lambda _, __: L1Peer(kept.get, kept.__setitem__)}, 10, 60.0)
    assert (list(peers), missing) == (["dict"], ["absent"])


def test_an_l1_that_keeps_nothing_fails() -> None:
    """It would be measured at the price of a miss."""
    bench = _L1Bench(QUICK)
    bench._cache = TwoTierCache(LocalCache(ENTRIES), l1_max_ttl_s=1e-9)
    with pytest.raises(BenchmarkFailedError, match="l1_hit"):
        bench.measure()


def test_an_answer_from_another_place_than_its_case_says_fails() -> None:
    """Without a shared tier there is no L2 hit: a computation is not measured as one."""
    with ExitStack() as resources:
        cases = _Cases(load_settings({}), resources)
        assert cases.batch("l1_hit", 3)() > 0
        with pytest.raises(BenchmarkFailedError, match="'no' instead of 'l2'"):
            cases.batch("l2_hit", 3)()


def test_the_tables_do_without_what_is_not_installed() -> None:
    """No peer is needed to see this project's own figures."""
    names = ["l1_hit_1kb_ns", "l2_hit_1kb_us", "redis_get_1kb_us", "l1_miss_ns"]
    names += [f"l2_to_redis_get_{size}_ratio{end}" for size in ("100b", "1kb", "10kb", "100kb") for end in ("", "_low", "_high")]
    own = dict.fromkeys(names, 1.0)
    shown = view_tiers(own)
    assert [row[0] for row in shown.tables[0].rows] == ["L1 (two tiers)", "L1 (LocalCache)"]
    hits = {f"{name}_{trace}_100_pct": 1.0 for name in ("optimum", "persona") for trace in TRACES}
    table, weights = view_hit_ratio({**hits, "persona_entry_bytes": 300.0}).tables
    assert [row[0] for row in table.rows] == ["optimum", "persona (S3-FIFO)"]
    assert weights.rows == (("persona", "300"),)

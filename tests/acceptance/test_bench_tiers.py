"""The benchmarks `tiers`, `hit_ratio` and `pipeline`: their figures are there, measured on right answers. No time is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

FIGURES = {
    "tiers": {"l1_hit_ns", "l2_hit_us", "redis_get_us"},
    "hit_ratio": {"optimum_zipf10_100_pct", "persona_zipf10_100_pct", "persona_loop_100_pct", "persona_entry_bytes"},
    "pipeline": {"l1_hit_us", "l2_hit_us", "miss_us", "miss_alone_us", "l1_hit_cache_pct"},
}


@pytest.mark.long
def test_the_tiers_and_the_pipeline_are_measured_beside_what_is_installed() -> None:
    """A note names the others. L1 keeps more of the popular keys than an LRU could, and never more than is possible."""
    command = [sys.executable, "-m", "benchmarks", *FIGURES, "--quick", "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    documents = {document["bench"]: document for document in json.loads(done.stdout)}
    assert set(documents) == set(FIGURES)
    for name, expected in FIGURES.items():
        figures = documents[name]["figures"]
        assert expected <= set(figures)
        assert all(isinstance(number, int | float) and number >= 0 for number in figures.values())
    installed = find_spec("cachetools") is not None
    assert ("cachetools_ttl_hit_ns" in documents["tiers"]["figures"]) == installed
    assert any("cachetools" in note for note in documents["tiers"].get("notes", ())) != installed
    ratios = documents["hit_ratio"]["figures"]
    assert ratios["persona_zipf10_100_pct"] > 33.0  # an LRU has 30 of the same trace
    assert ratios["persona_zipf10_100_pct"] <= ratios["optimum_zipf10_100_pct"]
    profiled = documents["pipeline"]["figures"].items()
    assert 99.0 < sum(number for name, number in profiled if name.startswith("l1_hit_") and name.endswith("_pct")) < 101.0

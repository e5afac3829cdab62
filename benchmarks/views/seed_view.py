"""The scenarios of the report as a table: its claims, this run's figures, the possible limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmarks.views.view import BarPlot, Table, View, shown

_SAVED: Final = {
    "repeat50_saved_pct": "50 equal: time saved, %",
    "patterns10_saved_pct": "100 over 10: time saved, %",
    "dashboard20_saved_pct": "1,000 over 20: time saved, %",
}
_ROWS: Final = {
    **_SAVED,
    "patterns10_mean_ms": "100 over 10: mean of one, ms",
    "repetitive_hit_pct": "repetitive use: hits, %",
    "varied_hit_pct": "varied use: hits, %",
    "usage_hit_pct": "real use: hits, %",
    "simultaneous10_ms": "10 simultaneous: the last, ms",
    "hit_ms": "a hit, ms",
    "l1_1000_mb": "1,000 entries in L1, MB",
    "l2_1000_mb": "the same in L2, MB",
}
_TEXT: Final = """
In one process, as in the report: the pipeline behind both tiers, a Valkey server as the second one, a model that takes 95 ms
(with what lies around it, `model_ms`). Each round begins with empty tiers; the model must have been called once for each kind of
request, and every answer must be the right one. The limit is what remains if a hit cost nothing, and for memory the bytes of the
answers' text alone.

"100 over 10" are 100 requests over 10 patterns. Varied use is each input twice; real use, of which the report says no more than
its hits, is Zipf 1.0 over 400 inputs here. Of 10 simultaneous equal requests, the time is that of the last answer.

Two of the report's claims cannot be compared. It gives the saving of 50 equal requests twice, as 89 % and as 94 %; the second,
better one stands here. And it says that 1,000 requests of which 70-80 % hit save "19-30 hours": 1,000 requests of 95 ms take 95
seconds in all.
"""


def view_seed(figures: Mapping[str, float]) -> View:
    rows = [(title, *shown(figures, f"claim_{name}", name, f"limit_{name}")) for name, title in _ROWS.items()]
    columns = {"the report's claim": "claim_", "this run": "", "the limit": "limit_"}
    labels = ("50 equal", "100 over 10", "1,000 over 20")
    return View(
        text=_TEXT,
        tables=(Table(("scenario", *columns), tuple(rows)),),
        plots=(
            BarPlot(
                "saved",
                "Time that the cache does not save",
                "% of the time without a cache",
                labels,
                {column: tuple(100 - figures[prefix + name] for name in _SAVED) for column, prefix in columns.items()},
            ),
        ),
    )

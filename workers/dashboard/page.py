"""The document that the page draws."""

from __future__ import annotations

from typing import Literal

import msgspec

from pipeline.figures import FleetFigures
from pipeline.figures.fleet import Audit, Ever, nines
from workers.dashboard.source import WINDOWS, FigureSource

State = Literal["live", "away", "unconfigured"]


class PageDocument(msgspec.Struct, frozen=True):
    """`state`: `away`, the cache's server does not answer; `unconfigured`, none is configured. `figures` are None unless `live`.
    `tiers`: the share of hits by tier. `refused`: the server's code, if it refuses a command that a cache needs.

    `audit`: the auditor's checks since the figures began; `fresh`: the share of fresh answers, at least, with 95 % certainty, as
    text; empty without checks."""

    state: State
    figures: FleetFigures | None = None
    tiers: dict[str, float | None] = {}
    refused: str = ""
    audit: Audit = Audit()
    fresh: str = ""


def window_of(text: str) -> int:
    """The window that an address asks for, in seconds. Raises ValueError with a sentence for any but those that there are."""
    allowed = {str(window_s): window_s for window_s in WINDOWS}
    if text not in allowed:
        raise ValueError(f"the window is one of {', '.join(allowed)} seconds")
    return allowed[text]


async def page_document(source: FigureSource, window_s: int) -> bytes:
    """As JSON. Leaves out the sums without an end, which the page does not use."""
    figures = await source.latest(window_s)
    if not figures.available:
        return msgspec.json.encode(PageDocument("away" if source.configured else "unconfigured", refused=figures.refused))
    shown = msgspec.structs.replace(figures, ever=Ever())
    audit = figures.ever.audit
    fresh = "" if audit.least_fresh is None else nines(audit.least_fresh)
    return msgspec.json.encode(PageDocument("live", shown, figures.requests.hit_ratios, figures.refused, audit, fresh))

"""How often each tier had the answer."""

from __future__ import annotations

from pipeline.figures.fleet import Requests


def hit_ratios(requests: Requests) -> dict[str, float | None]:
    """By tier, of the requests that looked there: L1 is asked by all, L2 by those that L1 did not answer. None: nobody looked.

    A stale answer was found and is no hit; one that was joined was in neither tier.
    """
    beyond_l1 = requests.total - requests.l1
    return {
        "l1": requests.l1 / requests.total if requests.total else None,
        "l2": requests.l2 / beyond_l1 if beyond_l1 else None,
    }

"""Which entries may be served past their TTL, and on which conditions."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from pipeline.cache.seconds import Duration


def _nothing(_: Exception) -> bool:
    return False


class Grace(msgspec.Struct, frozen=True):
    """An entry is kept for `s` (seconds, or a timedelta) past its TTL. An invalidated entry is not served by it, whatever its
    age.

    `refresh`: an entry past its TTL is served at once, and this is called to have it computed anew elsewhere; it must neither
    raise nor wait. None: the caller computes it anew. `forgives`: the failures of the computation after which the last good value
    is served instead. `max_age_s`: an entry that was computed longer ago is not served past its TTL, so that 0 means never; None:
    for as long as it is kept. Ages compare the clocks of two hosts, the writer's and the reader's: they are right to within the
    difference of the two.
    """

    s: Duration
    refresh: Callable[[], None] | None = None
    forgives: Callable[[Exception], bool] = _nothing
    max_age_s: float | None = None

    @property
    def longest_age_s(self) -> float:
        return math.inf if self.max_age_s is None else self.max_age_s

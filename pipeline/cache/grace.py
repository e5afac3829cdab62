"""What may be served past its time to live, and by whose leave."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from pipeline.cache.seconds import Duration


def _nothing(_: Exception) -> bool:
    return False


class Grace(msgspec.Struct, frozen=True):
    """An entry is kept `s` (seconds, or a timedelta) past its time to live. What was invalidated is not served by it, whatever
    its age.

    `refresh`: an entry past its time to live is served at once, and this is called, which is to have it computed anew by
    somebody else; it must not raise, nor wait. None: it is computed anew by who asks. `forgives`: after which failures of the
    computation the last good value is served instead. `max_age_s`: none that was computed longer ago is served past its time
    to live, so that 0 is never; None: as long as it is kept. Ages are told by the clocks of two hosts, those that wrote and
    read: they are right to within the difference of the two.
    """

    s: Duration
    refresh: Callable[[], None] | None = None
    forgives: Callable[[Exception], bool] = _nothing
    max_age_s: float | None = None

    @property
    def longest_age_s(self) -> float:
        return math.inf if self.max_age_s is None else self.max_age_s

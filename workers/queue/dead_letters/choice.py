"""Which letters an operator means: those of a task, of a reason, of an age."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from workers.queue.dead_letters.letter import Found


class Choice(NamedTuple):
    """All letters, or those that are all of this: of the task of that name; with the text within their reason; that old, or that
    young."""

    task: str | None = None
    why: str | None = None
    older_than_s: float | None = None
    newer_than_s: float | None = None

    def takes(self, one: Found, now_s: float) -> bool:
        age_s = now_s - one.letter.at
        return (
            self.task in (None, one.letter.task)
            and (self.why or "") in one.letter.why
            and (self.older_than_s is None or age_s >= self.older_than_s)
            and (self.newer_than_s is None or age_s <= self.newer_than_s)
        )

    def of(self, letters: Iterable[Found]) -> list[Found]:
        now_s = time.time()
        return [one for one in letters if self.takes(one, now_s)]

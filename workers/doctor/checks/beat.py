"""Of beat: that one leads, and sends what is ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from workers.doctor.finding import Finding, error, several, warning
from workers.doctor.seen import Seen
from workers.queue.names import MAINTAIN_TASK, PRELOAD_TASK

OURS: Final = frozenset({PRELOAD_TASK, MAINTAIN_TASK})
LATE_S: Final = 60.0


def none(seen: Seen) -> Finding | None:
    if seen.beat is None or not seen.beat.known or seen.beat.locked:
        return None
    why = "Nothing renews the answers asked for most, and nothing sweeps what was invalidated."
    return warning("beat", "none", "nobody holds the lock of the schedule", why, "celery -A persona_worker beat --pidfile=")


def unlocked(seen: Seen) -> Finding | None:
    if seen.beat is None or not seen.beat.unlocked:
        return None
    why = "It knows no lock: beside another beat all is sent twice, and only our own tasks see that their turn is taken."
    mend = "Start it without -S: the scheduler that is set has a lock"
    return warning("beat", "unlocked", several(list(seen.beat.unlocked)), why, mend)


def foreign(seen: Seen) -> Finding | None:
    if seen.beat is None:
        return None
    found = [f"{entry.name} ({entry.task or 'unreadable'})" for entry in seen.beat.entries if entry.name not in OURS]
    if not found:
        return None
    why = "Another app's schedule is kept under our name: our workers get tasks that they do not know."
    return warning("beat", "foreign", several(found), why, "Give that app a redbeat_key_prefix of its own")


def overdue(seen: Seen) -> Finding | None:
    if seen.beat is None or not seen.beat.locked:
        return None
    late_s = max(LATE_S, float(seen.settings.beat_lock_s))
    found = [f"{entry.name} by {entry.overdue_s:.0f} s" for entry in seen.beat.entries if entry.overdue_s > late_s]
    if not found:
        return None
    why = "A beat holds the lock and sends nothing: it is stuck, and keeps its spare from standing in."
    return error("beat", "overdue", several(found), why, "Restart beat")


CHECKS: Final[tuple[Callable[[Seen], Finding | None], ...]] = (none, unlocked, foreign, overdue)

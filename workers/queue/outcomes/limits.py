"""The time limits of one task: Celery's pool looks at the hard one only after the soft one has passed."""

from __future__ import annotations

from typing import Any


def limits_of(given: Any, task: Any) -> Any:
    """What Celery is to go by, hard and soft, of those that a message has `given` and of the task's own: the soft limit is never
    the longer one. A sender that gives a `time_limit` alone has it below the task's own soft limit, and without this the task
    would run until that one."""
    try:
        hard, soft = given
        ends_s, told_s = float(hard or task.time_limit or 0), float(soft or task.soft_time_limit or 0)
    except (TypeError, ValueError):
        return given  # Celery's to refuse
    return (ends_s, ends_s) if 0 < ends_s < told_s else given

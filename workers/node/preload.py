"""Preloading as tasks: the task that leads, those that help, and one run for each slot of beat's schedule."""

from __future__ import annotations

import logging
from typing import Any, Final

from celery import Celery
from kombu.exceptions import OperationalError

from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.flight.claims import Claim, Claims
from pipeline.hot import HotKeys
from pipeline.optimized import OptimizedPipeline
from pipeline.preload import Preloader, Share
from pipeline.settings import get_settings
from workers.queue.names import MAINTENANCE_QUEUE, RENEW_TASK

HELP_EXPIRES_S: Final = 60
SLOT_SHARE: Final = 0.8
"""The share of the interval that must have passed since the last run. The rest allows for a message's wait."""
MAX_BUDGET: Final = 10_000
MAX_EVERY_S: Final = 86_400

logger: Final = logging.getLogger(__name__)


def helpers_of(app: Celery) -> Share:
    """Calls a worker to help, behind the requests that callers wait for."""

    def share(round_id: str) -> None:
        try:
            app.send_task(
                RENEW_TASK,
                args=[round_id],
                queue=MAINTENANCE_QUEUE,
                expires=HELP_EXPIRES_S,
                ignore_result=True,
                retry=False,
            )
        except (OperationalError, OSError) as error:
            logger.warning("preload.help_not_called: the broker is out of reach (%s)", type(error).__name__)

    return share


def preloader_of(app: Celery, pipeline: OptimizedPipeline) -> Preloader:
    return Preloader(pipeline, interval_s=get_settings().preload_interval_s, share=helpers_of(app))


def takes_slot(pipeline: OptimizedPipeline, task: str, task_id: str, every_s: object) -> str | None:
    """None if the task is to run: it was not sent by beat (no `every_s`), or is the first of its slot. Else the reason not to.

    A slot is counted from the last run, not by the clock: of two tasks within 0.8 of the interval one runs, whatever beat sent
    them and however long they waited. A task that is delivered again still has its slot. Raises ValueError naming the fault.
    """
    if every_s is None:
        return None
    if isinstance(every_s, bool) or not isinstance(every_s, int | float) or not 0 < every_s <= MAX_EVERY_S:
        raise ValueError(f"every_s: {every_s!r:.60}; expected seconds above 0 and up to {MAX_EVERY_S}")
    l2 = pipeline.cache.l2
    if l2 is None:
        return None
    try:
        name = HotKeys(l2.keys.namespace).slot(task)
        held = Claims(l2.connection).take(name, Claim(task_id, "-", 0), SLOT_SHARE * every_s)
    except SharedTierUnavailableError:
        return "the cache's Redis is out of reach"
    return None if held is None or held.owner == task_id else f"it has run within the last {every_s:g} s"


def checked_budget(budget: object) -> int:
    """The number of model calls that a preload may make; None means the workers' own setting. Raises ValueError."""
    if budget is None:
        return get_settings().preload_budget
    if isinstance(budget, bool) or not isinstance(budget, int) or not 0 <= budget <= MAX_BUDGET:
        raise ValueError(f"budget: {budget!r:.60}; expected a whole number from 0 to {MAX_BUDGET}")
    return budget


def checked_round(round_id: Any, otherwise: str) -> str:
    """The id of a round. Raises ValueError for an invalid one."""
    if round_id is None:
        return otherwise
    if not isinstance(round_id, str) or not 1 <= len(round_id) <= 64 or not round_id.isascii() or not round_id.isprintable():
        raise ValueError("round_id: expected 1 to 64 printable ASCII characters")
    return round_id

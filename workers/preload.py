"""Preloading as tasks: who leads, who helps, and that a slot of beat's schedule runs once."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any, Final
from uuid import uuid4

from celery import Celery
from kombu.exceptions import OperationalError

from pipeline.cache.claims import Claim, Claims
from pipeline.cache.connection import RedisConnection
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.hot import HotKeys, Progress, Round
from pipeline.optimized import OptimizedPipeline
from pipeline.preload import Preloader, Share
from pipeline.settings import Settings, get_settings, without_password
from workers.dispatch import MAINTENANCE_QUEUE
from workers.errors import QueueUnavailableError
from workers.factory import make_app
from workers.reach import bound_waits, reaching

PRELOAD_TASK: Final = "cache.preload"
RENEW_TASK: Final = "cache.renew"
HELP_EXPIRES_S: Final = 60
SLOT_SHARE: Final = 0.8
"""Of the time between two runs: so much must have passed since the last one. The rest is for what a message may wait."""
MAX_BUDGET: Final = 10_000
MAX_EVERY_S: Final = 86_400
READ_TIMEOUT_S: Final = 2.0

logger: Final = logging.getLogger(__name__)


def helpers_of(app: Celery) -> Share:
    """Calls a worker to help, behind what callers wait for."""

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
    """None if the task is to run: it was not sent by beat (no `every_s`), or is the first one of its slot. Else why not.

    A slot is counted from the last run, and not by the clock: two that would run within 0.8 of the interval are one, whoever sent
    them and however long they waited. A task that is delivered again has its slot still. Raises ValueError naming what is wrong.
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
    """The number of model calls that a preload may make; None is the workers' own. Raises ValueError."""
    if budget is None:
        return get_settings().preload_budget
    if isinstance(budget, bool) or not isinstance(budget, int) or not 0 <= budget <= MAX_BUDGET:
        raise ValueError(f"budget: {budget!r:.60}; expected a whole number from 0 to {MAX_BUDGET}")
    return budget


def checked_round(round_id: Any, otherwise: str) -> str:
    """The id of a round. Raises ValueError for what cannot be one."""
    if round_id is None:
        return otherwise
    if not isinstance(round_id, str) or not 1 <= len(round_id) <= 64 or not round_id.isascii() or not round_id.isprintable():
        raise ValueError("round_id: expected 1 to 64 printable ASCII characters")
    return round_id


class FleetPreload:
    """A preload that a program asks the workers for, and follows. `close` it."""

    def __init__(self, settings: Settings) -> None:
        """Connects on first use. The settings must name the workers' broker and cache."""
        self.round_id = uuid4().hex
        self._broker = without_password(settings.broker_url)
        self._app = make_app(settings)
        bound_waits(self._app)
        self._connection = RedisConnection(settings.cache_url, timeout_s=READ_TIMEOUT_S, retry_pause_s=0)
        self._round = Round(self._connection, HotKeys(settings.cache_namespace), self.round_id)

    def ask(self, budget: int | None, expires_s: float) -> None:
        """Have a worker begin, within that time or not at all. Raises QueueUnavailableError."""
        with reaching(f"the broker at {self._broker}"):
            self._app.send_task(
                PRELOAD_TASK,
                kwargs={"budget": budget, "round_id": self.round_id},
                task_id=self.round_id,
                queue=MAINTENANCE_QUEUE,
                expires=expires_s,
                ignore_result=True,
            )

    def progress(self) -> Progress:
        """How far it has come; nothing before a worker has begun. Raises SharedTierUnavailableError."""
        return self._round.read()

    def stop(self, because: str) -> None:
        """Have nobody begin another renewal of it. Never raises because a server is away."""
        with suppress(SharedTierUnavailableError):
            self._round.stop(because)
        with suppress(QueueUnavailableError), reaching("the broker"):
            self._app.control.revoke(self.round_id)

    def close(self) -> None:
        self._app.close()
        self._connection.close()

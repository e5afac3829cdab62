"""A preload on request: the workers do it."""

from __future__ import annotations

from contextlib import suppress
from typing import Final
from uuid import uuid4

from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.server.connection import RedisConnection
from pipeline.hot import HotKeys
from pipeline.preload.rounds import Progress, Round
from pipeline.settings import Settings, without_password
from workers.queue.errors import QueueUnavailableError
from workers.queue.factory import make_app
from workers.queue.names import MAINTENANCE_QUEUE, PRELOAD_TASK
from workers.queue.reach import bound_waits, reaching

READ_TIMEOUT_S: Final = 2.0


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
                add_to_parent=False,  # as a request's task is none: see Dispatcher
            )

    def progress(self) -> Progress:
        """Its progress; nothing before a worker has begun. Raises SharedTierUnavailableError."""
        return self._round.read()

    def stop(self, because: str) -> None:
        """Let no worker begin another renewal of it. Never raises because a server is away."""
        with suppress(SharedTierUnavailableError):
            self._round.stop(because)
        with suppress(QueueUnavailableError), reaching("the broker"):
            self._app.control.revoke(self.round_id)

    def close(self) -> None:
        self._app.close()
        self._connection.close()

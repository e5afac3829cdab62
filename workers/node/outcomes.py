"""Results that a node's main process stores, many in one exchange, and that never hold up its loop for long."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from workers.queue.factory import PersonaApp
from workers.queue.outcomes.store import OutcomeStore, Success

TIMEOUT_S: Final = 0.25
_AROUND_BYTES: Final = 2048
"""What Celery writes around an answer has less, with ids of 255 characters."""
PAUSE_S: Final = 1.0
"""So long after a failure the server is not asked."""


class QuickOutcomes:
    """A store of successes with a short patience. Connects on first use."""

    def __init__(self, app: PersonaApp, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises TypeError if the app's results are not kept in Redis: see `are_quick`."""
        backend: Any = app._get_backend()  # noqa: SLF001 - a second one: the app's own has a worker's patience
        if not isinstance(backend, OutcomeStore):
            raise TypeError(f"results are kept by {type(backend).__name__}")
        limits = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S, "retry": Retry(NoBackoff(), 0)}
        backend.connparams = {**backend.connparams, **limits, "retry_on_timeout": False}
        self._backend = backend
        self._longest = backend.max_bytes - _AROUND_BYTES
        self._clock = clock
        self._closed_until_s = 0.0

    def store(self, answers: Sequence[tuple[str, bytes]]) -> bool:
        """Keep and publish answers, each by its task's id, as JSON. Whether the server has them all. One that
        is too long goes the long way, where its caller is told."""
        if self._clock() < self._closed_until_s or any(len(answer) > self._longest for _, answer in answers):
            return False
        try:
            self._backend.store_successes([Success(task_id, answer) for task_id, answer in answers])
        except (RedisError, OSError):
            self._closed_until_s = self._clock() + PAUSE_S
            return False
        return True


def are_quick(app: PersonaApp) -> bool:
    """Whether the app's results are where these can be stored."""
    return isinstance(app.backend, OutcomeStore)

"""A failed task's message is kept for an operator, before it is acknowledged: it is at the broker at any time."""

from __future__ import annotations

import json
import logging
from typing import Any, Final

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import Terminated
from celery.exceptions import Ignore, Reject, Retry
from kombu.transport import redis as redis_transport
from redis.exceptions import RedisError

from pipeline.errors import ModelError
from workers.node.fetch.channel import FetchChannel
from workers.queue.dead_letters.letter import written
from workers.queue.failures.box import keep
from workers.queue.names import INVALIDATE_TASK, PROCESS_TASK, QUEUE, RENEWAL_HEADER
from workers.queue.outcomes.limits import limits_of
from workers.queue.redaction import RedactedRequest, RedactedTask

logger: Final = logging.getLogger(__name__)

KEPT_TASKS: Final = frozenset({PROCESS_TASK, INVALIDATE_TASK})
"""Those that somebody has asked for. The others come again by themselves."""
NO_FAILURES: Final = (Ignore, Reject, Retry, Terminated, SystemExit, KeyboardInterrupt, MemoryError)
"""How a task ends that goes on elsewhere, or was taken back."""
HOPELESS: Final = (ValueError,)
"""The request, or the pattern, is wrong: its sender was told, and another try would end the same."""
MAX_WHY_CHARS: Final = 200


class KeepingRequest(RedactedRequest):
    """A request of a worker's main process that keeps what has failed."""

    _goes_on = False
    _why = ""
    time_limits: Any = (None, None)

    def __init__(self, message: Any, **options: Any) -> None:
        super().__init__(message, **options)
        self.time_limits = limits_of(self.time_limits, self._task)

    def on_failure(self, exc_info: Any, *args: Any, **options: Any) -> None:
        error = exc_info.exception
        error = error.exc if isinstance(error, ExceptionWithTraceback) else error
        self._why = "" if isinstance(error, NO_FAILURES + HOPELESS) else why_of(error)
        super().on_failure(exc_info, *args, **options)

    def _retry_worker_lost(self, *args: Any) -> bool:
        self._goes_on = bool(super()._retry_worker_lost(*args))
        return self._goes_on

    def _success_was_stored(self) -> Any:
        stored = super()._success_was_stored()
        self._goes_on = self._goes_on or bool(stored)
        return stored

    def acknowledge(self) -> None:
        """Called once more with the failure's end: see `ReturnableRequest`."""
        if self._why and not self._held and not self._goes_on and not self.acknowledged and self._is_asked_for():
            keep_failure(self._message, self.name, self.id, self._why)
        super().acknowledge()

    def _is_asked_for(self) -> bool:
        return self.name in KEPT_TASKS and self._request_dict.get(RENEWAL_HEADER) is not True


class KeepingTask(RedactedTask):
    """The base of a worker's tasks."""

    abstract = True
    Request = f"{__name__}:KeepingRequest"


def why_of(error: BaseException) -> str:
    """The error's type, and the text of those that quote nothing of what a user wrote."""
    name = str(getattr(error, "exc_cls_name", "") or type(error).__name__)
    return f"{name}: {error}"[:MAX_WHY_CHARS] if isinstance(error, ModelError) else name


def keep_failure(message: Any, task: str, task_id: str, why: str) -> None:
    """Put it among the failed tasks, if the broker is Redis. Never raises because the broker is away."""
    channel = message.channel
    if not isinstance(channel, redis_transport.Channel):
        return
    item = channel.item(message.delivery_tag) if isinstance(channel, FetchChannel) else None
    queue = str((message.delivery_info or {}).get("routing_key") or QUEUE)
    try:
        item = json.dumps(message._raw).encode() if item is None else item  # noqa: SLF001 - kombu's own way back to a queue
        letter = written(queue, item, why, whole=True, task=task, task_id=task_id)
        with channel.conn_or_acquire() as client:
            keep(client, task_id, letter)
    except (RedisError, OSError, AttributeError, TypeError) as error:  # a channel that was closed, for one
        logger.warning("worker.failure_not_kept: of task %s: %s", task_id, type(error).__name__)

"""What a caller wants sent when its task has ended: links, the rest of a chain, a chord's body, links for errors.

A worker sends them where their caller says: by `queue`, `exchange`, `routing_key` of the callback. The result of a task
does not depend on them: Celery's own worker turns a computed answer into a failure where one cannot be sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from celery import group
from celery.app.amqp import Queues
from celery.app.routes import Router
from celery.app.task import Context
from celery.exceptions import Reject
from celery.signals import celeryd_after_setup
from celery.utils import uuid
from kombu import Exchange, Queue

from workers.queue.aside.purging import PurgingAMQP
from workers.queue.errors import CallbackUnsentError

MAX_NAME_CHARS: Final = 255

logger: Final = logging.getLogger(__name__)


@celeryd_after_setup.connect(weak=False)
def know_callers_queues(instance: Any, **_: Any) -> None:
    """From now on any queue may be a caller's. Before, a mistyped `-Q` has ended the worker."""
    instance.app.amqp.queues.create_missing = True


class CallersQueues(Queues):
    """The queues of the settings; with `create_missing` any other name is a queue, too."""

    def __missing__(self, name: str) -> Queue:
        if not self.create_missing:
            raise KeyError(name)
        return self.new_missing(name)  # not kept, as Celery does: callers may have a queue for each request


class CallersRouter(Router):
    """Has an exchange of another type than direct declared, by the name and the type that a callback gives: on Redis a message
    would else be looked up as a direct one, and reach no queue."""

    def route(self, options: dict[str, Any], *args: Any, **others: Any) -> dict[str, Any]:
        routed: dict[str, Any] = super().route(options, *args, **others)
        exchange, kind = routed.get("exchange"), routed.get("exchange_type")
        if isinstance(exchange, str) and exchange and isinstance(kind, str) and not routed.get("declare"):
            routed["declare"] = [Exchange(exchange, type=kind)]
        return routed


class CallersAMQP(PurgingAMQP):
    """Celery's part that sends. A callback that cannot be sent is logged, and what waits for it is told that it has failed."""

    queues_cls = CallersQueues

    def Router(self, queues: Any = None, create_missing: bool | None = None) -> Router:  # noqa: N802 - the library's name
        return CallersRouter(
            self.routes, queues or self.queues, self.app.either("task_create_missing_queues", create_missing), app=self.app
        )

    def _retry_publish(self, publish: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Celery's way to send callbacks, which its tracer takes between a task's end and the storing of its result."""
        callback = getattr(publish, "__self__", None)
        if "parent_id" not in options:
            return super()._retry_publish(publish, *args, **options)  # a chord's body: the backend itself tells of its failure
        if isinstance(callback, group) and not callback.options:
            # Several links, which Celery sends as one group: the first that cannot be sent would keep the others back.
            return [self._retry_publish(each.apply_async, *args, **options) for each in callback.tasks]
        try:
            return super()._retry_publish(publish, *args, **options)
        except (MemoryError, Reject):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a caller's options or the broker raise
            self._unsent(callback, error, **options)
            return None

    def _unsent(self, callback: Any, error: Exception, *, parent_id: str, chain: Any = None, **_: Any) -> None:
        name, kind = _shown(callback.get("task")), type(error).__name__
        logger.error("worker.callback_unsent: %s of task %s: %s", name, parent_id, kind)
        unsent = CallbackUnsentError(f"{name} could not be sent when task {parent_id} had ended ({kind})")
        asked = callback.options
        callback_id = asked.get("task_id") or uuid()
        to = Context(
            id=callback_id,
            root_id=asked.get("root_id"),
            group=asked.get("group_id"),
            group_index=asked.get("group_index"),
            chord=asked.get("chord"),
            chain=chain or asked.get("chain"),
            errbacks=asked.get("link_error"),
            delivery_info={},
        )
        try:
            self.app.backend.mark_as_failure(callback_id, unsent, request=to)
        except Reject:
            raise  # nothing can be stored now: the task goes back to its queue, and sends its callbacks again
        except Exception as fault:  # noqa: BLE001 - its own callbacks may be as bad, and the answer does not depend on them either
            logger.error("worker.callback_untold: %s of task %s: %s", name, parent_id, type(fault).__name__)  # noqa: TRY400


def _shown(name: object) -> str:
    """The name of a task, if it is fit to be shown."""
    fit = isinstance(name, str) and name.isprintable() and len(name) <= MAX_NAME_CHARS
    return str(name) if fit else "a callback"

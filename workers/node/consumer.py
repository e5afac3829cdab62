"""The check of a message's shape before Celery takes it, and what becomes of one that it cannot take."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from billiard.exceptions import WorkerLostError
from celery.exceptions import NotRegistered
from celery.signals import task_rejected
from celery.worker.consumer import Consumer
from kombu.exceptions import KombuError

from pipeline.cache.encoding.decoders import ready
from pipeline.errors import InvalidRequestError
from pipeline.settings import get_settings
from workers.node.control.starting import have_started
from workers.node.fetch.channel import FetchChannel
from workers.node.fetch.claims import deliveries
from workers.node.guard.bounds import MAX_ARGUMENTS, OutOfBoundsError, check_body
from workers.node.guard.refusals import MAX_ID_CHARS, addressed, tell
from workers.node.poison import bury, place
from workers.node.processes import has_children
from workers.queue.dead_letters.letter import MAX_ITEM_CHARS, written
from workers.queue.names import UNKNOWN_SINCE_HEADER

logger: Final = logging.getLogger(__name__)

MAX_DELIVERIES: Final = 3
"""So often a message is given to a node that dies with it."""
UNKNOWN_PAUSE_S: Final = 2.0
KNOWN_ELSEWHERE: Final = 20
"""So many times longer a task goes back that another node knows: many of them may wait for the few nodes of a new release."""
LOST: Final = f"the message was with {MAX_DELIVERIES} nodes that died: it is not tried again"

UNREADABLE: Final = (
    KombuError,
    TypeError,
    ValueError,
    LookupError,  # kombu takes its subclass KeyError for a lost connection: it would reconnect for ever
    AttributeError,
    RecursionError,
    OverflowError,
)
"""The errors of decoding and dispatching a message of a wrong shape."""

_Arguments = Annotated[list[Any], msgspec.Meta(max_length=MAX_ARGUMENTS)]
_NamedArguments = Annotated[dict[str, Any], msgspec.Meta(max_length=MAX_ARGUMENTS)]
_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_CHARS)]


@ready
class _Headers(msgspec.Struct):
    """The headers that a worker uses unchecked; it checks the rest itself."""

    task: str
    id: _Id
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    retries: Annotated[int, msgspec.Meta(ge=0)] | None = None
    timelimit: tuple[float | None, float | None] | None = None
    eta: str | None = None
    expires: str | None = None


class _Callback(msgspec.Struct):
    task: str
    options: dict[str, Any] = {}


class _Embed(msgspec.Struct):
    """What is to be sent when the task has ended: found to be none only then, it would make a failure of the answer."""

    callbacks: list[_Callback] | None = None
    errbacks: list[_Callback] | None = None
    chain: list[_Callback] | None = None
    chord: _Callback | None = None


@ready
class _BodyOfProtocol1(msgspec.Struct):
    task: str
    id: _Id
    args: _Arguments = []
    kwargs: _NamedArguments = {}
    retries: Annotated[int, msgspec.Meta(ge=0)] | None = None
    timelimit: tuple[float | None, float | None] | None = None
    eta: str | None = None
    expires: str | None = None
    callbacks: list[_Callback] | None = None
    errbacks: list[_Callback] | None = None
    chord: _Callback | None = None


_BodyOfProtocol2 = tuple[_Arguments, _NamedArguments, _Embed | None]
ready(_BodyOfProtocol2)


class GuardedConsumer(Consumer):
    """Refuses messages of another shape than a task's. Unlike Celery's, none of its log lines shows a body.

    A refused message is acknowledged and buried. If its id can be read, its sender is told that the task has failed.
    """

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        take: Callable[[Any], None] = super().create_task_handler(*args, **options)

        def guarded(message: Any) -> None:
            try:
                check(message)
                if deliveries(message.headers) >= MAX_DELIVERIES:
                    self._refuse(message, f"was with {MAX_DELIVERIES} nodes that died", WorkerLostError(LOST))
                else:
                    take(message)
            except OutOfBoundsError as error:
                self._refuse(message, str(error), read=False)
            except msgspec.ValidationError as error:
                self._refuse(message, f"is not of the Celery protocol: {error}")
            except UNREADABLE as error:
                self._refuse(message, f"cannot be read ({place(error)})")

        return guarded

    def on_ready(self) -> None:
        super().on_ready()
        if self.hub is not None and has_children(self.pool):
            self.pool.did_start_ok = partial(have_started, self.pool)  # which is asked next, at the worker's start

    def on_unknown_task(self, body: Any, message: Any, exc: BaseException) -> None:  # noqa: ARG002 - the library's signature
        name = _named(message, "task")
        if self._goes_back(message):
            logger.warning("worker.task_unknown: %r goes back to its queue, for a worker of another release", name)
            return
        self._refuse(message, f"asks for the task {name!r}, which this worker does not know", NotRegistered(name))

    def _goes_back(self, message: Any) -> bool:
        """Have a task that only other workers may know wait for one of them: in the middle of an upgrade there are both."""
        channel, patience_s, now_s = message.channel, get_settings().unknown_task_s, time.time()
        since_s = message.headers.get(UNKNOWN_SINCE_HEADER, now_s)
        if not isinstance(channel, FetchChannel) or not isinstance(since_s, int | float):
            return False
        if not now_s - since_s < patience_s:
            known = now_s - since_s < patience_s * KNOWN_ELSEWHERE and channel.is_known(_named(message, "task"))
            if not known:
                return False
        return channel.put_off(message.delivery_tag, now_s + UNKNOWN_PAUSE_S, {UNKNOWN_SINCE_HEADER: since_s})

    def on_invalid_task(self, body: Any, message: Any, exc: BaseException) -> None:  # noqa: ARG002
        self._refuse(message, f"cannot be read ({place(exc)})")

    def on_decode_error(self, message: Any, exc: BaseException) -> None:
        self._refuse(message, str(exc) if isinstance(exc, OutOfBoundsError) else f"cannot be read ({place(exc)})")

    def _refuse(self, message: Any, why: str, error: Exception | None = None, *, read: bool = True) -> None:
        """`read`: whether its body may be read, to see what waits for it."""
        to = addressed(message.headers, _payload(message) if read else None, message.properties)
        logger.error("worker.message_refused: of task %s: it %s", to.id if to else "(no id)", why)
        error = error or InvalidRequestError("message", why)
        queue = str((message.delivery_info or {}).get("routing_key"))
        item = message.channel.item(message.delivery_tag) if isinstance(message.channel, FetchChannel) else None
        letter = written(
            queue,
            _told(message) if item is None else item,
            why,
            whole=item is not None,
            task=_named(message, "task"),
            task_id=to.id if to else "",
        )
        bury(message.channel, letter)
        if to is not None:
            tell(self.app, to, error)
        if not message.acknowledged:
            message.reject_log_error(logger, self.connection_errors)
        task_rejected.send(sender=self, message=message, exc=error)


def check(message: Any) -> None:
    """Raise msgspec.ValidationError, or one of UNREADABLE, for a message that would break a worker."""
    check_body(message.body)
    if "task" in message.headers:
        msgspec.convert(message.headers, _Headers)
        msgspec.convert(message.payload, _BodyOfProtocol2)
    else:
        msgspec.convert(message.payload, _BodyOfProtocol1)


def _told(message: Any) -> bytes:
    """A message as JSON where it is not known how it was queued."""
    body = message.body[:MAX_ITEM_CHARS] if isinstance(message.body, bytes | str) else None
    return json.dumps(
        [message.headers, body.decode(errors="replace") if isinstance(body, bytes) else body], default=repr
    ).encode()


def _named(message: Any, field: str) -> str:
    """The message's own value of that field, if it is fit to be shown; else ''."""
    found = message.headers if "task" in message.headers else _payload(message)  # protocol 1
    value = found.get(field) if isinstance(found, dict) else None
    return value if isinstance(value, str) and value.isprintable() and len(value) <= MAX_ID_CHARS else ""


def _payload(message: Any) -> Any:
    try:
        return message.payload
    except UNREADABLE:
        return None

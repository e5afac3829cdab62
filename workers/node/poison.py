"""Messages that end stock Celery: refused on arrival, reported to their sender, and never given to the next worker.

Celery 5.7 on Redis ends its main process on a queue item that is not JSON, and on a message whose body or headers have another
shape than it expects; in the latter case the message goes back to the queue and ends the next worker, and so on.
"""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from celery.app.task import Context
from celery.exceptions import BackendError, NotRegistered
from celery.signals import celeryd_init, task_rejected
from celery.worker.consumer import Consumer
from kombu.exceptions import KombuError
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as redis_transport
from kombu.transport.virtual import Empty
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import RedisError

from pipeline.errors import InvalidRequestError

logger: Final = logging.getLogger(__name__)

DEAD_LETTERS: Final = "persona.dead"
"""A list at the broker, the latest first: `{"at", "queue", "why", "item"}`. It holds what users wrote: hence the short TTL."""
DEAD_LETTERS_COUNT: Final = "persona.dead.count"
MAX_DEAD_LETTERS: Final = 1000
DEAD_LETTERS_TTL_S: Final = 86_400
MAX_ITEM_CHARS: Final = 16_384
MAX_ID_CHARS: Final = 255

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

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_CHARS)]


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


class _BodyOfProtocol1(msgspec.Struct):
    task: str
    id: _Id
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    retries: Annotated[int, msgspec.Meta(ge=0)] | None = None
    timelimit: tuple[float | None, float | None] | None = None
    eta: str | None = None
    expires: str | None = None


_BodyOfProtocol2 = tuple[list[Any], dict[str, Any], dict[str, Any] | None]


@celeryd_init.connect(weak=False)  # `worker_init` comes after the first connection: the class would be chosen
def guard_transport(**_: Any) -> None:
    """Make a worker's connections to a Redis broker check the items they pop. No other process's: it may have apps of its own."""
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), f"{__name__}:GuardedTransport"))


class GuardedChannel(redis_transport.Channel):
    """Checks each item that it pops, before anything depends on it."""

    def _create_client(self, asynchronous: bool = False) -> Any:
        client = super()._create_client(asynchronous)
        popped: Callable[..., Any] = client.response_callbacks["BRPOP"]
        client.set_response_callback("BRPOP", lambda reply, **options: self._whole(popped(reply, **options)))
        return client

    def _whole(self, popped: tuple[bytes, bytes] | None) -> tuple[bytes, bytes] | None:
        """The popped item; None, as if the wait had timed out, if it is not a message."""
        if not popped:
            return popped
        queue, item = popped
        try:
            self._try(loads(bytes_to_str(item)))
        except Exception as error:  # noqa: BLE001 - foreign bytes may raise anything; it must cost one item, not the worker
            name, why = bytes_to_str(queue).partition(self.sep)[0], f"is not a message ({_place(error)})"
            logger.error("worker.message_refused: in queue %s: it %s", name, why)  # noqa: TRY400 - its text may quote the item
            bury(self, name, bytes_to_str(item), why)
            return None
        return popped

    def _try(self, raw: Any) -> None:
        """Do with it what the transport will do, and raise what it would raise."""
        message = self.Message(raw, channel=self)
        if not isinstance(message.delivery_tag, str) or not isinstance(message.headers, dict):
            raise TypeError
        _ = message.delivery_info["exchange"], message.delivery_info["routing_key"]

    def _receive_one(self, c: Any) -> Any:
        try:
            return super()._receive_one(c)
        except Empty:
            return None  # kombu would leave what has come in with it unread until something else comes

    def _deliver_fanout_message(self, message: Any, exchange: str) -> Any:
        try:
            self._try(message)
        except Exception as error:  # noqa: BLE001 - as above
            logger.warning("worker.broadcast_dropped: not a message (%s)", type(error).__name__)
            raise Empty from None
        return super()._deliver_fanout_message(message, exchange)


class GuardedTransport(redis_transport.Transport):
    """kombu's own transport, with the channel above."""

    Channel = GuardedChannel


class GuardedConsumer(Consumer):
    """Refuses messages of another shape than a task's. Unlike Celery's, none of its log lines shows a body.

    A refused message is acknowledged and buried. If its id can be read, its sender is told that the task has failed.
    """

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        take: Callable[[Any], None] = super().create_task_handler(*args, **options)

        def guarded(message: Any) -> None:
            try:
                check(message)
                take(message)
            except msgspec.ValidationError as error:
                self._refuse(message, f"is not of the Celery protocol: {error}")
            except UNREADABLE as error:
                self._refuse(message, f"cannot be read ({_place(error)})")

        return guarded

    def on_unknown_task(self, body: Any, message: Any, exc: BaseException) -> None:  # noqa: ARG002 - the library's signature
        name = _named(message, "task")
        self._refuse(message, f"asks for the task {name!r}, which this worker does not know", NotRegistered(name))

    def on_invalid_task(self, body: Any, message: Any, exc: BaseException) -> None:  # noqa: ARG002
        self._refuse(message, f"cannot be read ({_place(exc)})")

    def on_decode_error(self, message: Any, exc: BaseException) -> None:
        self._refuse(message, f"cannot be read ({_place(exc)})")

    def _refuse(self, message: Any, why: str, error: Exception | None = None) -> None:
        task_id = _named(message, "id")
        logger.error("worker.message_refused: of task %s: it %s", task_id or "(no id)", why)
        error = error or InvalidRequestError("message", why)
        queue = str((message.delivery_info or {}).get("routing_key"))
        bury(message.channel, queue, json.dumps([message.headers, bytes_to_str(message.body)], default=repr), why)
        if task_id:
            self._tell(task_id, error, message.properties)
        if not message.acknowledged:
            message.reject_log_error(logger, self.connection_errors)
        task_rejected.send(sender=self, message=message, exc=error)

    def _tell(self, task_id: str, error: Exception, properties: dict[str, Any]) -> None:
        to = Context(id=task_id, reply_to=properties.get("reply_to"), correlation_id=properties.get("correlation_id"))
        try:
            self.app.backend.mark_as_failure(task_id, error, request=to)
        except (BackendError, KombuError, RedisError, OSError) as fault:
            logger.warning("worker.refusal_untold: of task %s: %s", task_id, type(fault).__name__)


def check(message: Any) -> None:
    """Raise msgspec.ValidationError, or one of UNREADABLE, for a message that would break a worker."""
    if "task" in message.headers:
        msgspec.convert(message.headers, _Headers)
        msgspec.convert(message.payload, _BodyOfProtocol2)
    else:
        msgspec.convert(message.payload, _BodyOfProtocol1)


def bury(channel: Any, queue: str, item: str, why: str) -> None:
    """Keep an item among the dead letters, if the broker is Redis; on RabbitMQ the queue's own policy keeps it.

    Never raises because the broker is away.
    """
    if not isinstance(channel, redis_transport.Channel):
        return
    letter = json.dumps({"at": time.time(), "queue": queue, "why": why, "item": item[:MAX_ITEM_CHARS]})
    try:
        with channel.conn_or_acquire() as client, client.pipeline() as pipe:
            pipe.incr(DEAD_LETTERS_COUNT)
            pipe.lpush(DEAD_LETTERS, letter)
            pipe.ltrim(DEAD_LETTERS, 0, MAX_DEAD_LETTERS - 1)
            pipe.expire(DEAD_LETTERS, DEAD_LETTERS_TTL_S)
            pipe.execute()
    except (RedisError, OSError) as error:
        logger.warning("worker.dead_letter_lost: of queue %s: %s", queue, type(error).__name__)


def _named(message: Any, field: str) -> str:
    """The message's own value of that field, if it is fit to be shown; else ''."""
    found = message.headers
    if "task" not in found:  # protocol 1
        try:
            found = message.payload
        except UNREADABLE:
            return ""
    value = found.get(field) if isinstance(found, dict) else None
    return value if isinstance(value, str) and value.isprintable() and len(value) <= MAX_ID_CHARS else ""


def _place(error: BaseException) -> str:
    """The error without its message, which may quote a user's words."""
    frames = traceback.extract_tb(error.__traceback__)
    return type(error).__name__ + (f" in {frames[-1].name}, line {frames[-1].lineno}" if frames else "")

"""Messages that end stock Celery: refused on arrival, reported to their sender, and never given to the next worker.

Celery 5.7 on Redis ends its main process on a queue item that is not JSON, and on a message whose body or headers have another
shape than it expects; in the latter case the message goes back to the queue and ends the next worker, and so on.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from celery.signals import celeryd_init
from kombu.transport import TRANSPORT_ALIASES, virtual
from kombu.transport import redis as redis_transport
from kombu.transport.virtual import Empty
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from pipeline.errors import InvalidRequestError
from pipeline.settings import get_settings
from workers.node.fetch.pause import Pause
from workers.node.guard.bounds import OutOfBoundsError, check_body, check_item, size_of
from workers.node.guard.refusals import tell_sender
from workers.node.guard.replies import skimming
from workers.node.guard.watching import LeavingTransport, Patient, is_readable, leaving
from workers.queue.dead_letters.box import keep
from workers.queue.dead_letters.letter import written

logger: Final = logging.getLogger(__name__)

PUT_BACK: Final = "#!lua flags=allow-oom\nreturn redis.call('RPUSH', KEYS[1], ARGV[1])"
BROKEN: Final = (RedisConnectionError, RedisTimeoutError, OSError)
"""What a connection raises that is no more, or that could not be made."""


@celeryd_init.connect(weak=False)  # `worker_init` comes after the first connection: the class would be chosen
def guard_transport(**_: Any) -> None:
    """Make a worker's connections to a Redis broker claim its messages, or at least check the items they pop. No other process's:
    it may have apps of its own."""
    claims = get_settings().fetch == "claims"
    transport = "workers.node.fetch.transport:FetchTransport" if claims else f"{__name__}:GuardedTransport"
    TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), transport))
    if not claims:
        logger.warning("fetch.popped: PERSONA_FETCH=pop; a message that a node has just taken is lost if the node dies")


class GuardedQoS(redis_transport.QoS):
    """What a closed channel had delivered went back when it closed: a task that ends later has nothing to acknowledge. kombu
    would ask for the host of a connection that is gone, and the worker would end.

    A server that refuses meanwhile (it is full, or read-only) ends no worker either: what could not be acknowledged is delivered
    once more after the visibility time-out.
    """

    def append(self, message: Any, delivery_tag: str) -> None:
        super().append(message, delivery_tag)
        self.channel.popped = None

    def ack(self, delivery_tag: str) -> None:
        if not self.channel.closed:
            try:
                super().ack(delivery_tag)
            except ResponseError as error:
                self._keep(delivery_tag, error)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        if not self.channel.closed:
            try:
                super().reject(delivery_tag, requeue=requeue)
            except ResponseError as error:
                self._keep(delivery_tag, error)

    def _keep(self, delivery_tag: str, error: ResponseError) -> None:
        logger.warning("worker.not_acknowledged (%s): it is delivered again", type(error).__name__)
        virtual.QoS.ack(self, delivery_tag)  # it takes no credit any more

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        with suppress(ResponseError):  # the next turn does it
            super().restore_visible(start, num, interval)


class GuardedChannel(redis_transport.Channel):
    """Checks each item that it pops, before anything depends on it."""

    QoS = GuardedQoS
    popped: tuple[bytes, bytes] | None = None
    """A queue and its item, until the item is noted as delivered."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._refused = Pause()
        self._unnoted: list[tuple[bytes, bytes]] = []
        super().__init__(*args, **kwargs)

    def _brpop_start(self, timeout: float | None = None) -> None:
        if self._refused.goes_on(time.monotonic()):
            return
        try:
            self._put_back()
        except ResponseError as error:
            self._refused.begin(error, time.monotonic())
        else:
            super()._brpop_start(timeout)

    def _brpop_read(self, **options: Any) -> Any:
        self.popped = None
        try:
            return super()._brpop_read(**options)
        except ResponseError as error:  # it may be well again
            self._refused.begin(error, time.monotonic())
            if self.popped is not None:
                self._unnoted.append(self.popped)
            raise Empty from None

    def _put_back(self) -> None:
        """What was popped and could not be noted, as soon as the server takes it: a full one does, from a script."""
        while self._unnoted:
            with self.conn_or_acquire() as client:
                client.eval(PUT_BACK, 1, *self._unnoted[-1])
            self._unnoted.pop()

    def _connparams(self, asynchronous: bool = False) -> Any:
        """The connections that wait for what comes unasked take none of it whole if it is too long. They read it all the same:
        what was popped lies nowhere else, and a connection that is made anew misses broadcasts."""
        options = super()._connparams(asynchronous)
        if not asynchronous:
            return options
        connection_class = leaving(options["connection_class"], self._unwatch)
        return {**options, "parser_class": skimming(options), "connection_class": connection_class}

    def _unwatch(self, fileno: int) -> None:
        if self.connection is not None:  # else the channel is closed, and its sockets with it
            with suppress(KeyError, ValueError, OSError):  # not all of them are watched
                self.connection.cycle.poller.unregister(fileno)

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
        self.popped = None if self.read(bytes_to_str(queue).partition(self.sep)[0], item) is None else popped
        return self.popped

    def read(self, queue: str, item: bytes) -> Any:
        """The envelope of a queue item; None if it is not a message, which is then refused: its sender is told, if it says who
        that is."""
        try:
            check_item(item)
            raw = loads(bytes_to_str(item))
            self._try(raw)
        except OutOfBoundsError as error:
            why = str(error)
        except Exception as error:  # noqa: BLE001 - foreign bytes may raise anything; it must cost one item, not the worker
            why = f"is not a message ({place(error)})"
        else:
            return raw
        logger.error("worker.message_refused: in queue %s: it %s", queue, why)
        bury(self, written(queue, item, why, whole=True, size=size_of(item)))
        tell_sender(item, InvalidRequestError("message", why))
        return None

    def _try(self, raw: Any) -> None:
        """Do with it what the transport will do, and raise what it would raise."""
        message = self.Message(raw, channel=self)
        if not isinstance(message.delivery_tag, str) or not isinstance(message.headers, dict):
            raise TypeError
        _ = message.delivery_info["exchange"], message.delivery_info["routing_key"]

    def _receive(self) -> Any:
        try:
            return super()._receive()
        except BROKEN as error:
            self.subscribe_anew(error)
            return False

    def subscribe_anew(self, error: BaseException) -> None:
        """The connection for broadcasts has broken: it costs the broadcasts of a moment, and no task. The next turn of the loop
        makes another one; that the broker itself is away shows elsewhere."""
        if self.connection is None:
            return
        logger.warning("worker.subscription_lost (%s): made anew", type(error).__name__)
        connection = self.subclient.connection
        if connection is not None:
            connection.disconnect()

    def _queue_bind(self, *args: Any) -> None:
        """Senders declare their queues, too: a server that is full or read-only now need not keep a node from its start."""
        try:
            super()._queue_bind(*args)
        except ResponseError as error:
            logger.warning("worker.queue_undeclared: %s: %s", args[-1], type(error).__name__)

    def close(self) -> None:
        """Never raises because the broker is away, or refuses: a channel that is half closed would break the next connection."""
        try:
            if self._unnoted:
                self._put_back()
            super().close()
        except (RedisError, OSError, AttributeError) as error:  # the last: kombu asks for the host of a connection that is gone
            logger.warning("worker.channel_left (%s)", type(error).__name__)
            if self._unnoted:
                logger.error("worker.messages_lost: %d, popped and not taken back", len(self._unnoted))  # noqa: TRY400 - as above
            self.auto_delete_queues.clear()  # what is left needs no server
            self._consumers.clear()
            self.qos._delivered.clear()  # noqa: SLF001 - the base class's own
            self.closed = False
            super().close()

    def _receive_one(self, c: Any) -> Any:
        try:
            return super()._receive_one(Patient(c))
        except Empty:
            return None  # kombu would leave what has come in with it unread until something else comes

    def _handle_message(self, client: Any, response: Any) -> Any:
        """kombu reads a broadcast before it looks at it."""
        payload = super()._handle_message(client, response)
        data = payload.get("data")
        if isinstance(data, bytes | str):
            try:
                check_body(data)
            except OutOfBoundsError as error:
                logger.warning("worker.broadcast_dropped: it %s", error)
                payload["data"] = b""
        return payload

    def _deliver_fanout_message(self, message: Any, exchange: str) -> Any:
        try:
            self._try(message)
        except Exception as error:  # noqa: BLE001 - as above
            logger.warning("worker.broadcast_dropped: not a message (%s)", type(error).__name__)
            raise Empty from None
        return super()._deliver_fanout_message(message, exchange)


class GuardedPoller(redis_transport.MultiChannelPoller):
    """Reads from no socket that has nothing, whatever is reported by its number: that would hold the node's loop up."""

    def on_readable(self, fileno: int) -> Any:
        return super().on_readable(fileno) if is_readable(fileno) else None


class GuardedTransport(LeavingTransport):
    """kombu's own transport, with the channel above."""

    Channel = GuardedChannel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = GuardedPoller()


def bury(channel: Any, letter: bytes) -> None:
    """Keep a dead letter, if the broker is Redis; on RabbitMQ the queue's own policy keeps what is refused.

    Never raises because the broker is away.
    """
    if not isinstance(channel, redis_transport.Channel):
        return
    try:
        with channel.conn_or_acquire() as client:
            keep(client, letter)
    except (RedisError, OSError) as error:
        logger.warning("worker.dead_letter_lost: %s", type(error).__name__)


def place(error: BaseException) -> str:
    """The error without its message, which may quote a user's words."""
    # Not `extract_tb`, which reads the source of each frame's module, in the worker's loop, and keeps it.
    last = deque(traceback.walk_tb(error.__traceback__), maxlen=1)
    return type(error).__name__ + "".join(f" in {frame.f_code.co_name}, line {line}" for frame, line in last)

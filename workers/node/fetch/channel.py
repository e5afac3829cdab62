"""kombu's Redis channel, with messages that are claimed instead of popped."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from kombu.transport import virtual
from redis.exceptions import ResponseError

from workers.node.fetch.claims import Claim
from workers.node.fetch.fetch import Fetch
from workers.node.fetch.hooks import Hooks
from workers.node.poison import GuardedChannel, GuardedQoS
from workers.queue.aside.messages import purge_aside

logger: Final = logging.getLogger(__name__)

FAR_S: Final = 5.0
"""What is due later waits aside, and not in a worker's memory, where it would use up credit."""
SHARED: Final = frozenset({"celery"})
"""Queues of Celery's own names, where a program without any configuration puts its tasks: ours or another project's."""


class FetchQoS(GuardedQoS):
    """Acknowledges claims. What was not fetched (a single `basic_get`) is acknowledged as kombu does it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._claims: dict[str, Claim] = {}

    def append(self, message: Any, delivery_tag: str) -> None:
        claim, self.channel.arriving = self.channel.arriving, None
        if claim is None:
            super().append(message, delivery_tag)
        else:
            self._claims[delivery_tag] = claim
            virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        claim = self._claims.pop(delivery_tag, None)
        if claim is not None:
            virtual.QoS.ack(self, delivery_tag)
            self.channel.fetch.settle(claim)
        elif delivery_tag in self._delivered:
            super().ack(delivery_tag)
        # else the channel was closed, and gave it back: its connection cannot be asked

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        claim = self._claims.pop(delivery_tag, None)
        if claim is None:
            if delivery_tag in self._delivered:
                super().reject(delivery_tag, requeue=requeue)
            return
        virtual.QoS.ack(self, delivery_tag)
        if requeue:
            self.channel.fetch.give_back(claim)
        else:
            self.channel.fetch.settle(claim)

    def item(self, delivery_tag: str) -> bytes | None:
        claim = self._claims.get(delivery_tag)
        return None if claim is None else claim.item

    def take(self, delivery_tag: str) -> Claim | None:
        """The claim of a message that its consumer is not to have any more."""
        claim = self._claims.pop(delivery_tag, None)
        if claim is not None:
            virtual.QoS.ack(self, delivery_tag)
        return claim

    def forget(self) -> None:
        """The claims go back with the channel: from here on their acknowledgement means nothing."""
        for tag in self._claims:
            self._delivered.pop(tag, None)
        self._claims.clear()

    def restore_unacked(self, client: Any = None) -> None:
        self.forget()
        if self._delivered:  # else nothing is asked of a broker that may be away, by a connection that may be closed
            super().restore_unacked(client)

    def restore_visible(self, start: int = 0, num: int = 10, interval: int = 10) -> None:
        """Nothing: what lies in `unacked` is another program's, or an older release's."""


class FetchChannel(GuardedChannel):
    """Consumers that acknowledge are served by a `Fetch`; those that do not (broadcasts, replies) as kombu does it."""

    QoS = FetchQoS
    arriving: Claim | None = None
    fetch: Fetch | None = None
    subscribe_from_s: float = 0.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.hooks = Hooks()
        self._fetched: dict[str, str] = {}
        self._tags = itertools.count(1)
        super().__init__(*args, **kwargs)

    def basic_consume(self, queue: str, no_ack: bool = False, *args: Any, **kwargs: Any) -> Any:
        fetched = not no_ack and queue not in self._fanout_queues
        if fetched:
            self._fetched[kwargs["consumer_tag"]] = queue
        consuming = super().basic_consume(queue, no_ack, *args, **kwargs)
        if fetched:
            if self.fetch is None:
                self.fetch = Fetch(self, self._arrive)
            self.fetch.add(queue, shared=queue in SHARED)
        return consuming

    def _basic_cancel(self, consumer_tag: str) -> Any:
        queue = self._fetched.pop(consumer_tag, None)
        if queue is not None and self.fetch is not None and not self._closing:
            self.fetch.remove(queue)
        return super()._basic_cancel(consumer_tag)

    @property
    def active_queues(self) -> list[str]:
        fetched = set(self._fetched.values())
        return [queue for queue in super().active_queues if queue not in fetched]

    def _arrive(self, fetch: Fetch, claim: Claim) -> None:
        """Deliver a claimed item to the consumer of its queue; a bad one harms none of its neighbours."""
        queue = claim.source.partition(self.sep)[0]
        payload = self.read(queue, claim.item)
        if payload is None:
            fetch.settle(claim)
            return
        payload["properties"]["delivery_tag"] = f"{next(self._tags)}"  # a foreign one need not be unique
        due_s = _due_s(payload["headers"])
        if due_s is not None and due_s > time.time() + FAR_S and fetch.postpone(claim, due_s, {}):
            return
        if queue not in self.connection._callbacks:  # its consumer was cancelled meanwhile
            fetch.give_back(claim)
            return
        self.arriving = claim
        try:
            self.connection._deliver(payload, queue)
        except ResponseError:  # the consumer has not taken it; it is delivered again
            self.qos.take(payload["properties"]["delivery_tag"])
            raise
        finally:
            self.arriving = None

    def item(self, delivery_tag: str) -> bytes | None:
        """A delivered message as it was queued; None if it was not claimed, or is no longer."""
        item: bytes | None = self.qos.item(delivery_tag)
        return item

    def put_off(self, delivery_tag: str, due_s: float, headers: Mapping[str, Any]) -> bool:
        """Take a delivered message aside until that time, in seconds since 1970; whether that was possible."""
        claim = self.qos.take(delivery_tag)
        if claim is None or self.fetch is None:
            return False
        if not self.fetch.postpone(claim, due_s, headers):
            self.fetch.give_back(claim)
        return True

    def is_known(self, task: str) -> bool:
        """Whether a node of this broker has lately said that it knows that task."""
        return self.fetch is not None and self.fetch.upkeep.is_known(task)

    def _purge(self, queue: str) -> int:
        removed = int(super()._purge(queue))
        with self.conn_or_acquire() as client:
            return removed + purge_aside(client, [self._q_for_pri(queue, step) for step in self.priority_steps])

    def _poll_error(self, type: str, **_: Any) -> Any:
        return self.handlers[type]()  # it reads, and meets the error

    def close(self) -> None:
        if self.fetch is not None and self.connection is not None:
            self.fetch.close()
            self.qos.forget()
        super().close()


def _due_s(headers: Mapping[str, Any]) -> float | None:
    """When a message is due, in seconds since 1970, if it says so in Celery's way. Without a time zone it is UTC."""
    eta = headers.get("eta")
    if not isinstance(eta, str):
        return None
    try:
        due = datetime.fromisoformat(eta)
        return (due if due.tzinfo else due.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None  # the consumer refuses it

"""A channel is closed while its broker is away, and once more when it is back, as Celery does it. It must not end the node."""

from __future__ import annotations

from typing import Any

from kombu import Connection, Consumer, Exchange, Producer, Queue
from polling import until
from servers import ValkeyServer

from workers.node.fetch.claims import CLAIMS
from workers.node.fetch.transport import FetchTransport

TASKS = Queue("tasks", Exchange("tasks", type="direct"), routing_key="tasks")
BROADCASTS = [Queue(name, Exchange(name, type="fanout"), auto_delete=True) for name in ("notices", "news")]
"""To remove one fails while the broker is away: so often the channel is not closed when it is asked to."""


def test_a_broker_that_goes_and_comes_back_while_a_message_is_in_hand_ends_nothing() -> None:
    """The message stays a claim, for the next connection or another node, and its late acknowledgement means nothing."""
    with ValkeyServer(keep_on_disk=True) as server, server.client() as client:
        connection = Connection(server.url, transport=FetchTransport)
        channel: Any = connection.default_channel
        channel.hooks.is_ours = lambda _: True
        taken: list[Any] = []
        consumer = Consumer(channel, [TASKS], on_message=taken.append)
        consumer.consume()
        Consumer(channel, BROADCASTS, no_ack=True).consume()
        Producer(channel).publish({"a": 1}, exchange=TASKS.exchange, routing_key="tasks", declare=[TASKS])

        def taken_one() -> bool:
            channel.fetch.turn()
            return bool(taken)

        until(taken_one, "the message is in hand")
        server.stop()
        connection.collect(socket_timeout=1)
        server.start()
        connection.close()
        taken[0].ack()
        assert [client.llen(key) for key in client.keys(f"{CLAIMS}*")] == [1]

"""What a worker's connection does with broadcasts that come in together."""

from __future__ import annotations

from contextlib import suppress

from kombu import Connection, Consumer, Exchange, Producer, Queue
from polling import until
from servers import ValkeyServer

from workers.node.poison import GuardedTransport

EXCHANGE = Exchange("news", type="fanout", durable=False)
TOPIC = f"/0.{EXCHANGE.name}"


def test_what_came_in_with_foreign_bytes_is_delivered_without_waiting_for_more(valkey: ValkeyServer) -> None:
    """The server sends them in one piece: nothing more comes in that would have the connection looked at again."""
    heard: list[object] = []
    with valkey.client() as client, client.pubsub() as pubsub, Connection(valkey.url, transport=GuardedTransport) as connection:
        pubsub.subscribe(TOPIC)
        queue = Queue("", exchange=EXCHANGE, exclusive=True)
        with Consumer(connection, [queue], callbacks=[lambda body, _: heard.append(body)], accept=["json"], no_ack=True):

            def subscribed() -> bool:
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.01)
                return bool(client.execute_command("PUBSUB", "NUMPAT"))

            until(subscribed, "the consumer listens")
            Producer(connection, exchange=EXCHANGE).publish("first", serializer="json")
            connection.drain_events(timeout=10)
            message = next(each["data"] for each in pubsub.listen() if each["type"] == "message")
            with client.pipeline(transaction=False) as pipe:
                for data in (b"garbage", b"[1]", b"garbage", message):
                    pipe.publish(TOPIC, data)
                pipe.execute()
            connection.drain_events(timeout=10)
    assert heard == ["first", "first"]

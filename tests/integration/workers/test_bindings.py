"""What a receiver of notices leaves at a broker on Redis."""

from __future__ import annotations

from contextlib import suppress

from kombu import Connection, Consumer, Producer
from polling import until
from servers import ValkeyServer

from workers.node.poison import GuardedTransport
from workers.queue.broadcast import ROUTING_KEY, exchange_of, leave_no_binding, queue_of_node


def test_a_receiver_leaves_no_binding_and_hears_all_the_same(valkey: ValkeyServer, namespace: str) -> None:
    """Nor does what earlier ones have left stay: no receiver that was killed is noted for ever."""
    exchange = exchange_of(namespace)
    heard: list[object] = []
    with valkey.client() as client, Connection(valkey.url, transport=GuardedTransport) as connection:
        client.sadd(f"_kombu.binding.{exchange.name}", "all\x06\x16\x06\x16bcast.of-the-dead")
        channel = connection.channel()
        queue = queue_of_node(namespace)
        with Consumer(channel, [queue], callbacks=[lambda body, _: heard.append(body)], accept=["json"], no_ack=True):
            assert client.keys(f"_kombu.binding*{exchange.name}")
            leave_no_binding(channel, exchange)
            assert not client.keys(f"_kombu.binding*{exchange.name}")

            def told() -> bool:
                producer = Producer(connection, exchange=exchange, routing_key=ROUTING_KEY)
                producer.publish("news", serializer="json", declare=[exchange])
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.05)
                return bool(heard)

            until(told, "it hears")
    assert set(heard) == {"news"}


def test_a_channel_of_another_broker_is_left_alone(namespace: str) -> None:
    with Connection("memory://") as connection:
        leave_no_binding(connection.channel(), exchange_of(namespace))

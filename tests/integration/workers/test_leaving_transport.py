"""A node that reconnects keeps nothing of the connections that it has had."""

from __future__ import annotations

import gc
import weakref

import pytest
from kombu import Connection
from kombu.asynchronous import Hub
from kombu.transport import redis as redis_transport

from workers.node.fetch.transport import FetchTransport
from workers.node.poison import GuardedTransport


@pytest.mark.parametrize("kind", [FetchTransport, GuardedTransport])
def test_the_loop_lets_go_of_a_transport_whose_connection_is_closed(
    redis_url: str, kind: type[redis_transport.Transport]
) -> None:
    hub = Hub()
    others = set(hub.on_tick)
    gone = []
    for _ in range(5):
        connection = Connection(redis_url, transport=kind)
        connection.connect()
        channel = connection.channel()
        connection.register_with_event_loop(hub)
        assert len(hub.on_tick - others) == 1
        gone.append(weakref.ref(connection.transport))
        del channel
        connection.collect()
        for entry in [scheduled.entry for scheduled in hub.timer.queue]:
            entry.cancel()  # as Celery does
        hub.timer.clear()
        del connection, entry
    assert hub.on_tick == others
    gc.collect()
    assert [transport() for transport in gone] == [None] * 5
    hub.close()

"""A channel whose server refuses, or is gone: it closes all the same, and delivers what it had claimed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Queue
from polling import until
from redis.exceptions import ResponseError
from servers import ValkeyServer

from workers.node.fetch.transport import FetchTransport


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.mark.parametrize("fault", ["read-only", "gone"])
def test_a_channel_closes_whatever_its_server_says(server: ValkeyServer, fault: str) -> None:
    with closing(Connection(server.url, transport=FetchTransport)) as connection:
        channel = connection.channel()
        queue = Queue("replies", Exchange("replies", type="fanout"), auto_delete=True)
        Consumer(channel, [queue], callbacks=[lambda *_: None], no_ack=True).consume()
        if fault == "gone":
            server.kill()
        else:
            with closing(server.client()) as client:
                client.execute_command("REPLICAOF", "127.0.0.1", "1")
        channel.close()
        assert channel.closed
        assert channel not in connection.transport.channels


def test_what_could_not_be_delivered_is_delivered_later(server: ValkeyServer) -> None:
    """What the consumer asks the server for may be refused: that message and those behind it are the consumer's all the same."""
    tried: list[int] = []
    taken: list[int] = []

    def take(body: Any, message: Any) -> None:
        tried.append(body)
        if len(tried) == 1:
            raise ResponseError("OOM command not allowed")
        taken.append(body)
        message.ack()

    def drain() -> bool:
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.2)
        return len(taken) == 3

    with closing(Connection(server.url, transport=FetchTransport)) as connection:
        with connection.SimpleQueue("asked") as asked:
            for number in range(3):
                asked.put(number)
        channel = connection.channel()
        channel.basic_qos(0, 10, False)
        with Consumer(channel, [Queue("asked", Exchange("asked"), routing_key="asked")], callbacks=[take]):
            until(drain, "all are delivered")
        assert tried == [0, 0, 1, 2]
        assert taken == [0, 1, 2]

"""What a node's loop watches, and what it does not read."""

from __future__ import annotations

import os
import select
import socket
from typing import Any

import pytest
import redis

from workers.node.fetch.transport import FetchPoller
from workers.node.guard import watching
from workers.node.guard.watching import Patient, leaving


class Channel:
    """What a poller knows of one."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.handlers = {"LISTEN": lambda: self.read.append("LISTEN")}


def test_a_number_that_was_reported_for_an_earlier_connection_is_not_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        channel, poller = Channel(), FetchPoller()
        poller._fd_to_chan[ours.fileno()] = (channel, "LISTEN")
        poller.on_readable(ours.fileno())
        assert channel.read == []
        theirs.send(b"x")
        poller.on_readable(ours.fileno())
        assert channel.read == ["LISTEN"]


class Closing:
    """A connection as the Redis client closes it."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self._sock: socket.socket | None = sock
        self.pid = pid

    def disconnect(self, *_: Any, **__: Any) -> None:
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="epoll is Linux's")
def test_a_socket_that_another_process_holds_is_watched_no_longer_once_it_is_closed() -> None:
    ours, theirs = socket.socketpair()
    inherited = socket.socket(fileno=os.dup(ours.fileno()))  # as a child has it
    with theirs, inherited, select.epoll() as epoll:
        epoll.register(ours.fileno(), select.EPOLLIN)
        theirs.send(b"x")
        assert epoll.poll(0)
        connection = leaving(Closing, epoll.unregister)(ours, os.getpid())
        connection.disconnect()
        connection.disconnect()
        assert not epoll.poll(0)


def test_the_connection_of_another_process_is_left_to_it() -> None:
    ours, theirs = socket.socketpair()
    told: list[int] = []
    with ours, theirs:
        leaving(Closing, told.append)(ours, os.getpid() + 1).disconnect()
        assert told == []


def test_a_broadcast_that_stops_in_its_middle_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor a subscription to which nothing has come."""
    monkeypatch.setattr(watching, "REST_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # As kombu makes its own: without tries.
        pool = redis.ConnectionPool(port=listener.getsockname()[1], protocol=2, driver_info=None)
        with redis.Redis(connection_pool=pool).pubsub() as subscription:
            subscription.connection = pool.get_connection()
            server, _ = listener.accept()
            with server:
                assert Patient(subscription).parse_response() is None
                server.sendall(b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$100\r\nhalf of it")
                with pytest.raises(redis.TimeoutError):
                    Patient(subscription).parse_response()
        pool.disconnect()

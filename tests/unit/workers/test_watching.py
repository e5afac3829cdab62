"""What a node's loop watches, and what it does not read."""

from __future__ import annotations

import os
import select
import socket
from typing import Any

import pytest

from workers.node.fetch.transport import FetchPoller
from workers.node.guard.watching import leaving


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

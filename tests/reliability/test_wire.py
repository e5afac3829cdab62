"""A dead connection, as a network has it: whose end is not told, and who does not stay for ever."""

from __future__ import annotations

import socket

from polling import until
from servers import ValkeyServer

from reliability.wire import Wire

PING = b"PING\r\n"


def test_the_other_end_of_a_dead_connection_leaves_when_its_keep_alive_finds_nobody() -> None:
    with ValkeyServer() as server, server.client() as control, Wire(server.port, gone_s=0.2) as wire:

        def connected() -> int:
            return int(control.info("clients")["connected_clients"])

        before = connected()
        with socket.create_connection((wire.host, wire.port), timeout=5) as end:
            end.sendall(PING)
            assert end.recv(100) == b"+PONG\r\n"
            wire.mode = "half-open"
            end.sendall(PING)
            until(lambda: wire.dead == 1, "the connection is dead")
            wire.mode = "pass"
            assert connected() == before + 1, "the other end was told"
        until(lambda: connected() == before, "the other end has left")

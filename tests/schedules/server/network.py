"""The way to the servers: sockets in memory, addresses that may lead to another server, and what may go wrong there."""

from __future__ import annotations

from typing import Any

from schedules.server.lua import Script
from schedules.server.resp import commands, encoded
from schedules.server.store import Store
from schedules.tasks import ALWAYS, Clock, Run, point


class Network:
    """One address. Connections that are open stay with the server that they were opened to, as long as it lives."""

    def __init__(self, clock: Clock, scripts: dict[bytes, Script]) -> None:
        """`scripts`: those that every server knows from the start."""
        self._servers = 1
        self.clock = clock
        self.master = Store(lambda: 1_700_000_000.0 + clock.now_s, _replication_id(1), scripts)
        self.copy = self.master
        """What a replica that lags has: see `snapshot`."""
        self.away = False
        self.lost_answers = 0
        self._gone: set[int] = set()

    def snapshot(self) -> None:
        """From now on a replica has received nothing more."""
        self.copy = self.master.lagging_copy(self.master.replication_id)

    def fail_over(self) -> None:
        """The master is gone, and all connections to it; the replica takes its place, with a history of its own."""
        self._gone.add(id(self.master))
        self.master = self._successor()

    def demote(self) -> None:
        """The master becomes a replica of the one that takes its place, without the writes from then on. Connections live on."""
        self.master.read_only = True
        self.copy = self.master
        self.master = self._successor()

    def _successor(self) -> Store:
        self._servers += 1
        return self.copy.lagging_copy(_replication_id(self._servers))

    def connect(self, _address: Any, _timeout_s: float, _tls: Any) -> Socket:
        """In place of `link._connected`."""
        if self.away:
            raise ConnectionRefusedError("the server is away")
        return Socket(self, self.master)

    def is_gone(self, server: Store) -> bool:
        return self.away or id(server) in self._gone


class Socket:
    """A client's end. The server runs each command of what is sent as one step; others may come between two of them."""

    def __init__(self, network: Network, server: Store) -> None:
        self._network, self._server = network, server
        self._answer = b""

    def sendall(self, sent: bytes) -> None:
        network, server = self._network, self._server
        replies = []
        for words in commands(sent)[0]:
            if words[0] != b"CLIENT":
                run = Run.current
                point(ALWAYS, "" if run is None or run.told is None else _told(words), None)
            if network.is_gone(server):
                raise ConnectionResetError("the server has closed the connection")
            reply = server.execute(words)
            if reply is None and words[:2] == [b"XREAD", b"BLOCK"]:
                network.clock.sleep(int(words[2]) / 1000)
                reply = server.execute(words)
            replies.append(encoded(reply))
        self._answer = b"".join(replies)
        if network.lost_answers:
            network.lost_answers -= 1
            raise TimeoutError("no answer came")

    def recv(self, _: int) -> bytes:
        answer, self._answer = self._answer, b""
        return answer

    def settimeout(self, _: float) -> None: ...

    def close(self) -> None: ...


def _replication_id(number: int) -> str:
    return f"{number:08x}" * 5


def _told(words: list[bytes]) -> str:
    """A command as the story tells it."""
    name = words[0].decode()
    subject = {"EVALSHA": 3, "EVAL": 3}.get(name, 1)
    return f"{name} {b' '.join(words[subject : subject + 1]).decode(errors='replace')}"

"""One address, and the servers that follow each other there: by a failover to a replica that lags, or from an old snapshot."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from coherence.history import now_ns
from servers import ValkeyServer, free_port

from workers.stack.servers.valkey_server import HOST

NOBODY: Final = 1
"""A port without a listener."""
LAG_NS: Final = 100_000_000
"""By how much a replica may be late of its own accord."""


class _Server(ValkeyServer):
    """One that can be moved to another port."""

    def __init__(self, port: int | None = None) -> None:
        super().__init__(keep_on_disk=True, port=port)

    @property
    def file(self) -> Path:
        return self.directory / "appendonlydir"

    def move(self, port: int) -> None:
        """Listen there, now and after each later start. Connections that are open stay."""
        self.order("CONFIG", "SET", "port", port)
        self.lie_at(port)

    def lie_at(self, port: int) -> None:
        """At each later start."""
        self._config = self._config.replace(f"port {self.port}\n", f"port {port}\n")
        self.port = port

    def order(self, *command: object) -> Any:
        with self.client(socket_timeout=5.0) as client:
            return client.execute_command(*command)


@dataclass(frozen=True)
class Loss:
    """Anything that the old server acknowledged from `from_ns` on may be lost. From `at_ns` on it acknowledges nothing more, and
    before that the new one has acknowledged nothing."""

    from_ns: int
    at_ns: int


class Succession:
    """`server` is the one that is at the address now. One thread at a time."""

    def __init__(self) -> None:
        self.server: _Server = _Server()
        self._standby: _Server | None = None
        self._demoted: _Server | None = None
        self._address = self.server.port
        self._fell_behind_ns = 0
        self._remembered_ns = 0
        self._snapshot: Path | None = None

    @property
    def port(self) -> int:
        return self.server.port

    # -- a failover

    def prepare(self) -> None:
        """Begin a replica, unless there is one that follows. Returns at once; `in_step` tells."""
        if self._standby is None:
            self._standby = _Server().start()
            self.server.order("CONFIG", "SET", "repl-diskless-sync-delay", 0)
            self._standby.order("REPLICAOF", HOST, self.server.port)
            self._fell_behind_ns = 0

    def in_step(self) -> bool:
        """Whether the replica has all that the server has, or nearly."""
        if self._standby is None:
            return False
        with self._standby.client(socket_timeout=5.0) as client:
            told: dict[str, Any] = client.info("replication")
        return told.get("master_link_status") == "up"

    def fall_behind(self) -> None:
        """From now on the replica lacks what the server acknowledges."""
        assert self._standby is not None
        self._fell_behind_ns = now_ns() - LAG_NS
        self._standby.order("REPLICAOF", "NO", "ONE")

    def elevate(self, *, demote: bool) -> tuple[Loss, str]:
        """End the server, or make it a replica that lives on with its connections; the replica is to take its place. Returns the
        lost part of the history, and the new server's address from before it takes over the old one."""
        assert self._standby is not None
        if self._fell_behind_ns == 0:
            self.fall_behind()
        self._address, old = self.server.port, self.server
        if demote:
            # First of all it takes no more writes, as an orderly failover sees to. It has no master to follow.
            old.order("REPLICAOF", HOST, NOBODY)
            at_ns = now_ns()
            old.move(free_port())
            self._end_demoted()
            self._demoted = old
        else:
            old.kill()
            at_ns = now_ns()
            old.close()
        self.server, self._standby = self._standby, None
        self._snapshot = None
        return Loss(self._fell_behind_ns, at_ns), self.server.url

    def take_over(self) -> None:
        """The new one gets the address."""
        self.server.move(self._address)

    # -- an old snapshot

    def remember(self) -> None:
        """A copy of all that is on the disk by now."""
        self._snapshot = self.server.directory / "snapshot"
        self._remembered_ns = now_ns()
        shutil.rmtree(self._snapshot, ignore_errors=True)
        shutil.copytree(self.server.file, self._snapshot)

    def fall_back(self) -> tuple[Loss, str]:
        """Kill it, and start it from that copy elsewhere; returns as `elevate` does."""
        assert self._snapshot is not None
        self._address = self.server.port
        self.server.kill()
        at_ns = now_ns()
        shutil.rmtree(self.server.file)
        shutil.copytree(self._snapshot, self.server.file)
        self._snapshot = None
        self.server.lie_at(free_port())
        self.server.start()
        return Loss(self._remembered_ns, at_ns), self.server.url

    def _end_demoted(self) -> None:
        if self._demoted is not None:
            self._demoted.close()
            self._demoted = None

    def __enter__(self) -> Self:
        self.server.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end_demoted()
        if self._standby is not None:
            self._standby.close()
        self.server.close()

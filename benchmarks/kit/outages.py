"""What may befall a server for some seconds: the faults of `deaths`, each with its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from benchmarks.kit.disk_server import DiskServer

FULL: Final = "1mb"
"""Less than an empty server takes."""


class Outage(NamedTuple):
    """`of_results`: it befalls a server that keeps the results alone; else the broker, which keeps them, too."""

    begin: Callable[[DiskServer], None]
    end: Callable[[DiskServer], None]
    of_results: bool = False


def _fill(server: DiskServer) -> None:
    server.command("CONFIG", "SET", "maxmemory", FULL)


def _relieve(server: DiskServer) -> None:
    server.command("CONFIG", "SET", "maxmemory", "0")


def _demote(server: DiskServer) -> None:
    server.command("REPLICAOF", "127.0.0.1", "1")


def _promote(server: DiskServer) -> None:
    server.command("REPLICAOF", "NO", "ONE")


OUTAGES: Final = {
    "read_only": Outage(_demote, _promote),
    "full": Outage(_fill, _relieve),
    "results_killed": Outage(DiskServer.kill, DiskServer.start, of_results=True),
    "results_frozen": Outage(DiskServer.freeze, DiskServer.thaw, of_results=True),
    "results_full": Outage(_fill, _relieve, of_results=True),
}

"""What a user might pick instead of this project: other task queues, each with the plain cache that its users would add.

A module `NAME_peer.py` for each: its app, as its own documentation shows it and with its own defaults, and a class `Peer` that
sends tasks and waits for them. Its workers and `drive` import it. The measuring program never does: it only checks whether the
peer is installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Final, NamedTuple, Protocol


class PeerInfo(NamedTuple):
    module: str
    """That must be installed."""
    tasks: int
    """How many its workers are given at once: one or two seconds' work."""
    install: str = "pip install 'persona-worker[bench]'"


PEERS: Final[Mapping[str, PeerInfo]] = {
    "celery": PeerInfo("celery", 500),
    "dramatiq": PeerInfo("dramatiq", 5_000),
    "rq": PeerInfo("rq", 60),
    "huey": PeerInfo("huey", 4_000),
    # It asks for an older client of Redis than this project's, and runs with the newer one all the same.
    "arq": PeerInfo("arq", 300, "pip install --no-deps arq"),
    "taskiq": PeerInfo("taskiq_redis", 1_000),
}
WORKER_PROCESSES: Final = 2  # of each, as many as this project's own node has in the same comparison
POLL_S: Final = 0.005  # for a result, where a library polls and lets one choose


class PeerQueue(Protocol):
    """The interface of each module's class `Peer`. Made once for a process, used by one thread."""

    workers: Sequence[Sequence[str]]
    """The commands that start its WORKER_PROCESSES processes; one may start them all."""

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> Any:
        """Send one task and wait for its result."""

    def fill(self, requests: Iterable[Mapping[str, Any]]) -> None:
        """Send a task for each, all results of earlier ones forgotten."""

    def ended(self) -> int:
        """How many of the filled tasks have a result."""

    def results(self) -> list[Any]:
        """The results of all filled tasks. Raises if one failed."""

    def close(self) -> None:
        """Close the connections."""


def installed(name: str) -> bool:
    return find_spec(PEERS[name].module) is not None

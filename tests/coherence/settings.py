"""The settings of a workload and of each of its processes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from pipeline.cache.coherence.node import QUIET_S

NAMESPACE: Final = "coherence"


class ProcessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One program of a workload. `kind`: `lone` (no bus), `prefork` (a main process with children), `threads` (one process
    that is all at once) or `newcomer` (which makes its cache anew whenever it is called). `workers`: children, or threads.
    `nodes`: the sockets of every node's main process.

    `listens`: it hears what others invalidate, if it is a lone one.
    `loose`: L1 serves unconfirmed while the server is away. `switch_s`: after how long a thread has to let another one go on.
    `flood`: how many patterns a single invalidation may have. `break_off_s`: how long a worker goes on, on average, until an
    exception breaks off its call of the cache; 0 is for ever. `chains`: it reads values that depend on a key through another.
    `quiet_s`: how long after the last need of the lease a node beats on. `retry_s`: how soon it asks again a server that was out
    of reach. `pauses_s`: between two steps, at most, of each worker in turn. `audit_per_s`: how many of the served answers its
    auditor judges, at most, and how often. `burst`: so many reads beyond those of the history after each step, for the auditor.
    `awaits`: which of its workers are tasks of event loops: none, every second one (`some`), or `all`.
    """

    name: str
    kind: str
    workers: int
    seed: int
    directory: Path
    redis_url: str
    nodes: dict[str, Path]
    steps: int
    seconds: float
    bound_s: float
    max_records: int
    l1_size: int
    loose: bool = False
    listens: bool = False
    switch_s: float = 0.0
    flood: int = 0
    break_off_s: float = 0.0
    chains: bool = False
    retry_s: float = 0.05
    quiet_s: float = QUIET_S
    pauses_s: tuple[float, ...] = (0.004,)
    weights: dict[str, int] = {}
    mutant: str = ""
    audit_per_s: float = 0.0
    audit_every_s: float = 0.25
    burst: int = 0
    awaits: str = ""

    def awaited(self, number: int) -> bool:
        """Whether its worker of that number is a task."""
        return self.awaits == "all" or (self.awaits == "some" and number % 2 == 1)

    @property
    def go(self) -> Path:
        """Exists when all may begin."""
        return self.directory / "go"

    @property
    def call(self) -> Path:
        """Exists while the newcomer has something to do: to be the first at the server whose address it holds."""
        return self.directory / "call"

    @property
    def pids(self) -> Path:
        """A file for each process that may be frozen, named by its number."""
        return self.directory / "pids"


def report_ready(settings: ProcessSettings, pid: int) -> None:
    (settings.pids / str(pid)).write_text(settings.name)


def encode_settings(settings: list[ProcessSettings]) -> str:
    return msgspec.json.encode(settings, enc_hook=str).decode()


def decode_settings(told: bytes) -> list[ProcessSettings]:
    return msgspec.json.decode(told, type=list[ProcessSettings], dec_hook=lambda kind, value: kind(value))

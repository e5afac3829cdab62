"""What a workload and each of its processes is told."""

from __future__ import annotations

from pathlib import Path

import msgspec


class ProcessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One program of a workload. `kind`: `lone` (no bus), `prefork` (a main process with children) or `threads` (one process
    that is all at once). `workers`: children, or threads. `nodes`: the sockets of every node's main process."""

    name: str
    kind: str
    workers: int
    seed: int
    directory: Path
    redis_url: str
    namespace: str
    nodes: dict[str, Path]
    steps: int
    seconds: float
    bound_s: float
    max_records: int
    l1_size: int
    mutant: str = ""

    @property
    def go(self) -> Path:
        """Exists when all may begin."""
        return self.directory / "go"

    @property
    def pids(self) -> Path:
        """A file for each process that may be frozen, named by its number."""
        return self.directory / "pids"


def report_ready(settings: ProcessSettings, pid: int) -> None:
    (settings.pids / str(pid)).write_text(settings.name)


def encode_settings(settings: ProcessSettings) -> str:
    return msgspec.json.encode(settings, enc_hook=str).decode()


def decode_settings(told: bytes) -> ProcessSettings:
    return msgspec.json.decode(told, type=ProcessSettings, dec_hook=lambda kind, value: kind(value))

"""The records that the processes of a workload write down, a JSON line each. Times are CLOCK_MONOTONIC, which all processes
share."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec

now_ns = time.monotonic_ns


class Made(msgspec.Struct, frozen=True, tag="made"):
    """A value that was computed or set: `versions` are those of its key and of all that went into it."""

    id: str
    key: str
    versions: dict[str, int]
    began_ns: int


class Read(msgspec.Struct, frozen=True, tag="read", kw_only=True):
    """A value that was served. `source`: l1, l2, joined (another's computation, waited for), or no (computed by this very read).

    `direct`: the keys whose versions a computation took from the source of truth itself; the others' versions came through the
    cache, within an operation that began at `operation_ns`. `degraded`: the server was out of reach meanwhile, or so the cache
    says; where it is not `strict`, its values are then promised only to the process and its node. `awaited`: a task asked.
    """

    pid: int
    node: str
    key: str
    made: str
    versions: dict[str, int]
    source: str
    began_ns: int
    ended_ns: int
    operation_ns: int
    direct: tuple[str, ...] = ()
    degraded: bool = False
    strict: bool = True
    awaited: bool = False


class Written(msgspec.Struct, frozen=True, tag="written", kw_only=True):
    """An acknowledged invalidation (or set, or delete): these versions were at the source before it began, and from `ended_ns`
    on nothing older counts."""

    id: str
    pid: int
    patterns: tuple[str, ...]
    versions: dict[str, int]
    began_ns: int
    ended_ns: int
    durable: bool


class Applied(msgspec.Struct, frozen=True, tag="applied"):
    """A node's main process had taken in the notice of a `Written` with these versions."""

    node: str
    written: str
    versions: dict[str, int]
    ended_ns: int


class Fault(msgspec.Struct, frozen=True, tag="fault"):
    """`lost_from_ns`: another server, or its older self, answers from `at_ns` on, and may lack everything acknowledged since."""

    name: str
    at_ns: int
    lost_from_ns: int = 0


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """A thread of a process has come to its end after that many steps, `misses` of which found nothing to serve, and
    `broken_off` of which ended by an exception that a signal raised in the middle of the cache's work."""

    pid: int
    steps: int
    misses: int
    broken_off: int = 0


class Audited(msgspec.Struct, frozen=True, tag="audited"):
    """A process's auditor has judged so many of the answers that it served."""

    program: str
    checks: int
    stale: int
    undecided: int
    at_ns: int


Record = Made | Read | Written | Applied | Fault | Ended | Audited

_encode = msgspec.json.Encoder().encode
_decode_lines = msgspec.json.Decoder(Record).decode_lines


class Journal:
    """Appends records to a file of this process's own. Thread-safe; a forked child makes its own."""

    def __init__(self, directory: Path, name: str) -> None:
        self._descriptor = os.open(directory / f"{name}.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._lock = threading.Lock()
        self._lines: list[bytes] = []

    def note(self, record: Record) -> None:
        with self._lock:
            self._lines.append(_encode(record) + b"\n")
            if len(self._lines) >= 100:
                self._flush()

    def flush(self) -> None:
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            with os.fdopen(os.dup(self._descriptor), "wb") as file:
                file.write(b"".join(lines))


def read_history(directory: Path) -> Iterable[Record]:
    """All records of a run, each process's in its own order; so far, if it still goes on."""
    records: list[Record] = []
    for path in sorted(directory.glob("*.jsonl")):
        lines = path.read_bytes()
        records += _decode_lines(lines[: lines.rfind(b"\n") + 1])  # of a line that is being written, nothing
    return records

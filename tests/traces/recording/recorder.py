"""Writes a process's events to a file of its own, in portions or at the end. Costs the process that is recorded some microseconds
an event, and every other one nothing."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from traces.events import AnyEvent, Event, Header

SUFFIX: Final = ".trace"
_encode = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(Header).decode
_decode = msgspec.msgpack.Decoder(list[AnyEvent]).decode
_LENGTH: Final = 8


class Recorder:
    """One of each process: a forked child begins with another file, and none of its parent's events. Thread-safe."""

    def __init__(self, directory: Path, name: str, *, portion_s: float = 0.0) -> None:
        """`portion_s`: how often the events are written; 0: only by `flush`. A call that may be broken off anywhere is not to
        write: then it must be 0."""
        self._directory = directory
        self._name = name
        self._portion_s = portion_s
        self.begin_anew()
        os.register_at_fork(after_in_child=self.begin_anew)

    def begin_anew(self) -> None:
        self._events: list[Event] = []
        self._gate = threading.Lock()
        self._file: int | None = None
        self._written_s = time.monotonic()
        self.numbers = itertools.count(1)
        self.here = threading.local()
        """What a thread of this process has seen last."""
        self.judged: dict[int, Any] = {}
        """By task: the entry by which it has joined another's computation last."""
        self.life = object()
        """Another object in each process."""
        self.add = self._events.append

    def note(self, event: Event) -> None:
        self.add(event)
        if self._portion_s and time.monotonic() - self._written_s > self._portion_s:
            self.flush(waits=False)

    def flush(self, *, waits: bool = True) -> None:
        """Write all events so far; without `waits` only if no other thread is about it."""
        if not self._gate.acquire(blocking=waits):
            return
        try:
            self._written_s = time.monotonic()
            count = len(self._events)
            if not count:
                return
            if self._file is None:
                path = self._directory / f"{self._name}-{os.getpid()}{SUFFIX}"
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                self._write(_encode(Header(os.getpid(), self._name)))
            self._write(_encode(self._events[:count]))
            del self._events[:count]
        finally:
            self._gate.release()

    def _write(self, portion: bytes) -> None:
        rest = memoryview(len(portion).to_bytes(_LENGTH, "little") + portion)
        while rest and self._file is not None:
            rest = rest[os.write(self._file, rest) :]


class Trace(msgspec.Struct):
    """The events of one process, in its order."""

    pid: int
    name: str
    events: list[Any]


def read_traces(directory: Path) -> list[Trace]:
    """All traces of a run. Of a portion that a process did not live to write whole, nothing."""
    found = []
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        first, *portions = _portions(path.read_bytes())
        header = _decode_header(first)
        found.append(Trace(header.pid, header.name, [event for portion in portions for event in _decode(portion)]))
    return found


def _portions(content: bytes) -> Iterator[bytes]:
    at = 0
    while at + _LENGTH <= len(content):
        begins = at + _LENGTH
        at = begins + int.from_bytes(content[at:begins], "little")
        if at <= len(content):
            yield content[begins:at]

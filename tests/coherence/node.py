"""A node's main process without a broker: notices come by datagram, and on purpose some are lost, late, doubled or garbage."""

from __future__ import annotations

import heapq
import random
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from coherence.history import Applied, Journal, now_ns
from coherence.settings import NAMESPACE, ProcessSettings

from pipeline.cache import Invalidation
from pipeline.cache.coherence.bus import NodeBus
from pipeline.cache.coherence.log import RedisInvalidationLog
from pipeline.cache.coherence.node import NodeFollower
from pipeline.cache.coherence.registry import NodeRegistry
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection

RETENTION_S: Final = 600.0
_GARBAGE: Final[tuple[tuple[Any, ...], ...]] = (
    ("", 0, []),
    (None, None, None),
    ("an-epoch-that-is-far-too-long", 1, ["*"]),
    ("e", -1, ["*"]),
    ("e", 1, ["[" * 600]),
    ("e", True, "routing:*"),
)


class Announcement(msgspec.Struct, frozen=True):
    """A notice on the wire, with what a checker must know of it."""

    epoch: str
    seq: int
    patterns: list[str]
    written: str
    versions: dict[str, int]


class Announcer:
    """Tells every node's main process; at most once, and waits for none that does not read."""

    def __init__(self, nodes: dict[str, Path]) -> None:
        self._nodes = [str(path) for path in nodes.values()]
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def tell(self, invalidation: Invalidation, written: str, versions: dict[str, int]) -> None:
        epoch, seq = (invalidation.epoch, invalidation.seq) if invalidation.durable else ("", 0)
        payload = msgspec.json.encode(Announcement(epoch, seq, list(invalidation.patterns), written, versions))
        for path in self._nodes:
            try:
                self._socket.sendto(payload, path)
            except OSError:  # its queue is full, or it has ended: a lost notice, as on a real broker
                continue


class Broker:
    """What stands between the announcers and a follower. Not thread-safe."""

    def __init__(self, path: Path, seed: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(path))
        self._rng = random.Random(seed)
        self._held: list[tuple[float, int, Announcement]] = []
        self._count = 0

    def due(self, wait_s: float) -> list[Announcement]:
        """The notices to deliver now, in the order of delivery, after waiting so long for one at most."""
        if self._held:
            wait_s = max(0.0, min(wait_s, self._held[0][0] - time.monotonic()))
        select.select([self._socket], [], [], wait_s)
        while True:
            try:
                notice = msgspec.json.decode(self._socket.recv(65536), type=Announcement)
            except BlockingIOError:
                break
            self._count += 1
            fate = self._rng.random()
            if fate < 0.15:
                continue
            late_s = self._rng.uniform(0.001, 0.2) if fate < 0.3 else 0.0
            for _ in range(2 if 0.3 < fate < 0.4 else 1):
                heapq.heappush(self._held, (time.monotonic() + late_s, self._rng.getrandbits(30), notice))
        ready = []
        while self._held and self._held[0][0] <= time.monotonic():
            ready.append(heapq.heappop(self._held)[2])
        return ready

    def garbage(self) -> tuple[Any, ...] | None:
        return self._rng.choice(_GARBAGE) if self._rng.random() < 0.02 else None


class Main:
    """The part of a node's main process: takes notices in, and looks twice a staleness bound whether a beat is due."""

    def __init__(self, settings: ProcessSettings, bus: NodeBus, journal: Journal) -> None:
        connection = RedisConnection(settings.redis_url, retry_pause_s=0.1)
        keys = KeySpace(NAMESPACE)
        log = RedisInvalidationLog(connection, keys, retention_s=RETENTION_S, max_records=settings.max_records)
        self._name = settings.name
        self._follower = NodeFollower(settings.name, bus, log, NodeRegistry(connection, keys), quiet_s=settings.quiet_s)
        self._broker = Broker(settings.nodes[settings.name], settings.seed)
        self.journal = journal
        self._pause_s = settings.bound_s / 2
        self._next_beat_s = 0.0

    def turn(self, wait_s: float) -> None:
        """Take in what has come, and beat if it is time: a main process of one thread."""
        self.listen(min(wait_s, max(0.0, self._next_beat_s - time.monotonic())))
        if time.monotonic() >= self._next_beat_s:
            self.beat()

    def beat(self) -> None:
        self._next_beat_s = time.monotonic() + self._pause_s
        self._follower.beat_if_due(self._pause_s)

    def listen(self, wait_s: float) -> None:
        for notice in self._broker.due(wait_s):
            if self._follower.receive(notice.epoch, notice.seq, notice.patterns) is None:
                raise AssertionError(f"a well-formed notice was refused: {notice}")
            self.journal.note(Applied(self._name, notice.written, notice.versions, now_ns()))
        garbage = self._broker.garbage()
        if garbage is not None and self._follower.receive(*garbage) is not None:
            raise AssertionError(f"garbage was taken for a notice: {garbage}")

    def run_until(self, ended: Callable[[], bool]) -> None:
        """For a thread of its own; another one beats."""
        while not ended():
            self.listen(0.05)

"""The faults of a workload, in an order that its seed decides."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from coherence.history import Fault, Journal, now_ns
from coherence.network import Network
from coherence.settings import NAMESPACE
from coherence.succession import Loss, Succession

from pipeline.cache.keys import KeySpace

GENTLE: Final = {"freeze": 8, "freeze_server": 1}
"""Those that leave the log as it is."""
HARSH: Final = GENTLE | {
    "evict_records": 2,
    "evict_tail": 1,
    "evict_entries": 2,
    "trim": 2,
    "flush": 2,
    "restart_with_all": 1,
    "restart_empty": 1,
}
NETWORK: Final = {"break_off": 3, "cut": 2}
"""Only where there is one."""
SUCCESSION: Final = {"fail_over": 3, "old_snapshot": 2}
DEMOTION: Final = {"demote": 2}

CALL_TIMEOUT_S: Final = 3.0
LONGEST_LAG_S: Final = 0.15


class Faults:
    """Not thread-safe. A fault that takes a while, as a failover does, lets the others go on meanwhile."""

    def __init__(
        self,
        weights: Mapping[str, int],
        *,
        seed: int,
        pause_s: float,
        bound_s: float,
        servers: Succession,
        network: Network,
        directory: Path,
        freezes: frozenset[str] = frozenset(),
    ) -> None:
        """`weights`: how often each of the faults happens, by its name; `pause_s`: between two on average, 0 for none at all.
        `freezes`: which programs are frozen, by their names; none stands for all."""
        self._weights = dict(weights)
        self._rng = random.Random(seed)
        self._pause_s = pause_s
        self._bound_s = bound_s
        self._servers = servers
        self._network = network
        self._directory = directory
        self._freezes = freezes
        self._journal = Journal(directory, "faults")
        self._keys = KeySpace(NAMESPACE)
        self._frozen: dict[int, float] = {}
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._succession_under_way = False
        if not {"fail_over", "demote"}.isdisjoint(self._weights):
            servers.prepare()

    def turn(self) -> None:
        """Wait a while, undo the faults that are due by now, and cause the next one."""
        self._wait_s(self._rng.uniform(0, 2 * self._pause_s) if self._pause_s else 0.05)
        if self._pause_s:
            name = self._rng.choices(list(self._weights), list(self._weights.values()))[0]
            fault: Callable[[], None] = getattr(self, f"_{name}")
            self._journal.note(Fault(name, now_ns()))
            fault()
            self._journal.flush()

    def close(self) -> None:
        for pid in list(self._frozen):
            self._thaw(pid)
        self._network.open(True)
        self._journal.flush()

    def _wait_s(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while True:
            now_s = time.monotonic()
            for pid in [pid for pid, due_s in self._frozen.items() if due_s <= now_s]:
                self._thaw(pid)
            for item in [item for item in self._later if item[0] <= now_s]:
                self._later.remove(item)
                item[1]()
            next_s = min([until_s, *self._frozen.values(), *(due_s for due_s, _ in self._later)])
            if now_s >= until_s:
                return
            time.sleep(max(0.0, min(next_s, until_s) - time.monotonic()))

    def _after(self, seconds: float, act: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, act))

    # -- the processes

    def _freeze(self) -> None:
        """One process, any: a child, a main process, a lone one; from a moment to four times the staleness bound."""
        self._freeze_for(0.1, 4.0)

    def _outlast(self) -> None:
        """One process, for a little longer than its lease."""
        self._freeze_for(1.0, 1.5)

    def _freeze_for(self, least: float, most: float) -> None:
        paths = sorted((self._directory / "pids").iterdir())
        pids = [int(path.name) for path in paths if not self._freezes or path.read_text() in self._freezes]
        awake = [pid for pid in pids if pid not in self._frozen]
        if awake and len(self._frozen) < 3:
            pid = self._rng.choice(awake)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                self._frozen[pid] = time.monotonic() + self._rng.uniform(least, most) * self._bound_s

    def _thaw(self, pid: int) -> None:
        del self._frozen[pid]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    # -- the network

    def _break_off(self) -> None:
        """Some of the connections."""
        self._network.break_off(self._rng.choice((0.1, 0.5, 1.0)))

    def _cut(self) -> None:
        """Nothing goes through for a moment."""
        self._network.open(False)
        self._after(self._rng.uniform(0.005, 0.15), lambda: self._network.open(True))

    # -- the server

    def _freeze_server(self) -> None:
        """Beyond the time-out of a call."""
        self._servers.server.freeze()
        time.sleep(0.35)
        self._servers.server.thaw()

    def _fill_up(self) -> None:
        """For a moment it is full, and refuses every write."""
        self._servers.server.order("CONFIG", "SET", "maxmemory", 1)
        self._after(self._rng.uniform(0.001, 0.02), lambda: self._servers.server.order("CONFIG", "SET", "maxmemory", 0))

    def _evict_records(self) -> None:
        self._servers.server.order("DEL", self._keys.records)

    def _evict_tail(self) -> None:
        self._servers.server.order("DEL", self._keys.tail)

    def _evict_entries(self) -> None:
        with self._servers.server.client(socket_timeout=CALL_TIMEOUT_S) as client:
            for name in list(client.scan_iter(match=self._keys.entries_matching("*"), count=1000)):
                if self._rng.random() < 0.5:
                    client.delete(name)

    def _trim(self) -> None:
        """As if all that the log holds now were older than the longest TTL: the next append cuts it off."""
        with self._servers.server.client(socket_timeout=CALL_TIMEOUT_S) as client:
            tail = client.get(self._keys.tail)
            if isinstance(tail, bytes):
                client.zadd(self._keys.marks, {tail.split(b":")[1]: 1})

    def _flush(self) -> None:
        self._servers.server.order("FLUSHALL")

    def _restart_with_all(self) -> None:
        self._servers.server.stop()
        self._servers.server.start()

    def _restart_empty(self) -> None:
        self._servers.server.stop()
        shutil.rmtree(self._servers.server.file)
        self._servers.server.start()

    # -- what follows the server

    def _fail_over(self) -> None:
        self._begin_failover(demote=False)

    def _demote(self) -> None:
        self._begin_failover(demote=True)

    def _begin_failover(self, *, demote: bool) -> None:
        if self._succession_under_way or not self._servers.in_step():
            return
        self._succession_under_way = True
        self._servers.fall_behind()

        def finish() -> None:
            self._finish_succession(*self._servers.elevate(demote=demote))
            self._servers.prepare()

        self._after(self._rng.uniform(0, LONGEST_LAG_S), finish)

    def _old_snapshot(self) -> None:
        if self._succession_under_way:
            return
        self._succession_under_way = True
        self._servers.remember()
        self._after(self._rng.uniform(0, LONGEST_LAG_S), lambda: self._finish_succession(*self._servers.fall_back()))

    def _finish_succession(self, loss: Loss, url: str) -> None:
        """The server that follows gets the address, perhaps after a program that begins there."""
        if self._rng.random() < 0.5:
            self._let_newcomer_in(url)
        self._servers.take_over()
        self._note_loss(loss)

    def _note_loss(self, loss: Loss) -> None:
        self._succession_under_way = False
        self._journal.note(Fault("lost", loss.at_ns, lost_from_ns=loss.from_ns))
        self._journal.flush()

    def _let_newcomer_in(self, url: str) -> None:
        """A program that begins now, and is the first to find the new server."""
        call = self._directory / "call"
        draft = self._directory / "call.draft"
        draft.write_text(url)
        draft.rename(call)
        deadline_s = time.monotonic() + CALL_TIMEOUT_S
        while call.exists() and time.monotonic() < deadline_s:
            time.sleep(0.002)

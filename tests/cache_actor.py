"""A process with a cache that does one thing at a time, at the time that it is told."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

from coherence.mutants import MUTANTS
from faults import Clock

from pipeline.cache import MISS, LocalCache, RedisCache, TwoTierCache

ANSWER_TIMEOUT_S: Final = 60.0
MISSED: Final = "missed"


class Seen(NamedTuple):
    """What a read gave. `source`: as Found has it, or MISSED."""

    value: Any
    source: str
    degraded: bool


class Actor:
    """The cache. `now_s` of each call is the time of its monotonic clock and, from another beginning, of its wall clock."""

    def __init__(self, url: str, namespace: str, bound_s: float) -> None:
        self._clock, self._wall = Clock(), Clock()
        l2 = RedisCache(url=url, namespace=namespace, timeout_s=5.0, wall_clock=self._wall)
        self._cache = TwoTierCache(
            LocalCache(100, clock=self._clock),
            l2,
            staleness_bound_s=bound_s,
            ttl_jitter=0.0,
            clock=self._clock,
            wall_clock=self._wall,
        )

    def at(self, now_s: float) -> Actor:
        self._clock.now_s, self._wall.now_s = now_s, 1_700_000_000.0 + now_s
        return self

    def read(self, key: str) -> Seen:
        found = self._cache.lookup(key)
        return Seen(None, MISSED, self._cache.degraded) if found is MISS else Seen(found.value, found.source, found.degraded)

    def get(self, key: str) -> Seen:
        """By the other copy of the hot path, that does not say where the value came from."""
        found = self._cache.get(key, MISS)
        return Seen(None, MISSED, self._cache.degraded) if found is MISS else Seen(found, "", self._cache.degraded)

    def compute(self, key: str, value: object, deps: tuple[str, ...], ttl_s: float) -> Seen:
        found = self._cache.fetch(key, lambda: value, deps=deps, ttl=ttl_s)
        return Seen(found.value, found.source, found.degraded)

    def set(self, key: str, value: object, ttl_s: float) -> bool:
        return self._cache.set(key, value, ttl=ttl_s).durable

    def invalidate(self, *patterns: str) -> bool:
        return self._cache.invalidate(*patterns).durable

    def refresh(self) -> bool:
        return self._cache.refresh()

    def close(self) -> None:
        self._cache.close()


class RemoteActor:
    """The same in a process of its own. A namespace at a time."""

    def __init__(self) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._here, there = spawn.Pipe()
        self._process = spawn.Process(target=_perform, args=(there,), daemon=True)
        self._process.start()
        there.close()

    def begin(self, url: str, namespace: str, bound_s: float, mutant: str = "") -> None:
        self.ask(0.0, "begin", url, namespace, bound_s, mutant)

    def ask(self, now_s: float, what: str, *given: object) -> Any:
        self.send(now_s, what, *given)
        return self.answer()

    def send(self, now_s: float, what: str, *given: object) -> None:
        self._here.send((now_s, what, given))

    def answer(self) -> Any:
        assert self._here.poll(ANSWER_TIMEOUT_S), "the process does not answer"
        kind, result = self._here.recv()
        assert kind == "done", result
        return result

    def freeze(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self._pid, signal.SIGCONT)

    def close(self) -> None:
        self.thaw()
        self._here.close()
        self._process.join(ANSWER_TIMEOUT_S)

    @property
    def _pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid


def _perform(connection: Connection) -> None:
    actor: Actor | None = None
    changed = ""
    while True:
        try:
            now_s, what, given = connection.recv()
        except EOFError:
            return
        try:
            if what == "begin":
                *where, mutant = given
                if mutant and mutant != changed:
                    MUTANTS[mutant]()
                    changed = mutant
                if actor is not None:
                    actor.close()
                actor, result = Actor(*where), None
            else:
                assert actor is not None, "it has not begun"
                result = getattr(actor.at(now_s), what)(*given)
        except Exception as error:  # noqa: BLE001 - the test is told, whatever it was
            connection.send(("failed", repr(error)))
        else:
            connection.send(("done", result))

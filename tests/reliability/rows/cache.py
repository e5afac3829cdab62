"""The cache's server is slow, away, full of garbage; answers stay right, and none is stale."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Final

from pipeline.cache.keys import KeySpace
from pipeline.settings import DEFAULT_NAMESPACE
from reliability.bench import Bench
from reliability.result import Result, Row, Say

AWAY_S: Final = 1.5
SMALL: Final = "3mb"
ENTRIES: Final = KeySpace(DEFAULT_NAMESPACE).entries_matching("*")


def _freeze(bench: Bench) -> None:
    bench.fleet.cache.freeze()
    time.sleep(AWAY_S)
    bench.fleet.cache.thaw()


def _kill(bench: Bench) -> None:
    """It comes back empty."""
    bench.fleet.cache.kill()
    time.sleep(AWAY_S)
    bench.fleet.cache.start()


def _slow(bench: Bench) -> None:
    bench.wires["cache"].mode = "slow"
    time.sleep(AWAY_S)
    bench.wires["cache"].mode = "pass"


def _reset(bench: Bench) -> None:
    bench.wires["cache"].reset()


def _hold(bench: Bench) -> None:
    bench.wires["cache"].mode = "half-open"
    time.sleep(AWAY_S)
    bench.wires["cache"].mode = "pass"


def _garbage(bench: Bench) -> None:
    """In the place of half of the entries: bytes that are none, and values of another type."""
    with bench.fleet.cache.client() as client:
        for name in list(client.scan_iter(match=ENTRIES, count=1000)):
            if bench.chance.random() < 0.5:
                if bench.chance.random() < 0.5:
                    client.set(name, bench.chance.randbytes(40), ex=600)
                else:
                    client.delete(name)
                    client.rpush(name, "garbage")


def _cut(bench: Bench) -> None:
    """Half of what an entry was."""
    with bench.fleet.cache.client() as client:
        for name in list(client.scan_iter(match=ENTRIES, count=1000)):
            if client.type(name) == b"string" and (value := client.get(name)):
                client.set(name, value[: len(value) // 2], ex=600)


def _evict(bench: Bench) -> None:
    _order(bench, "CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
    _order(bench, "CONFIG", "SET", "maxmemory", SMALL)
    time.sleep(AWAY_S)
    _order(bench, "CONFIG", "SET", "maxmemory", "0")


def _order(bench: Bench, *words: str) -> None:
    with bench.fleet.cache.client() as client:
        client.execute_command(*words)


def _wipe(bench: Bench) -> None:
    _order(bench, "FLUSHALL")


FAULTS: Final[tuple[Callable[[Bench], None], ...]] = (_freeze, _kill, _slow, _reset, _hold, _garbage, _cut, _evict, _wipe)


def spoiled(trials: int, say: Say) -> Result:
    """Each in turn."""
    faults = itertools.cycle(FAULTS)

    def spoil(bench: Bench) -> None:
        next(faults)(bench)

    with Bench(say, wires=("cache",)) as bench:
        return bench.befall("cache", trials, spoil)


ROWS: Final = (Row("cache", (10,), "the cache's server stands still, dies, is slow, evicts, holds garbage", spoiled),)

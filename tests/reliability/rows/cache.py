"""The cache's server is slow, away, full of garbage; answers stay right, and none is stale."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Final

from servers import ValkeyServer

from pipeline.assembly import build_cache
from pipeline.cache import TwoTierCache
from pipeline.cache.keys import KeySpace
from pipeline.settings import DEFAULT_NAMESPACE, Settings
from reliability.bench import Bench
from reliability.result import Result, Row, Say
from reliability.wire import Wire

AWAY_S: Final = 1.5
READERS: Final = 4
READ_EVERY_S: Final = 0.005
KEYS: Final = 1000
AGAIN_S: Final = 0.02
SLOW_S: Final = 0.1
MOST_OPEN_S: Final = 0.75
"""A call may take 0.25 s; those that had begun by then, and on a busy machine."""
MOST_CLOSE_S: Final = 3.0
"""It is asked once a second."""
SERVED_S: Final = 20.0
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
                    with client.pipeline() as pipe:
                        pipe.delete(name).rpush(name, "garbage").expire(name, 600).execute()


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


def breaker(trials: int, say: Say) -> Result:
    """The server no longer answers, and four threads read what only it has: how long until reads are refused at once, which reads
    had to wait, and how long until they are served again."""
    opened_s, closed_s, waited, reads = [], [], 0, 0
    with ExitStack() as resources:
        server = resources.enter_context(ValkeyServer())
        wire = resources.enter_context(Wire(server.port))
        source = resources.enter_context(closing(build_cache(Settings(cache_url=server.url, cache_namespace="breaker"))))
        reader = resources.enter_context(closing(build_cache(Settings(cache_url=wire.url, cache_namespace="breaker"))))
        readers = resources.enter_context(ThreadPoolExecutor(READERS))
        for trial in range(1, trials + 1):
            if trial % 10 == 1:
                say(f"breaker: {trial} of {trials}")
            keys = [f"{trial}:{number}" for number in range(KEYS)]
            source.set_many(dict.fromkeys(keys, trial), ttl=600)
            unread = iter(keys)
            _until_served(reader, unread, trial)
            wire.mode = "hold down"
            ends_s = time.monotonic() + AWAY_S
            took_s = [each for part in readers.map(_reads_until, [reader] * READERS, [ends_s] * READERS) for each in part]
            reads += len(took_s)
            slow = [(began_s, took) for began_s, took in took_s if took > SLOW_S]
            began_s = min(began_s for began_s, _ in took_s)
            opened_s.append(max((at_s + took for at_s, took in slow), default=began_s) - began_s)
            waited = max(waited, len(slow))
            wire.mode = "pass"
            healed_s = time.monotonic()
            _until_served(reader, unread, trial)
            closed_s.append(time.monotonic() - healed_s)
    problems = [f"reads waited for {max(opened_s):.2f} s"] if max(opened_s) > MOST_OPEN_S else []
    problems += [f"reads were served after {max(closed_s):.2f} s"] if max(closed_s) > MOST_CLOSE_S else []
    more = {"open_max_s": max(opened_s), "close_max_s": max(closed_s), "reads_that_waited_max": waited}
    return Result(trials, reads, back_s=tuple(closed_s), more=more, problems=tuple(problems))


def _reads_until(cache: TwoTierCache, ends_s: float) -> list[tuple[float, float]]:
    """When each read began, and how long it took."""
    took_s = []
    while (began_s := time.monotonic()) < ends_s:
        cache.get(f"nowhere:{began_s}")
        took_s.append((began_s, time.monotonic() - began_s))
        time.sleep(READ_EVERY_S)
    return took_s


def _until_served(cache: TwoTierCache, keys: Iterator[str], value: int) -> None:
    deadline_s = time.monotonic() + SERVED_S
    while cache.get(next(keys)) != value:
        assert time.monotonic() < deadline_s, f"nothing is served {SERVED_S:g} s after the server is back"
        time.sleep(AGAIN_S)


ROWS: Final = (
    Row("cache", (10,), "the cache's server stands still, dies, is slow, evicts, holds garbage", spoiled),
    Row("breaker", (10,), "the cache's server holds its replies back, while four threads read", breaker),
)

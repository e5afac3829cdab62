"""Every way of the cache to its server, as calls that may be broken off and calls that must not fail."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from pipeline.cache import MISS, AsyncCache, Kind, RedisCache, TwoTierCache, UncacheableValueError
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.server.connection import RedisConnection
from pipeline.courier import Courier
from pipeline.figures import FigureKeys, Reporter, read_figures
from pipeline.hot import Asked, HotKeys, HotSet
from pipeline.models import PersonaRequest

KEYS = tuple(f"user:{number}" for number in range(8))
TTL_S = 3000
TIMEOUT_S = 1.0
FOREVER_S = 86_400.0
REQUEST = PersonaRequest.create("What shall I do?", "calm-flowing-planning")


def value_of(key: str) -> str:
    return f"the secret of {key}"


class Paths:
    """`disturbed`: by name, the calls that may be broken off; `awaited`: those over `cache.aio`. `wrong_reads`: wrong results of
    later ordinary calls, each with its value."""

    def __init__(self, url: str, namespace: str, rng: random.Random) -> None:
        self._rng = rng
        self.alone = RedisCache(url=url, namespace=f"{namespace}-alone", timeout_s=TIMEOUT_S)
        shared = RedisCache(url=url, namespace=namespace, timeout_s=TIMEOUT_S)
        # The breaker stays out of it: what a broken-off call leaves behind is to be met by the very next one.
        self.cache = TwoTierCache(
            None, shared, l1_max_ttl_s=1e-6, wait_s=0.3, lease_s=0.5, staleness_bound_s=1e-6, max_ttl_s=FOREVER_S
        )
        self._figures = RedisConnection(url, timeout_s=TIMEOUT_S, retry_pause_s=0)
        self._figure_keys = FigureKeys(namespace)
        self._reporter = Reporter(Courier(lambda: self._figures, threaded=False), self._figure_keys, node="here")
        self._hot = HotSet(RedisConnection(url, timeout_s=TIMEOUT_S, retry_pause_s=0), HotKeys(namespace))
        self.disturbed: dict[str, Callable[[], object]] = {
            "get": lambda: self.alone.get(self._key()),
            "set": self._set,
            "read": lambda: self.cache.get(self._key()),
            "fetch": lambda: self._fetch(self._key(), least_s=self._rng.choice([0.0, TTL_S])),
            "compute": lambda: self._fetch(f"new:{secrets.token_hex(4)}", value_of_it="new"),
            "warm": self._warm,
            "sweep": self._sweep,
            "invalidate": lambda: self.cache.invalidate(f"other:{self._rng.randrange(50)}"),
            "lease": self._lease,
            "in flight": self._in_flight,
            "figures": self._tell_figures,
            "figures read": lambda: read_figures(self._figures, self._figure_keys),
            "hot set": self._count,
            "hot set read": lambda: self._quietly(lambda: self._hot.top(10)),
            "delete": lambda: self.alone.delete("nothing"),
            "stats": self.alone.get_stats,
        }
        aio = self.cache.aio
        self.awaited: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "get": lambda: aio.get(self._key()),
            "get many": lambda: aio.get_many(KEYS),
            "set": lambda: self._set_awaited(aio),
            "fetch": lambda: self._awaited(self._key(), least_s=self._rng.choice([0.0, TTL_S])),
            "compute": lambda: self._awaited(f"new:{secrets.token_hex(4)}", value_of_it="new"),
            "compute many": lambda: aio.get_or_compute_many([*KEYS[:2], f"new:{secrets.token_hex(4)}"], self._all, ttl=TTL_S),
            "invalidate": lambda: aio.invalidate(f"other:{self._rng.randrange(50)}"),
            "as of": aio.as_of,
            "refresh": aio.refresh,
            "stats": aio.get_stats,
        }
        self._reads: list[tuple[str, Callable[[str], Any]]] = [
            ("get", self.alone.get),
            ("read", self.cache.get),
            ("fetch", self._fetch),
        ]
        for key in KEYS:
            self.alone.set(key, value_of(key), ttl=TTL_S)
            self._fetch(key)

    def awaits(self, result: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]) -> None:
        """From here on `wrong_reads` has calls that are awaited, too, by `result`."""
        aio = self.cache.aio
        self._reads += [
            ("awaited get", lambda key: result(lambda: aio.get(key))),
            ("awaited fetch", lambda key: result(lambda: self._awaited(key))),
            ("awaited many", lambda key: result(lambda: aio.get_many(KEYS)).get(key, MISS)),
        ]

    def wrong_reads(self) -> list[str]:
        """By ordinary calls on each connection: values of another key, and errors of any kind but the promised ones."""
        wrong = []
        for name, read in self._reads:
            key = self._key()
            try:
                got = read(key)
            except Exception as error:  # noqa: BLE001 - any at all is a finding
                wrong.append(f"{name}: {type(error).__name__}: {error}")
                continue
            if got is not MISS and got != value_of(key):
                wrong.append(f"{name} of {key}: {got!r}")
            self.hits += got is not MISS
            self.reads += 1
        for name, call in (("figures read", self.disturbed["figures read"]), ("hot set read", self.disturbed["hot set read"])):
            try:
                call()
            except Exception as error:  # noqa: BLE001 - any at all is a finding
                wrong.append(f"{name}: {type(error).__name__}: {error}")
        return wrong

    hits = 0
    reads = 0

    def close(self) -> None:
        self.alone.close()
        self.cache.close()
        self._figures.close()

    def _key(self) -> str:
        return self._rng.choice(KEYS)

    @staticmethod
    def _quietly(call: Callable[[], object]) -> None:
        with suppress(SharedTierUnavailableError):
            call()

    def _set(self) -> None:
        key = self._key()
        self.alone.set(key, value_of(key), ttl=TTL_S)

    def _fetch(self, key: str, *, least_s: float = 0.0, value_of_it: str | None = None) -> Any:
        with suppress(UncacheableValueError):
            return self.cache.fetch(key, lambda: value_of_it or value_of(key), Kind(ttl=TTL_S), least_s=least_s).value
        return MISS

    async def _awaited(self, key: str, *, least_s: float = 0.0, value_of_it: str | None = None) -> Any:
        async def compute() -> str:
            await asyncio.sleep(0)
            return value_of_it or value_of(key)

        return (await self.cache.aio.fetch(key, compute, Kind(ttl=TTL_S), least_s=least_s)).value

    async def _set_awaited(self, aio: AsyncCache) -> None:
        key = self._key()
        await aio.set(key, value_of(key), TTL_S)

    @staticmethod
    async def _all(keys: Sequence[str]) -> dict[str, str]:
        await asyncio.sleep(0)
        return {key: value_of(key) for key in keys}

    def _warm(self) -> None:
        self.cache.l1.clear()
        self.cache.warm(dict.fromkeys(KEYS, Any))

    def _sweep(self) -> None:
        self.cache.invalidate("new:*")
        self.cache.sweep(0.05)

    def _lease(self) -> None:
        leases = self.cache._flight.leases
        assert leases is not None

        def take_and_give_back() -> None:
            taken = leases.take("leased", self.cache.as_of())
            if taken.lease is not None:
                leases.give_back(taken.lease)

        self._quietly(take_and_give_back)

    def _in_flight(self) -> None:
        tasks = self.cache.in_flight
        assert tasks is not None
        tasks.enter("queued", (), "task")
        tasks.holds("queued", "task")
        tasks.leave("queued", "task")

    def _tell_figures(self) -> None:
        self._reporter.invalidated(secrets.token_hex(4), time.time(), ("a:*",), durable=True)
        self._reporter.courier.deliver()

    def _count(self) -> None:
        self._quietly(lambda: self._hot.count({self._key(): Asked(1, REQUEST)}))

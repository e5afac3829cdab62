"""What a program might use in place of L2, on the same server, each as its own documentation sets it up for JSON-like values."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from benchmarks.kit.turns import Batch, batch_of


class L2Peer(Protocol):
    """A cache in Redis."""

    def get(self, key: str) -> Any:
        """The value; None for a miss."""

    def set(self, key: str, value: Any) -> None: ...

    def getting(self, keys: Sequence[str]) -> Batch:
        """A batch that gets each."""

    def setting(self, keys: Sequence[str], value: Any) -> Batch: ...

    def close(self) -> None: ...


class _Dogpile:
    """A region on the Redis backend, with the library's own default for values: pickle."""

    def __init__(self, url: str, ttl_s: int) -> None:
        from dogpile.cache import make_region
        from dogpile.cache.api import NO_VALUE

        self._absent = NO_VALUE
        arguments = {"url": url, "redis_expiration_time": ttl_s}
        self._region = make_region().configure("dogpile.cache.redis", arguments=arguments)

    def get(self, key: str) -> Any:
        value = self._region.get(key)
        return None if value is self._absent else value

    def set(self, key: str, value: Any) -> None:
        self._region.set(key, value)

    def getting(self, keys: Sequence[str]) -> Batch:
        return batch_of(self._region.get, keys)

    def setting(self, keys: Sequence[str], value: Any) -> Batch:
        return batch_of(lambda key: self._region.set(key, value), keys)

    def close(self) -> None:
        self._region.backend.reader_client.close()
        self._region.backend.writer_client.close()


class _Asynchronous:
    """A cache of coroutines, on a loop of its own. A batch runs in one coroutine: entering the loop is no part of a call."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()

    def get(self, key: str) -> Any:
        return self._runner.run(self._get(key))

    def set(self, key: str, value: Any) -> None:
        self._runner.run(self._set(key, value))

    def getting(self, keys: Sequence[str]) -> Batch:
        return self._batch(self._get, keys)

    def setting(self, keys: Sequence[str], value: Any) -> Batch:
        return self._batch(lambda key: self._set(key, value), keys)

    def close(self) -> None:
        self._runner.run(self._close())
        self._runner.close()

    def _batch(self, call: Callable[[str], Coroutine[Any, Any, Any]], keys: Sequence[str]) -> Batch:
        async def run() -> float:
            began_ns = time.perf_counter_ns()
            for key in keys:
                await call(key)
            return (time.perf_counter_ns() - began_ns) / len(keys)

        return lambda: self._runner.run(run())

    def _get(self, key: str) -> Coroutine[Any, Any, Any]:
        raise NotImplementedError

    def _set(self, key: str, value: Any) -> Coroutine[Any, Any, Any]:
        raise NotImplementedError

    def _close(self) -> Coroutine[Any, Any, Any]:
        raise NotImplementedError


class _Aiocache(_Asynchronous):
    """With its JSON serializer."""

    def __init__(self, url: str, ttl_s: int) -> None:
        from aiocache import RedisCache
        from aiocache.serializers import JsonSerializer

        super().__init__()
        at = urlsplit(url)
        self._cache = RedisCache(
            endpoint=at.hostname,
            port=at.port,
            db=int(at.path.strip("/") or 0),
            password=at.password,
            serializer=JsonSerializer(),
            namespace="aiocache",
        )
        self._ttl_s = ttl_s

    def _get(self, key: str) -> Coroutine[Any, Any, Any]:
        return self._cache.get(key)  # type: ignore[no-any-return]  # the library is untyped

    def _set(self, key: str, value: Any) -> Coroutine[Any, Any, Any]:
        return self._cache.set(key, value, ttl=self._ttl_s)  # type: ignore[no-any-return]  # the library is untyped

    def _close(self) -> Coroutine[Any, Any, Any]:
        return self._cache.close()  # type: ignore[no-any-return]  # the library is untyped


class _Cashews(_Asynchronous):
    """With its JSON pickler, unsigned."""

    def __init__(self, url: str, ttl_s: int) -> None:
        from cashews import Cache

        super().__init__()
        self._cache = Cache()
        self._cache.setup(url, pickle_type="json", prefix="")
        self._ttl_s = ttl_s

    def _get(self, key: str) -> Coroutine[Any, Any, Any]:
        return self._cache.get(f"cashews:{key}")  # type: ignore[no-any-return]  # judged as untyped, see pyproject.toml

    def _set(self, key: str, value: Any) -> Coroutine[Any, Any, Any]:
        return self._cache.set(f"cashews:{key}", value, expire=self._ttl_s)  # type: ignore[no-any-return]  # as above

    def _close(self) -> Coroutine[Any, Any, Any]:
        return self._cache.close()  # type: ignore[no-any-return]  # as above


L2_PEERS: Final[dict[str, Callable[[str, int], L2Peer]]] = {"dogpile": _Dogpile, "aiocache": _Aiocache, "cashews": _Cashews}


def make_l2_peers(url: str, ttl_s: int) -> tuple[dict[str, L2Peer], list[str]]:
    """The installed ones, and the names of the others."""
    peers: dict[str, L2Peer] = {}
    missing = []
    for name, make in L2_PEERS.items():
        try:
            peers[name] = make(url, ttl_s)
        except ModuleNotFoundError:
            missing.append(name)
    return peers, missing

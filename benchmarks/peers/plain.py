"""The plain cache of the peers: answers as JSON in Redis, by a digest of the request. And the servers' addresses."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, Final, cast

import redis

QUEUE_URL: Final = "BENCH_QUEUE_URL"
RESULT_URL: Final = "BENCH_RESULT_URL"
CACHE_URL: Final = "BENCH_CACHE_URL"
TTL_S: Final = 600
_PR_SET_PDEATHSIG: Final = 1


class CacheMissError(Exception):
    """A request was not found, though every request of the comparison is in the cache: a fault of the benchmark."""


def server(variable: str) -> str:
    """The URL that the benchmark set. Raises KeyError outside it."""
    return os.environ[variable]


def cache_key(request: Mapping[str, Any]) -> str:
    return "plain:" + hashlib.blake2b(json.dumps(request, sort_keys=True).encode(), digest_size=16).hexdigest()


def keep(client: redis.Redis, request: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    client.set(cache_key(request), json.dumps(answer), ex=TTL_S)


def decoded(found: object, request: Mapping[str, Any]) -> dict[str, Any]:
    """The cache's answer to the request. Raises CacheMissError."""
    if found is None:
        raise CacheMissError(f"no answer for {cache_key(request)}")
    return cast("dict[str, Any]", json.loads(cast("bytes", found)))


class PlainCache:
    """For tasks that are plain functions. Connects on first use; one for a process."""

    def __init__(self) -> None:
        self._client = redis.Redis.from_url(server(CACHE_URL))

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Raises CacheMissError."""
        return decoded(self._client.get(cache_key(request)), request)


def end_with_parent() -> None:
    """Have the kernel (Linux) end this process with the one that started it. A worker's module calls it when it is imported:
    a killed library leaves the processes that it has started behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

"""Taskiq on a Redis stream, which acknowledges, with its Redis results."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import redis
import redis.asyncio
from taskiq import AsyncTaskiqTask
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.peers import POLL_S, WORKER_PROCESSES
from benchmarks.peers.plain import CACHE_URL, QUEUE_URL, RESULT_URL, cache_key, decoded, end_with_parent, server

cache = redis.asyncio.Redis.from_url(server(CACHE_URL))
results: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(server(RESULT_URL))
broker = RedisStreamBroker(server(QUEUE_URL)).with_result_backend(results)


@broker.task
async def answer(request: dict[str, Any]) -> dict[str, Any]:
    return decoded(await cache.get(cache_key(request)), request)


class Peer:
    workers = (
        [sys.executable, "-m", "taskiq", "worker", f"--workers={WORKER_PROCESSES}", "--log-level=ERROR", f"{__name__}:broker"],
    )

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._runner.run(broker.startup())
        self._server = redis.Redis.from_url(server(RESULT_URL))
        self._sent: list[AsyncTaskiqTask[Any]] = []

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> Any:
        return self._runner.run(self._ask(request, timeout_s))

    def fill(self, requests: Iterable[Mapping[str, Any]]) -> None:
        self._server.flushdb()
        self._sent = self._runner.run(self._send(requests))

    def ended(self) -> int:
        return int(self._server.dbsize())

    def results(self) -> list[Any]:
        return self._runner.run(self._results())

    def close(self) -> None:
        self._runner.run(broker.shutdown())
        self._runner.close()
        self._server.close()

    async def _ask(self, request: Mapping[str, Any], timeout_s: float) -> Any:
        task = await answer.kiq(dict(request))
        return (await task.wait_result(check_interval=POLL_S, timeout=timeout_s)).return_value

    async def _send(self, requests: Iterable[Mapping[str, Any]]) -> list[AsyncTaskiqTask[Any]]:
        return [await answer.kiq(dict(request)) for request in requests]

    async def _results(self) -> list[Any]:
        return [(await sent.get_result()).return_value for sent in self._sent]


end_with_parent()

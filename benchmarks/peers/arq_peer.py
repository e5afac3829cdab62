"""arq: tasks that are coroutines, jobs in a sorted set that its workers poll every half second, as they do by default."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import redis.asyncio
from arq.connections import ArqRedis, RedisSettings, create_pool
from arq.constants import default_queue_name
from arq.jobs import Job

from benchmarks.peers import POLL_S, WORKER_PROCESSES
from benchmarks.peers.plain import CACHE_URL, QUEUE_URL, cache_key, decoded, server


async def answer(context: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    return decoded(await context["cache"].get(cache_key(request)), request)


async def startup(context: dict[str, Any]) -> None:
    context["cache"] = redis.asyncio.Redis.from_url(server(CACHE_URL))


class WorkerSettings:
    functions: ClassVar = [answer]
    on_startup = startup
    redis_settings = RedisSettings.from_dsn(server(QUEUE_URL))


class Peer:
    workers = ([sys.executable, "-m", "arq", f"{__name__}.WorkerSettings"],) * WORKER_PROCESSES

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._pool: ArqRedis = self._runner.run(create_pool(WorkerSettings.redis_settings))
        self._sent: list[Job] = []

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> Any:
        return self._runner.run(self._ask(request, timeout_s))

    def fill(self, requests: Iterable[Mapping[str, Any]]) -> None:
        self._sent = self._runner.run(self._send(requests))

    def ended(self) -> int:
        return len(self._sent) - self._runner.run(self._waiting())

    def results(self) -> list[Any]:
        return self._runner.run(self._results())

    def close(self) -> None:
        self._runner.run(self._pool.aclose())
        self._runner.close()

    async def _ask(self, request: Mapping[str, Any], timeout_s: float) -> Any:
        return await (await self._enqueue(request)).result(timeout_s, poll_delay=POLL_S)

    async def _send(self, requests: Iterable[Mapping[str, Any]]) -> list[Job]:
        return [await self._enqueue(request) for request in requests]

    async def _waiting(self) -> int:
        return int(await self._pool.zcard(default_queue_name))

    async def _results(self) -> list[Any]:
        return [await sent.result(10) for sent in self._sent]

    async def _enqueue(self, request: Mapping[str, Any]) -> Job:
        job = await self._pool.enqueue_job("answer", dict(request))
        if job is None:
            raise RuntimeError("the job was not enqueued")
        return job

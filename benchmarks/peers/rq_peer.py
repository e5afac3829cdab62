"""RQ: a process forked for each task, as it is by default."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import redis
from rq import Queue
from rq.job import Job

from benchmarks.peers import WORKER_PROCESSES
from benchmarks.peers.plain import QUEUE_URL, PlainCache, server

cache = PlainCache()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    return cache.answer(request)


class Peer:
    workers = ([sys.executable, "-m", "rq.cli", "worker", "--quiet", "--url", server(QUEUE_URL)],) * WORKER_PROCESSES

    def __init__(self) -> None:
        self._server = redis.Redis.from_url(server(QUEUE_URL))
        self._queue = Queue(connection=self._server)
        self._sent: list[Job] = []

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> Any:
        return _value(self._queue.enqueue(answer, dict(request)), timeout_s)

    def fill(self, requests: Iterable[Mapping[str, Any]]) -> None:
        self._before = self._finished()
        self._sent = [self._queue.enqueue(answer, dict(request)) for request in requests]

    def ended(self) -> int:
        return self._finished() - self._before

    def results(self) -> list[Any]:
        return [_value(sent, 10) for sent in self._sent]

    def close(self) -> None:
        self._server.close()

    def _finished(self) -> int:
        return int(self._server.zcard(self._queue.finished_job_registry.key))


def _value(job: Job, timeout_s: float) -> Any:
    result = job.latest_result(timeout=int(timeout_s))
    if result is None or result.type is not result.Type.SUCCESSFUL:
        raise RuntimeError(f"job {job.id} gave {result}")
    return result.return_value

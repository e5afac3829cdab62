"""Celery with its stock settings, a pool of processes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import redis
from celery import Celery
from celery.result import AsyncResult

from benchmarks.peers import WORKER_PROCESSES
from benchmarks.peers.plain import QUEUE_URL, RESULT_URL, PlainCache, server

cache = PlainCache()
app = Celery("peer", broker=server(QUEUE_URL), backend=server(RESULT_URL), set_as_current=False)


@app.task(name="answer")
def answer(request: dict[str, Any]) -> dict[str, Any]:
    return cache.answer(request)


class Peer:
    workers = (
        [sys.executable, "-m", "celery", "-A", __name__, "worker", f"--concurrency={WORKER_PROCESSES}", "--loglevel=ERROR"],
    )

    def __init__(self) -> None:
        self._server = redis.Redis.from_url(server(RESULT_URL))
        self._sent: list[AsyncResult] = []

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> Any:
        return answer.delay(request).get(timeout=timeout_s)

    def fill(self, requests: Iterable[Mapping[str, Any]]) -> None:
        self._server.flushdb()
        self._sent = [answer.delay(request) for request in requests]

    def ended(self) -> int:
        return int(self._server.dbsize())

    def results(self) -> list[Any]:
        return [sent.get(timeout=10) for sent in self._sent]

    def close(self) -> None:
        self._server.close()
        app.close()

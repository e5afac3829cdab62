"""Dramatiq on Redis, with its results middleware."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers import WORKER_PROCESSES
from benchmarks.peers.plain import QUEUE_URL, RESULT_URL, PlainCache, end_with_parent, server

cache = PlainCache()
broker = RedisBroker(url=server(QUEUE_URL))
broker.add_middleware(Results(backend=RedisBackend(url=server(RESULT_URL)), store_results=True))
dramatiq.set_broker(broker)


@dramatiq.actor
def answer(request: dict[str, Any]) -> dict[str, Any]:
    return cache.answer(request)


class Peer:
    workers = ([sys.executable, "-m", "dramatiq", f"--processes={WORKER_PROCESSES}", __name__],)

    def __init__(self) -> None:
        self._server = redis.Redis.from_url(server(RESULT_URL))
        self._sent: list[dramatiq.Message[Any]] = []

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> Any:
        return answer.send(dict(request)).get_result(block=True, timeout=int(timeout_s * 1000))

    def fill(self, requests: Iterable[Mapping[str, Any]]) -> None:
        self._server.flushdb()
        self._sent = [answer.send(dict(request)) for request in requests]

    def ended(self) -> int:
        return int(self._server.dbsize())

    def results(self) -> list[Any]:
        return [sent.get_result() for sent in self._sent]

    def close(self) -> None:
        self._server.close()
        broker.close()


if __name__ != "__main__":
    end_with_parent()

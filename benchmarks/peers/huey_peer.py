"""Huey on Redis. Its consumer's default is one thread; here as many consumers as the others have processes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from huey import RedisHuey
from huey.api import Result

from benchmarks.peers import POLL_S, WORKER_PROCESSES
from benchmarks.peers.plain import QUEUE_URL, PlainCache, server

cache = PlainCache()
huey = RedisHuey("peer", url=server(QUEUE_URL))


@huey.task()
def answer(request: dict[str, Any]) -> dict[str, Any]:
    return cache.answer(request)


class Peer:
    workers = ([sys.executable, "-m", "huey.bin.huey_consumer", f"{__name__}.huey", "--quiet"],) * WORKER_PROCESSES

    def __init__(self) -> None:
        self._sent: list[Result] = []

    def ask(self, request: Mapping[str, Any], timeout_s: float) -> Any:
        return answer(dict(request)).get(blocking=True, timeout=timeout_s, backoff=1, max_delay=POLL_S)

    def fill(self, requests: Iterable[Mapping[str, Any]]) -> None:
        self._before = self.ended_in_all()
        self._sent = [answer(dict(request)) for request in requests]

    def ended(self) -> int:
        return self.ended_in_all() - self._before

    def ended_in_all(self) -> int:
        return int(huey.storage.result_store_size())

    def results(self) -> list[Any]:
        return [sent.get(blocking=True, timeout=10) for sent in self._sent]

    def close(self) -> None:
        huey.storage.close()

"""Tasks that note at the broker that they ran."""

from __future__ import annotations

import os
import time
from typing import Any, Final

import redis
from celery import Celery

RUNS: Final = "test.runs"


def _run(name: Any) -> None:
    with redis.Redis.from_url(os.environ["PERSONA_BROKER_URL"]) as client:
        client.rpush(RUNS, str(name))


def register(app: Celery) -> None:
    """`test.note` notes its name; `test.nap` does so, and takes so many seconds more; `test.count` returns how many it was given;
    `test.close` does so, and notes its name; `test.die` ends its process; `test.eat` takes so many MB of memory for
    a moment."""

    @app.task(name="test.note")
    def note(name: str) -> str:
        _run(name)
        return name

    @app.task(name="test.nap")
    def nap(name: str, seconds: float) -> None:
        _run(name)
        time.sleep(seconds)

    @app.task(name="test.count")
    def count(given: Any) -> int:
        return len(given)

    @app.task(name="test.close")
    def close(given: Any, name: str) -> int:
        _run(name)
        return len(given)

    @app.task(name="test.eat", default_retry_delay=1, max_retries=2)
    def eat(name: str, mb: int) -> int:
        _run(name)
        eaten = bytearray(b"x") * (mb * 2**20)
        time.sleep(0.1)
        return len(eaten)

    @app.task(name="test.die", default_retry_delay=1, max_retries=2)
    def die(name: str) -> None:
        _run(name)
        os._exit(70)

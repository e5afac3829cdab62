"""One question whose answer has a version: a writer raises it and invalidates, readers on every node tell which one they got."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import closing
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

import redis
from celery.exceptions import OperationalError
from fleet import Fleet, bare_app

from benchmarks.kit.endpoint import Messages
from benchmarks.kit.model_server import answer_to
from pipeline.models import PersonaRequest
from pipeline.settings import load_settings
from reliability.checkers import Served, Version
from workers.client import PersonaClient

QUESTION: Final = "Which version is it?"
REQUEST: Final = PersonaRequest.create(QUESTION, "urgent-burst-problem_solving").to_wire()
PATTERN: Final = "prompt:*:urgent-burst-problem_solving"
"""What its answer was computed from; the callers' answers are from others."""
EVERYTHING: Final = "persona:*"
EVERYTHING_EVERY: Final = 10
READ_EVERY_S: Final = 0.1
JOIN_S: Final = 20.0
GIVEN_UP_S: Final = 60.0
BATCH: Final = 200
_VERSION: Final = re.compile(r"version (\d+)\.")


class Watch:
    """`with Watch(fleet):` the fleet's endpoint answers the question by the version then, and all others as before. `reads` and
    `versions` may be read from any thread once the block has ended. `invalidates`: put in another call to see that it matters."""

    def __init__(self, fleet: Fleet, *, write_every_s: float = 0.7) -> None:
        self._fleet, self._write_every_s = fleet, write_every_s
        self._ended = threading.Event()
        self._number = 1
        self._threads = [
            threading.Thread(target=work, name=f"watch-{work.__name__}", daemon=True) for work in (self._write, self._read)
        ]
        self.versions: list[Version] = []
        self.reads: list[Served] = []
        self.invalidates: Callable[[PersonaClient], bool] = self._invalidate

    def __enter__(self) -> Self:
        self._fleet.endpoint.answer = self._answer
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(JOIN_S)

    def _invalidate(self, client: PersonaClient) -> bool:
        return client.invalidate(EVERYTHING if self._number % EVERYTHING_EVERY == 0 else PATTERN).durable

    def _answer(self, messages: Messages) -> str:
        return f"It is version {self._number}." if QUESTION in messages[-1]["content"] else answer_to(messages)

    def _write(self) -> None:
        """The version rises before it is invalidated: what is asked for after that was made from it, or from a later one."""
        with PersonaClient(load_settings(self._fleet.environ)) as client:
            while not self._ended.wait(self._write_every_s):
                self._number += 1
                durable = self.invalidates(client)
                self.versions.append(Version(self._number, time.monotonic() if durable else 0.0))

    def _read(self) -> None:
        asked: dict[str, float] = {}
        with closing(bare_app(self._fleet.broker.url)) as app:
            while not self._ended.wait(READ_EVERY_S):
                task_id, now_s = str(uuid4()), time.monotonic()
                try:
                    app.send_task("persona.process", args=[REQUEST], queue="persona", task_id=task_id)
                    asked[task_id] = now_s
                except (OperationalError, redis.RedisError, OSError, AttributeError):
                    pass  # the broker is away, and its caller knows
                self._collect(asked)

    def _collect(self, asked: dict[str, float]) -> None:
        """Those that are not answered for long are no reads; whether they are lost is for others to judge."""
        for task_id in [task_id for task_id, asked_s in asked.items() if asked_s < time.monotonic() - GIVEN_UP_S]:
            del asked[task_id]
        ids = list(asked)[:BATCH]
        try:
            with closing(redis.Redis.from_url(self._fleet.broker.url_of(1), socket_timeout=2)) as client:
                kept: list[Any] = client.mget([f"celery-task-meta-{task_id}" for task_id in ids]) if ids else []
        except (redis.RedisError, OSError):
            return
        for task_id, payload in zip(ids, kept, strict=True):
            if payload is not None:
                asked_s = asked.pop(task_id)
                outcome = json.loads(payload)
                if outcome["status"] == "SUCCESS" and (found := _VERSION.search(outcome["result"]["content"])):
                    self.reads.append(Served(int(found[1]), asked_s))

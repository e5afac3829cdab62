"""A program that queues tasks and looks for their outcomes, without any connection that a fault could break for it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, Self

import redis
from celery import Celery
from fleet import Fleet, bare_app
from polling import until

from pipeline.models import PersonaRequest

KEY = "calm-flowing-planning"


def new_request() -> PersonaRequest:
    return PersonaRequest.create(f"What do I do about {uuid.uuid4().hex}?", KEY)


class Sender:
    """Of tasks for a fleet's nodes. Results are read where nodes keep them, in the broker's database 1."""

    def __init__(self, app: Celery, fleet: Fleet) -> None:
        self._app = app
        self._fleet = fleet

    @classmethod
    @contextmanager
    def of(cls, fleet: Fleet) -> Iterator[Self]:
        with closing(bare_app(fleet.broker.url)) as app:
            yield cls(app, fleet)

    def request(self, count: int = 1, queue: str = "persona", **options: Any) -> list[str]:
        """The ids of so many requests, all new, queued."""
        return [self.send("persona.process", new_request().to_wire(), queue=queue, **options) for _ in range(count)]

    def send(self, task: str, *args: Any, queue: str = "persona", **options: Any) -> str:
        task_id: str = self._app.send_task(task, args=args, queue=queue, **options).id
        return task_id

    def outcomes(self, ids: Sequence[str]) -> list[dict[str, Any] | None]:
        try:
            with redis.Redis.from_url(self._fleet.broker.url_of(1)) as client:
                kept = client.mget([f"celery-task-meta-{task_id}" for task_id in ids])
        except redis.RedisError:
            return [None] * len(ids)
        return [json.loads(each) if each else None for each in kept]

    def done(self, ids: Sequence[str], status: str = "SUCCESS") -> int:
        """How many of them have that outcome."""
        return [outcome["status"] for outcome in self.outcomes(ids) if outcome].count(status)

    def wait(self, ids: Sequence[str], status: str = "SUCCESS", *, bound_s: float = 40.0) -> None:
        until(lambda: not ids or self.done(ids, status) == len(ids), f"{len(ids)} tasks: {status}", bound_s=bound_s)

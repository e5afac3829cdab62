"""An app of somebody else, with tasks on a queue of its own: `celery -A foreign_app worker` with `tests` in PYTHONPATH.

It knows of this project what its users know: the names of the tasks, and the client.
"""

from __future__ import annotations

import asyncio
import os
from functools import cache
from typing import Any, Final

from celery import Celery

from pipeline.models import PersonaRequest
from workers.client import PersonaClient

QUEUE: Final = "foreign"

app = Celery("foreign", broker=os.environ["PERSONA_BROKER_URL"], backend=os.environ["FOREIGN_RESULT_URL"])
app.conf.update(
    task_default_queue=QUEUE,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 600},
    worker_prefetch_multiplier=1,
)


@cache
def client() -> PersonaClient:
    return PersonaClient()


@app.task(name="foreign.ask")
def ask(text: str, key: str) -> dict[str, Any]:
    return client().ask(text, key, timeout_s=20).to_wire()


@app.task(name="foreign.aask")
def aask(text: str, key: str) -> dict[str, Any]:
    return asyncio.run(client().aask(text, key, timeout_s=20)).to_wire()


@app.task(name="foreign.map")
def ask_many(texts: list[str], key: str, ordered: bool) -> list[dict[str, Any]]:
    requests = [PersonaRequest.create(text, key) for text in texts]
    answered = client().map(requests, timeout_s=20, ordered=ordered)
    return [each.response.to_wire() for each in answered if each.response is not None]


@app.task(name="foreign.content")
def content(answer: dict[str, Any]) -> str:
    return "I was told: " + answer["content"]


@app.task(name="foreign.contents")
def contents(answers: list[dict[str, Any]]) -> list[str]:
    return [answer["content"] for answer in answers]


@app.task(name="foreign.shout")
def shout(text: str) -> str:
    return text.upper()


@app.task(name="foreign.failed")
def failed(task_id: str) -> str:
    return f"failed: {task_id}"

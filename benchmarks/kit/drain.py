"""The rate at which a node empties its queue. The queue is filled aside and handed over at once, so that the filling program
takes no part in the measurement."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from uuid import uuid4

import redis
from celery import Celery
from kombu import Exchange, Queue

from benchmarks.kit.errors import BenchmarkFailedError
from pipeline.settings import Settings
from workers.client import QUEUE
from workers.node.fetch.claims import CLAIMS

HOLD: Final = Queue("bench.hold", Exchange("bench.hold", type="direct"), routing_key="bench.hold")
DRAIN_TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.005
Check = Callable[[Any, Any], bool]


class Drain:
    """For a node on a benchmark's own servers: it takes every result out of the result database."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._broker = redis.Redis.from_url(settings.broker_url, decode_responses=True)
        self._results = redis.Redis.from_url(settings.result_backend_url)

    def close(self) -> None:
        self._broker.close()
        self._results.close()

    def per_s(self, task: str, arguments: Sequence[Mapping[str, Any]], count: int, right: Check) -> float:
        """Tasks a second while the node works off `count` of them, which have these arguments in turn.

        Raises BenchmarkFailedError when one failed, or its result is not `right(argument, result)`.
        """
        self._results.flushdb()
        sent = self._fill(task, arguments, count)
        began_s = time.perf_counter()
        self._broker.rename(HOLD.name, QUEUE)  # one command, whatever its length
        deadline_s = time.monotonic() + DRAIN_TIMEOUT_S
        while not self._drained(count):
            if time.monotonic() > deadline_s:
                raise BenchmarkFailedError([f"{task}: not within {DRAIN_TIMEOUT_S:g} s: {count} tasks have ended"])
            time.sleep(POLL_S)
        took_s = time.perf_counter() - began_s
        for (task_id, argument), raw in zip(
            sent, self._results.mget([f"celery-task-meta-{task_id}" for task_id, _ in sent]), strict=True
        ):
            result = json.loads(raw or b"{}")
            if result.get("status") != "SUCCESS" or not right(argument, result["result"]):
                raise BenchmarkFailedError([f"{task}: task {task_id} gave {str(result)[:200]}"])
        return count / took_s

    def _fill(self, task: str, arguments: Sequence[Mapping[str, Any]], count: int) -> list[tuple[str, Mapping[str, Any]]]:
        """One real message for each argument, and copies of them under other ids: sending thousands would take longer than
        working them off."""
        originals = []
        for argument in arguments:
            self._app.send_task(task, args=[argument], queue=HOLD, ignore_result=False)
            originals.append((argument, str(self._broker.lpop(HOLD.name))))
        sent = []
        with self._broker.pipeline(transaction=False) as pipe:
            for number in range(count):
                argument, message = originals[number % len(originals)]
                task_id, message = _copy(message)
                sent.append((task_id, argument))
                pipe.lpush(HOLD.name, message)
            pipe.execute()
        return sent

    def _drained(self, count: int) -> bool:
        with self._broker.pipeline(transaction=False) as pipe:
            pipe.llen(QUEUE)
            pipe.keys(f"{CLAIMS}*")  # a list without items does not exist
            waiting, running = pipe.execute()
        return not waiting and not running and int(self._results.dbsize()) >= count


def _copy(message: str) -> tuple[str, str]:
    """The same message under another id."""
    old, task_id = json.loads(message)["headers"]["id"], str(uuid4())
    envelope = json.loads(message.replace(old, task_id))
    envelope["properties"]["delivery_tag"] = str(uuid4())
    body = base64.b64decode(envelope["body"])
    if old.encode() in body:
        raise ValueError("the message's body knows its id")
    return task_id, json.dumps(envelope)

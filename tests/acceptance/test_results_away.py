"""The server of the results is away, full or read-only: no task's outcome is lost, however it was to be stored."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest
import redis
from celery import Celery
from fleet import Pool, WorkerNode, bare_app, send_plain
from polling import until
from servers import ValkeyServer, free_port

from benchmarks.kit.endpoint import Fault, ScriptedEndpoint
from pipeline.models import PersonaRequest
from workers.node.fetch.claims import CLAIMS

TASKS = 60
AWAY_S = 4.0
KEY = "calm-flowing-planning"


class Desk:
    """A node without cache and model, so that its tasks are quick; and a program that queues tasks and looks for outcomes."""

    def __init__(self, app: Celery, broker: ValkeyServer, results: ValkeyServer, node: WorkerNode) -> None:
        self._app = app
        self.broker = broker
        self.results = results
        self.node = node

    def queue(self, count: int = TASKS) -> list[str]:
        """The ids of as many tasks, queued."""
        requests = [PersonaRequest.create(f"What now? {uuid.uuid4().hex}", KEY) for _ in range(count)]
        return [send_plain(self._app, request).id for request in requests]

    def told(self, ids: list[str]) -> int:
        """How many of them have an answer where their caller looks."""
        try:
            with self.results.client() as client:
                kept = client.mget([f"celery-task-meta-{task_id}" for task_id in ids])
        except redis.RedisError:
            return 0
        return [json.loads(outcome)["status"] for outcome in kept if outcome].count("SUCCESS")

    def left(self) -> int:
        """How many messages are not done with."""
        with self.broker.client() as client:
            return sum(int(client.llen(name)) for name in ("persona", *client.keys(f"{CLAIMS}*")))

    def said(self, words: str, seen: int) -> int:
        """How often the node has, since its log was `seen` characters long."""
        return self.node.log()[seen:].count(words)


@contextmanager
def desk_with(pool: Pool = "prefork", concurrency: int = 2, arguments: tuple[str, ...] = (), llm_url: str = "") -> Iterator[Desk]:
    with ExitStack() as opened:
        broker = opened.enter_context(ValkeyServer())
        results = opened.enter_context(ValkeyServer())
        app = opened.enter_context(closing(bare_app(broker.url)))
        node = WorkerNode(
            broker_url=broker.url,
            result_url=results.url,
            llm_url=llm_url,
            pool=pool,
            concurrency=concurrency,
            arguments=arguments,
        )
        opened.enter_context(node)
        yield Desk(app, broker, results, node)


@pytest.fixture(scope="module")
def desk() -> Iterator[Desk]:
    with desk_with() as desk:
        yield desk


def kill(results: ValkeyServer) -> None:
    results.kill()


def start(results: ValkeyServer) -> None:
    results.start()


def _commanding(*words: Any) -> Callable[[ValkeyServer], None]:
    def command(results: ValkeyServer) -> None:
        with results.client() as client:
            client.execute_command(*words)

    return command


@pytest.mark.parametrize(
    ("ends", "returns", "error"),
    [
        (kill, start, "ConnectionError"),
        (_commanding("CONFIG", "SET", "maxmemory", "1"), _commanding("CONFIG", "SET", "maxmemory", "0"), "OutOfMemoryError"),
        (_commanding("REPLICAOF", "127.0.0.1", free_port()), _commanding("REPLICAOF", "NO", "ONE"), "ReadOnlyError"),
    ],
    ids=["killed", "full", "read-only"],
)
def test_every_caller_is_told_when_the_server_of_the_results_is_back(
    desk: Desk, ends: Callable[[ValkeyServer], None], returns: Callable[[ValkeyServer], None], error: str
) -> None:
    """The pool's processes keep what they have computed, and try again until it is stored."""
    seen = len(desk.node.log())
    ends(desk.results)
    ids = desk.queue()
    until(lambda: desk.said("results.delayed", seen) >= 2, "each process has an outcome that it cannot store")
    time.sleep(AWAY_S)  # as long as a restart takes: the outage itself
    returns(desk.results)
    until(lambda: desk.told(ids) == TASKS, "every caller is told")
    until(lambda: desk.left() == 0, "every message is done with")
    log = desk.node.log()[seen:]
    assert f": {error}" in log
    assert "results.not_stored" not in log
    assert "Traceback" not in log


IMPATIENT = "result.backend_transport_options=(json)" + json.dumps({"retry_policy": {"timeout": 0.2}, "outcome_patience_s": 0.2})


@pytest.mark.parametrize(
    ("pool", "concurrency"),
    [("prefork", 2), pytest.param("threads", 2, marks=pytest.mark.long), pytest.param("solo", 1, marks=pytest.mark.long)],
)
def test_a_task_whose_outcome_cannot_be_stored_at_all_goes_back_to_its_queue(pool: Pool, concurrency: int) -> None:
    """It is run again, until its caller can be told. No slot of the node is lost on the way, in any pool."""
    with desk_with(pool, concurrency, ("--", IMPATIENT)) as desk:
        desk.results.kill()
        ids = desk.queue(5)
        until(lambda: desk.said("results.not_stored", 0) > 2 * len(ids), "each has gone back, and some of them twice")
        until(lambda: desk.left() == len(ids), "none is gone")  # one may just be on its way to the node
        desk.results.start()
        until(lambda: desk.told(ids) == len(ids), "every caller is told")
        until(lambda: desk.left() == 0, "every message is done with")
        assert desk.node.running


def test_a_task_that_meets_its_soft_time_limit_while_it_waits_goes_back() -> None:
    """It has done its work in time: the wait is not its failure."""
    with desk_with("prefork", 1, ("--", "task.soft_time_limit=1")) as desk:
        desk.results.kill()
        ids = desk.queue(1)
        until(lambda: desk.said("results.not_stored: SUCCESS", 0), "it has gone back")
        desk.results.start()
        until(lambda: desk.told(ids) == 1, "its caller is told")
        until(lambda: desk.left() == 0, "the message is done with")


def test_a_task_over_its_time_limit_goes_back_while_its_caller_cannot_be_told() -> None:
    """The main process ends it, and tells its caller as soon as that can be done."""
    with (
        ScriptedEndpoint() as model,
        desk_with("prefork", 1, ("--", IMPATIENT, "task.time_limit=1", "task.soft_time_limit=(json)null"), model.url) as desk,
    ):
        model.script(Fault("hang"))
        desk.results.kill()
        (task_id,) = desk.queue(1)
        until(lambda: desk.said("results.not_stored: FAILURE", 0) >= 2, "it has gone back and was run again")
        desk.results.start()
        with desk.results.client(decode_responses=True) as client:
            until(lambda: client.get(f"celery-task-meta-{task_id}"), "its caller is told")
            outcome = json.loads(client.get(f"celery-task-meta-{task_id}"))
        assert (outcome["status"], outcome["result"]["exc_type"]) == ("FAILURE", "TimeLimitExceeded")
        until(lambda: desk.left() == 0, "the message is done with")


def test_an_outcome_takes_one_exchange_with_its_server(desk: Desk) -> None:
    """Celery's own backend takes two, and as many again to say that the task has begun."""
    warm = desk.queue()  # connections, and the script
    until(lambda: desk.told(warm) == TASKS, "the node is warm")
    with desk.results.client() as client:
        kept = client.dbsize()
        client.config_resetstat()
        ids = desk.queue()
        until(lambda: client.dbsize() == kept + TASKS, "all are done")
        until(lambda: desk.left() == 0, "every message is done with")
        calls = {name.removeprefix("cmdstat_"): stats["calls"] for name, stats in client.info("commandstats").items()}
    assert desk.told(ids) == TASKS
    # The script's own three are no exchanges; the rest are this test's.
    assert {name: count for name, count in calls.items() if name not in ("dbsize", "info", "config|resetstat")} == dict.fromkeys(
        ("evalsha", "get", "setex", "publish"), TASKS
    )

"""Callers that are tasks of another app, with a worker and a queue of its own: they ask, and are called back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from fleet import ROOT, START_TIMEOUT_S, Fleet, bare_app
from polling import until
from servers import NO_STACK

from benchmarks.kit.nodes import node_command, own_environment
from pipeline.discovery import STACK_DIR
from workers.stack.processes import ChildProcess

KEY = "curious-flowing-learning"
QUEUE = "foreign"
ANSWER_S = 20.0


@contextmanager
def foreign_worker(fleet: Fleet, folder: Path) -> Iterator[Celery]:
    """An app whose worker runs beside the fleet, with the fleet's broker and results."""
    results = fleet.broker.url_of(1)
    environ = {**own_environment(), STACK_DIR: NO_STACK, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", **fleet.environ}
    environ |= {"PERSONA_RESULT_URL": results, "FOREIGN_RESULT_URL": results}
    command = node_command("foreign@host", pool="prefork", concurrency=2, app="foreign_app", log_level="INFO")
    with closing(bare_app(fleet.broker.url, results)) as app:
        process = ChildProcess(command, log=folder / "foreign.log", environ=environ, directory=folder)
        try:
            log = folder / "foreign.log"
            until(lambda: "foreign@host ready." in log.read_text(), "the foreign worker is ready", bound_s=START_TIMEOUT_S)
            yield app
        finally:
            process.kill()


@pytest.fixture(scope="module")
def foreign(shared_fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celery]:
    with foreign_worker(shared_fleet, tmp_path_factory.mktemp("foreign")) as app:
        yield app


def send(app: Celery, name: str, *args: Any) -> Any:
    """What a task of the foreign worker returns."""
    return app.send_task(name, args=args, queue=QUEUE).get(timeout=ANSWER_S)


# -- the client inside a task


@pytest.mark.parametrize("name", ["foreign.ask", "foreign.aask"])
def test_a_task_of_another_app_asks_as_any_program_does(name: str, foreign: Celery, fleet: Fleet, question: str) -> None:
    """A miss waits for the workers, which are others than those that it holds up; then there is a hit."""
    assert question in send(foreign, name, question, KEY)["content"]
    assert send(foreign, name, question, KEY)["cached"] in ("l1", "l2")


@pytest.mark.parametrize("ordered", [True, False])
def test_a_task_of_another_app_asks_many(ordered: bool, foreign: Celery, fleet: Fleet, question: str) -> None:
    """In order, and as answers come."""
    texts = [f"{question} {number}" for number in range(3)]
    contents = [answer["content"] for answer in send(foreign, "foreign.map", texts, KEY, ordered)]
    assert len(contents) == 3
    assert all(any(text in content for content in contents) for text in texts)


def test_what_a_task_has_asked_is_no_child_of_it(foreign: Celery, fleet: Fleet, question: str) -> None:
    """Its result may lie where this project's do not: a walk over the children of the caller's result would never end."""
    result = foreign.send_task("foreign.ask", args=[question, KEY], queue=QUEUE)
    assert result.get(timeout=ANSWER_S)["cached"] == "no"
    assert not result.children

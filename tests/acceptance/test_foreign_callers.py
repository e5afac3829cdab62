"""Callers that are tasks of another app, with a worker and a queue of its own: they ask, and are called back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, Signature, chord
from celery.exceptions import QueueNotFound
from celery.utils import uuid
from fleet import ROOT, START_TIMEOUT_S, Fleet, bare_app
from kombu import Exchange, Queue
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


# -- callbacks to the caller's own queue


def asked(app: Celery, question: str) -> Signature:
    """A request as a caller's canvas has it."""
    return app.signature("persona.process", args=[{"user_input": question, "resonance_key": KEY}], queue="persona")


def own(app: Celery, name: str, **options: Any) -> Signature:
    """A task of the caller's own, on the caller's own queue."""
    return app.signature(name, queue=QUEUE, **options)


def test_a_link_goes_to_its_callers_queue(foreign: Celery, fleet: Fleet, question: str) -> None:
    """One, and several of which one cannot be sent: the answer is there, and so is what the others made of it."""
    links = [own(foreign, "foreign.content", task_id=uuid()) for _ in range(3)]
    bad = foreign.signature("foreign.content", exchange="x", exchange_type="no such type", routing_key="x")
    one = asked(foreign, question).apply_async(link=links[0])
    several = asked(foreign, question + "!").apply_async(link=[links[1], bad, links[2]])
    assert question in one.get(timeout=ANSWER_S)["content"]
    assert question in several.get(timeout=ANSWER_S)["content"]
    for link in links:
        assert "I was told" in foreign.AsyncResult(link.options["task_id"]).get(timeout=ANSWER_S)


def test_a_chain_goes_on_on_its_callers_queue(foreign: Celery, fleet: Fleet, question: str) -> None:
    """Step by step, from this project's workers to the caller's."""
    steps = asked(foreign, question) | own(foreign, "foreign.content") | own(foreign, "foreign.shout")
    assert question.upper() in steps.apply_async().get(timeout=ANSWER_S)


def test_a_chord_is_closed_on_its_callers_queue(foreign: Celery, fleet: Fleet, question: str) -> None:
    """Its body gets all the answers."""
    header = [asked(foreign, f"{question} {number}") for number in range(3)]
    contents = chord(header, app=foreign)(own(foreign, "foreign.contents")).get(timeout=ANSWER_S)
    assert all(f"{question} {number}" in contents[number] for number in range(3))


def test_a_link_for_errors_goes_to_its_callers_queue(foreign: Celery, fleet: Fleet) -> None:
    """A request that is refused: its caller's errback runs where the caller says."""
    told = own(foreign, "foreign.failed", task_id=uuid())
    result = foreign.send_task("persona.process", args=[{"nonsense": 1}], queue="persona", link_error=told)
    with pytest.raises(Exception, match="nonsense"):
        result.get(timeout=ANSWER_S)
    assert foreign.AsyncResult(told.options["task_id"]).get(timeout=ANSWER_S) == f"failed: {result.id}"


@pytest.mark.parametrize("options", [{"exchange_type": "topic"}, {}])
def test_a_callback_goes_to_its_callers_exchange(options: dict[str, str], foreign: Celery, fleet: Fleet, question: str) -> None:
    """By exchange and routing key, also where the exchange sorts by patterns."""
    kind = options.get("exchange_type", "direct")
    exchange = Exchange(f"desk-{kind}", type=kind)
    queue = Queue(f"desk-{kind}", exchange, routing_key="desk.*" if options else "desk.one")
    with foreign.connection_for_write() as connection:
        queue(connection.default_channel).declare()
    callback = foreign.signature("foreign.content", exchange=exchange.name, routing_key="desk.one", **options)
    assert question in asked(foreign, question).apply_async(link=callback).get(timeout=ANSWER_S)["content"]
    until(lambda: fleet.queued(queue.name) == 1, "the callback is there")


def test_a_callback_that_cannot_be_sent_leaves_the_answer_as_it_is(foreign: Celery, fleet: Fleet, question: str) -> None:
    """What waits for the callback learns that it failed, to the end of the chain; the log says which, without the words."""
    seen = len(fleet.node.log())
    bad = foreign.signature("foreign.content", exchange="x", exchange_type="no such type", routing_key="x")
    last = (asked(foreign, question) | bad | own(foreign, "foreign.shout")).apply_async()
    middle, first = last.parent, last.parent.parent
    assert question in first.get(timeout=ANSWER_S)["content"]
    for result in (middle, last):
        with pytest.raises(Exception, match=r"foreign\.content could not be sent"):
            result.get(timeout=ANSWER_S)
    logged = fleet.node.log()[seen:]
    assert f"worker.callback_unsent: foreign.content of task {first.id}" in logged
    assert question not in logged


def test_a_queue_that_our_own_client_does_not_know_is_an_error_at_the_caller(fleet: Fleet, question: str) -> None:
    """Not a list that no worker reads."""
    with pytest.raises(QueueNotFound, match=r"persona\.bulc"):
        fleet.client.submit(question, KEY, queue="persona.bulc")

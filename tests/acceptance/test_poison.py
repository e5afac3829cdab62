"""Messages of a wrong shape: each costs itself and nothing else. Stock Celery's main process ends on most of them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
from celery import chord
from fleet import Fleet
from poison import ADDRESSED, CANARY, KEY, NO_ID, NO_MESSAGE, NO_TASK, REQUEST, envelope
from polling import until

from workers.queue.dead_letters import letter as dead


@pytest.fixture(scope="module", params=["prefork", pytest.param("threads", marks=pytest.mark.long)])
def poisoned_fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    with Fleet(pool=request.param, environ={"PERSONA_UNKNOWN_TASK_S": "0"}) as fleet:
        yield fleet


def dead_letters(fleet: Fleet) -> list[dict[str, Any]]:
    return [json.loads(letter) for letter in fleet.queue.lrange(dead.DEAD_LETTERS, 0, -1)]


def test_what_is_no_message_is_put_aside_and_the_worker_goes_on(poisoned_fleet: Fleet) -> None:
    """One item is worth one item: the worker neither ends nor reconnects, and the next request is answered."""
    fleet = poisoned_fleet
    fleet.queue.delete(dead.DEAD_LETTERS, dead.DEAD_LETTERS_COUNT)
    connected = fleet.node.log().count("Connected to")
    for item in NO_MESSAGE.values():
        fleet.queue.lpush("persona", item)
    assert fleet.ask_plain("Are you still there?", KEY).persona
    until(lambda: fleet.queued() + fleet.claimed() == 0, "nothing is left")
    letters = dead_letters(fleet)
    assert len(letters) == len(NO_MESSAGE) == int(fleet.queue.get(dead.DEAD_LETTERS_COUNT) or 0)
    assert {letter["queue"] for letter in letters} == {"persona"}
    assert "{" + CANARY in [letter["item"] for letter in letters]
    assert 0 < fleet.queue.ttl(dead.DEAD_LETTERS) <= dead.DEAD_LETTERS_TTL_S
    assert fleet.node.running
    assert fleet.node.log().count("Connected to") == connected
    assert CANARY not in fleet.node.log()


@pytest.mark.parametrize("kind", ADDRESSED)
def test_the_sender_of_what_is_no_message_is_told_if_its_id_can_be_read(kind: str, poisoned_fleet: Fleet) -> None:
    """It fails, rather than being pending for ever; and neither the error nor the log quotes it."""
    fleet = poisoned_fleet
    result = fleet.app.AsyncResult(f"a task {uuid.uuid4()}")
    fleet.queue.lpush("persona", ADDRESSED[kind](result.id))
    with pytest.raises(Exception, match=r"message: is not a message") as failed:
        result.get(timeout=20)
    assert CANARY not in str(failed.value) + fleet.node.log()
    assert fleet.node.running


@pytest.mark.parametrize("task_id", ["x" * 256, "two\nlines", 5])
def test_an_id_that_is_none_is_not_told(task_id: Any, poisoned_fleet: Fleet) -> None:
    """Not a key of any length or content in the results."""
    fleet = poisoned_fleet
    seen = fleet.node.log().count("message_refused")
    for message in (envelope(headers={"id": task_id}), envelope(headers={"id": task_id}) | {"headers": [1]}):
        fleet.queue.lpush("persona", json.dumps(message | {"properties": {"correlation_id": task_id}}))
    until(lambda: fleet.node.log().count("message_refused") == seen + 2, "both are refused")
    with closing(redis.Redis.from_url(fleet.broker.url_of(1), decode_responses=True)) as results:
        assert not [
            key for key in results.scan_iter("celery-task-meta-*") if str(task_id) == key.removeprefix("celery-task-meta-")
        ]


def test_what_waits_for_a_refused_task_is_told_as_well(poisoned_fleet: Fleet) -> None:
    """The rest of its chain, and the body of its chord."""
    fleet = poisoned_fleet
    seen = fleet.node.log().count("message_refused")
    unknown, known = fleet.app.signature("persona.tomorrow", queue="persona"), fleet.app.signature("any.task", queue="elsewhere")
    last = (unknown | known | known.clone()).apply_async()
    body = chord([unknown.clone(), unknown.clone()], app=fleet.app)(known.clone())
    for result in (last, body):
        with pytest.raises(Exception, match=r"persona\.tomorrow"):
            fleet.app.AsyncResult(result.id).get(timeout=20)  # by its id: not by what its parents have come to
    until(lambda: fleet.node.log().count("message_refused") == seen + 3, "the other one of the chord is refused, too")


def test_an_empty_item_that_comes_while_a_node_waits(poisoned_fleet: Fleet) -> None:
    """It is claimed as any other is, by the wait itself, and does not stay with the node for ever."""
    fleet = poisoned_fleet
    fleet.queue.delete(dead.DEAD_LETTERS, dead.DEAD_LETTERS_COUNT)
    for _ in range(3):
        until(lambda: any(client["cmd"] == "blmove" for client in fleet.queue.client_list()), "the node waits")
        fleet.queue.lpush("persona", b"")
        until(lambda: fleet.queued() + fleet.claimed() == 0, "nothing is left")
    assert int(fleet.queue.get(dead.DEAD_LETTERS_COUNT)) == 3


def test_what_is_no_task_is_refused_and_its_sender_is_told(poisoned_fleet: Fleet) -> None:
    """Terminal, for the sender too: no task is pending for ever, and none comes back to end the next worker."""
    fleet = poisoned_fleet
    fleet.queue.delete(dead.DEAD_LETTERS, dead.DEAD_LETTERS_COUNT)
    connected = fleet.node.log().count("Connected to")
    calls = fleet.endpoint.calls
    for message in (*NO_TASK.values(), *NO_ID.values()):
        fleet.queue.lpush("persona", json.dumps(message))
    addressed = {name: message["headers"].get("id", "old-1") for name, message in NO_TASK.items()}
    addressed |= {name: message["properties"]["correlation_id"] for name, message in NO_ID.items()}
    for name, task_id in addressed.items():
        result = fleet.app.AsyncResult(task_id)
        with pytest.raises(Exception, match=r"message: |persona\.tomorrow") as failed:
            result.get(timeout=20)
        assert type(failed.value).__name__ in ("InvalidRequestError", "NotRegistered"), name
        result.forget()
    assert fleet.ask_plain("Are you still there?", KEY).persona
    until(lambda: fleet.queued() + fleet.claimed() == 0, "nothing is left")
    assert len(dead_letters(fleet)) == len(NO_TASK) + len(NO_ID)
    assert fleet.endpoint.calls <= calls + 1
    assert fleet.node.running
    assert fleet.node.log().count("Connected to") == connected
    assert CANARY not in fleet.node.log()


def test_dead_letters_are_bounded(poisoned_fleet: Fleet) -> None:
    """A flood of garbage does not fill the broker."""
    fleet = poisoned_fleet
    fleet.queue.delete(dead.DEAD_LETTERS, dead.DEAD_LETTERS_COUNT)
    flood = dead.MAX_DEAD_LETTERS + 50
    fleet.queue.lpush("persona", *[f"{{{number}" + "x" * 100_000 * (number == flood - 1) for number in range(flood)])
    until(lambda: int(fleet.queue.get(dead.DEAD_LETTERS_COUNT) or 0) == flood, "all are counted")
    letters = dead_letters(fleet)
    assert len(letters) == dead.MAX_DEAD_LETTERS
    assert max(len(letter["item"]) for letter in letters) == dead.MAX_ITEM_CHARS


@pytest.mark.parametrize("published", ["null", "{", "[1]", '{"properties": {}}'])
def test_garbage_on_a_broadcast_channel_is_dropped(published: str, poisoned_fleet: Fleet) -> None:
    """Remote control and invalidations come over channels without acknowledgements."""
    fleet = poisoned_fleet
    assert fleet.queue.publish("/0.celery.pidbox", published) >= 1
    assert fleet.ask_plain("Are you still there?", KEY).persona
    assert fleet.app.control.ping(destination=[fleet.node.name], timeout=5)
    assert fleet.node.running


def test_a_task_of_an_older_protocol_is_answered(poisoned_fleet: Fleet) -> None:
    """Clients of other languages speak Celery's first protocol: the guard lets sound messages of it pass."""
    fleet = poisoned_fleet
    task_id = str(uuid.uuid4())
    body = {"task": "persona.process", "id": task_id, "args": [REQUEST], "kwargs": {}, "retries": 0, "eta": None}
    fleet.queue.lpush("persona", json.dumps(envelope(body=body) | {"headers": {}}))
    assert CANARY in fleet.app.AsyncResult(task_id).get(timeout=20)["content"]

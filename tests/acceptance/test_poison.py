"""Messages of a wrong shape: each costs itself and nothing else. Stock Celery's main process ends on most of them."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
from celery import chord
from fleet import Fleet
from polling import until

from workers.queue.dead_letters import letter as dead

KEY = "calm-flowing-planning"
CANARY = "Kanarienvogel"
REQUEST = {"user_input": f"{CANARY}, how do I begin?", "resonance_key": KEY}


def envelope(
    *,
    body: Any = ([REQUEST], {}, {}),
    raw_body: Any = None,
    headers: dict[str, Any] | None = None,
    properties: dict[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A message as kombu queues it, with these parts in place of the sound ones."""
    task_id = str(uuid.uuid4())
    return {
        "body": base64.b64encode(json.dumps(body).encode()).decode() if raw_body is None else raw_body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "persona.process", "id": task_id, "root_id": task_id, "lang": "py", **(headers or {})},
        "properties": {
            "correlation_id": task_id,
            "delivery_info": {"exchange": "", "routing_key": "persona"},
            "delivery_tag": task_id,
            "body_encoding": "base64",
            **(properties or {}),
        },
        **changes,
    }


# Items that cannot become a message at all.
NO_MESSAGE: dict[str, str | bytes] = {
    "no JSON": "{" + CANARY,
    "nothing": "",
    "not UTF-8": b"\xff\xfe" + CANARY.encode(),
    "100,000 lists in each other": "[" * 100_000,
    "a list": "[]",
    "null": "null",
    "a number": "5",
    "an empty object": "{}",
    "no properties": json.dumps(envelope(properties=None) | {"properties": None}),
    "a tag that is a list": json.dumps(envelope(properties={"delivery_tag": [1]})),
    "no routing": json.dumps(envelope(properties={"delivery_info": None})),
    "a body that is a number": json.dumps(envelope(raw_body=5)),
    "an unknown encoding of the body": json.dumps(envelope(properties={"body_encoding": "rot13"})),
    "headers that are a list": json.dumps(envelope() | {"headers": [1]}),
    "an object of an unknown type": json.dumps({"__type__": "nope", "__value__": 1}),
}

# Messages with an id: the sender is told.
NO_TASK: dict[str, dict[str, Any]] = {
    "null for a body": envelope(body=None),
    "a number for a body": envelope(body=5),
    "an object for a body": envelope(body={"args": 1}),
    "a body of no parts": envelope(body=[]),
    "a body of three nulls": envelope(body=[None, None, None]),
    "text for arguments": envelope(body=["abc", {}, {}]),
    "a body that is no JSON": envelope(raw_body=base64.b64encode(b"{" + CANARY.encode()).decode()),
    "a body of 100,000 lists in each other": envelope(raw_body=base64.b64encode(b"[" * 100_000).decode()),
    "a body that is not base64": envelope(raw_body="%%%"),
    "pickle": envelope(**{"content-type": "application/x-python-serialize"}),
    "a type that is a number": envelope(**{"content-type": 5}),
    "an unknown compression": envelope(headers={"compression": "nope"}),
    "a compression that it is not": envelope(headers={"compression": "application/x-gzip"}),
    "retries that are text": envelope(headers={"retries": "x"}),
    "retries below zero": envelope(headers={"retries": -1}),
    "one time limit": envelope(headers={"timelimit": [5]}),
    "time limits that are text": envelope(headers={"timelimit": ["a", "b"]}),
    "a time that is none": envelope(headers={"eta": "never"}),
    "a time that is a number": envelope(headers={"eta": 5}),
    "an end that is no time": envelope(headers={"expires": "never"}),
    "an argument of an unknown type": envelope(body=[[{"__type__": "nope", "__value__": CANARY}], {}, {}]),
    "a link that is a number": envelope(body=[[REQUEST], {}, {"callbacks": [5]}]),
    "a link for errors without options": envelope(body=[[REQUEST], {}, {"errbacks": [{"task": "x", "options": None}]}]),
    "a chain that is text": envelope(body=[[REQUEST], {}, {"chain": "abc"}]),
    "a chord of no task": envelope(body=[[REQUEST], {}, {"chord": {}}]),
    "an unknown task": envelope(headers={"task": "persona.tomorrow"}),
    "an old message without arguments' list": envelope(body={"task": "persona.process", "id": "old-1", "args": 5}, headers=None)
    | {"headers": {}},
}

# Items of the same sort that still say whose they are.
ADDRESSED: dict[str, Callable[[str], str | bytes]] = {
    "no properties": lambda id_: json.dumps(envelope(headers={"id": id_}) | {"properties": None}),
    "no body's encoding that is known": lambda id_: json.dumps(
        envelope(headers={"id": id_}, properties={"body_encoding": "rot13"})
    ),
    "a body that is a number": lambda id_: json.dumps(envelope(raw_body=5, headers={"id": id_})),
    "headers that are a list": lambda id_: json.dumps(envelope(properties={"correlation_id": id_}) | {"headers": [1]}),
    "an old message without properties": lambda id_: json.dumps(
        envelope(body={"task": "persona.process", "id": id_}) | {"headers": {}, "properties": {}}
    ),
    "cut off": lambda id_: json.dumps(envelope(headers={"id": id_})).partition('"properties"')[0],
    "cut off, and not UTF-8": lambda id_: b"\xff" + json.dumps(envelope(headers={"id": id_})).encode()[:-2],
}

# Messages without an id in their headers, which bring a stock worker into an endless loop of reconnections.
NO_ID: dict[str, dict[str, Any]] = {
    "no id": envelope() | {"headers": {"task": "persona.process"}},
    "an id that is a list": envelope(headers={"id": [1]}),
    "an id of 10,000 characters": envelope(headers={"id": "x" * 10_000}),
    "a task that is a list": envelope(headers={"task": ["persona.process"], "id": None}),
}


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

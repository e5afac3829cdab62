"""Messages of a wrong shape, by what is wrong with them. Stock Celery's main process ends on most of them."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from typing import Any

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

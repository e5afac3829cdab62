"""Messages as kombu queues them, made by hand."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any


def envelope(body: bytes, **headers: Any) -> bytes:
    """A message with this body, as kombu queues it."""
    task_id = headers.setdefault("id", str(uuid.uuid4()))
    return json.dumps(
        {
            "body": base64.b64encode(body).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"task": "persona.process", "root_id": task_id, "lang": "py"} | headers,
            "properties": {
                "correlation_id": task_id,
                "delivery_info": {"exchange": "", "routing_key": "persona"},
                "delivery_tag": task_id,
                "body_encoding": "base64",
            },
        }
    ).encode()


def whole(*arguments: Any, **named: Any) -> bytes:
    """The body of a task with these arguments."""
    return json.dumps([arguments, named, {}]).encode()

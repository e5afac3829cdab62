"""Telling the sender of a queue item that it was refused, as far as the item still says whose it is."""

from __future__ import annotations

import base64
import logging
import re
from collections.abc import Callable
from typing import Any, Final

from celery import Celery
from celery.app.task import Context
from celery.signals import celeryd_init
from kombu.utils.json import loads

from workers.node.guard.bounds import is_readable

MAX_ID_CHARS: Final = 255

# An id in the headers of what is no JSON, such as a message that was cut off. A body is base64, and is not looked into.
_ID_IN_HEADERS: Final = re.compile(rb'"headers"\s*:\s*\{[^{}]{0,16384}?"id"\s*:\s*"([^"\\]{1,1020})"')

logger: Final = logging.getLogger(__name__)

_worker: Any = None


@celeryd_init.connect(weak=False)
def remember_worker(instance: Any = None, **_: Any) -> None:
    """A channel that pops an item knows no app: it is that of this process's worker."""
    global _worker  # noqa: PLW0603 - one a process, noted at its start
    _worker = instance


def tell_sender(item: bytes, error: Exception) -> None:
    """Have the task of this raw queue item end as a FAILURE by that error, if an id can be read from it and this process is a
    worker. `error` must quote nothing of the item. As `tell`."""
    if _worker is None:
        return
    to = addressee(item)
    if to is not None:
        tell(_worker.app, to, error)


def tell(app: Celery, to: Context, error: Exception) -> None:
    """Have that task end as a FAILURE, and what waits for it in a chain or a chord. Never raises, but takes the time-outs of a
    result backend that is away."""
    try:
        app.backend.mark_as_failure(to.id, error, request=to)
    except Exception as fault:  # noqa: BLE001 - a server that is away; or its chain is as bad as it is, and by now it was told
        logger.warning("worker.refusal_untold: of task %s: %s", to.id, type(fault).__name__)


def addressee(item: bytes) -> Context | None:
    """The task that a raw queue item was to be: see `addressed`. Whatever the bytes are, this raises nothing."""
    raw = _read(lambda: loads(item.decode())) if is_readable(item) else None
    if not isinstance(raw, dict):
        found = _ID_IN_HEADERS.search(item)
        task_id = _fit(found.group(1).decode(errors="replace")) if found else ""
        return Context(id=task_id) if task_id else None
    body = raw.get("body")
    if isinstance(body, str):
        unpacked = _read(lambda: base64.b64decode(raw["body"]))
        body = _read(lambda: loads(unpacked)) if unpacked is not None and is_readable(unpacked) else None
    return addressed(raw.get("headers"), body, raw.get("properties"))


def addressed(headers: Any, body: Any, properties: Any) -> Context | None:
    """The task that a message was to be, by parts of any shape: its id, of up to 255 printable characters, the way to a sender
    that has its own, and what waits for it. None if there is no id.

    Not its links for errors: Celery would run those that it knows here, in the main process.
    """
    headers, properties = (part if isinstance(part, dict) else {} for part in (headers, properties))
    old = body if isinstance(body, dict) and "task" in body else {}  # protocol 1
    task_id = _fit(headers.get("id")) or _fit(old.get("id")) or _fit(properties.get("correlation_id"))
    if not task_id:
        return None
    embed = body[2] if isinstance(body, list | tuple) and len(body) == 3 and isinstance(body[2], dict) else {}
    return Context(
        id=task_id,
        reply_to=_fit(properties.get("reply_to")),
        correlation_id=_fit(properties.get("correlation_id")),
        group=_fit(headers.get("group")),
        group_index=headers.get("group_index"),
        chain=embed.get("chain"),
        chord=embed.get("chord"),
    )


def _fit(value: object) -> str:
    fit = isinstance(value, str) and value.isprintable() and len(value) <= MAX_ID_CHARS
    return str(value) if fit else ""


def _read(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except Exception:  # noqa: BLE001 - foreign bytes may raise anything
        return None

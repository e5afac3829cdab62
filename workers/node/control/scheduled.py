"""`celery inspect scheduled`, which also shows what waits aside at the broker."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from celery.worker import control
from celery.worker.control import inspect_command
from kombu.utils.json import loads
from redis.exceptions import RedisError

from workers.node.fetch.channel import FetchChannel
from workers.queue.aside.messages import ASIDE
from workers.queue.redaction import REDACTED

MOST: Final = 1000
"""So many that are aside are shown: those that are due first."""

_own: Final = control.scheduled


@inspect_command(alias="dump_schedule")
def scheduled(state: Any, **options: Any) -> list[dict[str, Any]]:
    """List of currently scheduled ETA/countdown tasks, with those that wait aside for the queues of this worker."""
    return [*_own(state, **options), *_aside(state.consumer)]


def _aside(consumer: Any) -> list[dict[str, Any]]:
    channel = getattr(consumer.task_consumer, "channel", None)
    if not isinstance(channel, FetchChannel) or channel.fetch is None:
        return []
    sources = set(channel.fetch.sources())
    try:
        with channel.conn_or_acquire() as client:
            found = client.zrange(ASIDE, 0, MOST - 1, withscores=True)
    except (RedisError, OSError):
        return []
    shown = []
    for text, due_ms in found:
        source, _, item = text.decode(errors="replace").partition("\n")
        if source in sources:
            shown.append(_shown(source.partition(channel.sep)[0], item, due_ms / 1000))
    return shown


def _shown(queue: str, item: str, due_s: float) -> dict[str, Any]:
    """As Celery shows what waits in a worker; the arguments stay hidden."""
    try:
        headers = loads(item)["headers"]
        named = {"id": str(headers["id"])[:255], "name": str(headers["task"])[:255]}
    except (ValueError, TypeError, KeyError, RecursionError):
        named = {"id": "", "name": ""}
    return {
        "eta": datetime.fromtimestamp(due_s, UTC).isoformat(),
        "priority": 0,
        "request": {**named, "args": REDACTED, "kwargs": REDACTED, "delivery_info": {"routing_key": queue}, "aside": True},
    }

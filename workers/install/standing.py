"""What a worker tells of itself by remote control, to `persona doctor`: how it is set, where it stands in the log, its clock.

Tells no password, and no text of users.
"""

from __future__ import annotations

import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from celery.worker.control import inspect_command
from redis.exceptions import RedisError

from pipeline.settings import SECRETS, Settings, without_password
from workers.install.node import node_of
from workers.install.rights import refused, to_work
from workers.queue.backlog import queued_at
from workers.queue.factory import PersonaApp
from workers.queue.names import PROCESS_TASK

COMMAND: Final = "persona_standing"
MIN_SECRET: Final = 6
"""A shorter text may stand on a command line by chance."""


@inspect_command(name=COMMAND)
def standing(state: Any, **_: Any) -> dict[str, Any]:
    """Tell how this worker is set, and where it stands: for `persona doctor`."""
    app, consumer = state.app, state.consumer
    node = node_of(app)
    if node is None:
        return {"app": str(app.main)}
    tail = node.bus.tail
    return {
        "app": str(app.main),
        "product": isinstance(app, PersonaApp),
        "node": node.id,
        "clock_s": time.time(),
        "epoch": "" if tail is None else tail.epoch,
        "seq": -1 if tail is None else tail.seq,
        **_settings(node.settings),
        **_celery(app, consumer),
        "shows_secret": shows_secret(sys.argv, secrets_of(node.settings)),
        **_at_broker(consumer),
    }


def secrets_of(settings: Settings) -> frozenset[str]:
    """Passwords and keys, as they may stand on a command line."""
    found = set()
    for name in SECRETS:
        value = getattr(settings, name)
        text = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        if "://" in text:
            hidden = without_password(text)
            text = "" if hidden == text else text.partition("://")[2].rpartition("@")[0].partition(":")[2]
        found.add(text)
    return frozenset(text for text in found if len(text) >= MIN_SECRET)


def shows_secret(arguments: list[str], secrets: frozenset[str]) -> bool:
    return any(secret in argument for argument in arguments for secret in secrets)


def version_here() -> str:
    """This package's version; empty where it is not installed."""
    try:
        return version("persona-worker")
    except PackageNotFoundError:
        return ""


def _settings(settings: Settings) -> dict[str, Any]:
    return {
        "release": version_here(),
        "namespace": settings.cache_namespace,
        "bound_s": settings.staleness_bound_s,
        "max_ttl_s": settings.max_ttl_s,
        "model": settings.responder or settings.llm_model or "none",
        "endpoint": "" if settings.responder else without_password(settings.llm_url),
        "sampling": f"temperature {settings.llm_temperature:g}, {settings.llm_max_tokens} tokens",
        "fetch": settings.fetch,
    }


def _celery(app: Any, consumer: Any) -> dict[str, Any]:
    conf = app.conf
    task = app.tasks.get(PROCESS_TASK)
    controller = consumer.controller
    transport = conf.broker_transport_options or {}
    channel = getattr(consumer.task_consumer, "channel", None)
    expires = conf.result_expires
    return {
        "pool": type(consumer.pool).__module__.rpartition(".")[2],
        "queues": sorted(queue.name for queue in getattr(consumer.task_consumer, "queues", ())),
        "steps": [int(step) for step in getattr(channel, "priority_steps", None) or ()],
        "accepts": sorted(map(str, conf.accept_content or ())),
        "acks_late": bool(getattr(task, "acks_late", conf.task_acks_late)),
        "returns_lost": bool(getattr(task, "reject_on_worker_lost", conf.task_reject_on_worker_lost)),
        "result_expires_s": float(getattr(expires, "total_seconds", lambda: expires or 0)()),
        "prefetch": int(conf.worker_prefetch_multiplier if controller is None else controller.prefetch_multiplier or 0),
        "limit_s": float(getattr(controller, "time_limit", None) or conf.task_time_limit or 0),
        "visible_s": float(transport.get("visibility_timeout") or 3600),
    }


def _at_broker(consumer: Any) -> dict[str, Any]:
    """The needs of a worker that the broker refuses its user, and for how long the next message of each queue has waited: an
    operator may not have the right to look at a message."""
    channel = getattr(consumer.task_consumer, "channel", None)
    create = getattr(channel, "_create_client", None)
    if create is None:
        return {}  # the broker is no Redis
    try:
        client = create()
        needs = to_work(int(client.connection_pool.connection_kwargs.get("db") or 0))
        return {"refused": list(refused(client, needs)), "waits_s": _waits(client, consumer, channel)}
    except (RedisError, OSError):
        return {}


def _waits(client: Any, consumer: Any, channel: Any) -> dict[str, float]:
    places = [(queue.name, step) for queue in consumer.task_consumer.queues for step in channel.priority_steps]
    with client.pipeline(transaction=False) as pipe:
        for name, step in places:
            pipe.lindex(f"{name}{channel.sep}{step}" if step else name, -1)
        items = pipe.execute(raise_on_error=False)
    found: dict[str, float] = {}
    for (name, _), item in zip(places, items, strict=True):
        if isinstance(item, bytes) and (at := queued_at(item)) is not None:
            found[name] = max(found.get(name, 0.0), time.time() - at)
    return found

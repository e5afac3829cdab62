"""The settings of Celery: each is one that Celery knows, and the queues are those that are declared."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from celery.app.defaults import NAMESPACES, flatten
from celery.backends.redis import RedisBackend
from celery.exceptions import QueueNotFound
from fleet import Fleet
from kombu.transport.redis import Channel
from redbeat.schedulers import RedBeatConfig

import celeryconfig
from workers.factory import make_app

QUEUES = {"persona", "persona.bulk", "maintenance", "celery"}

# What Celery reads though its own table does not have it, and where.
ELSEWHERE: dict[str, Any] = {"redis_backend_health_check_interval": RedisBackend}


def settings() -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(celeryconfig).items()
        if not name.startswith("_") and not inspect.isroutine(value) and not inspect.isclass(value)
    }


def test_every_setting_is_one_that_celery_or_redbeat_knows() -> None:
    """A mistyped name is silently ignored by Celery: the default would hold, and nobody would know."""
    known = {name for name, _ in flatten(NAMESPACES)}
    known |= {name for name, where in ELSEWHERE.items() if name in inspect.getsource(where)}
    redbeat = set(inspect.signature(RedBeatConfig).parameters) | set(inspect.getsource(RedBeatConfig).split("'"))
    unknown = [name for name in settings() if name not in known and name not in redbeat]
    assert unknown == []


def test_every_option_of_the_transport_is_one_that_kombu_reads() -> None:
    """As above: kombu drops what it does not know."""
    assert set(celeryconfig.broker_transport_options) <= set(Channel.from_transport_options)
    assert celeryconfig.broker_transport_options, "there is something to check"


def test_a_worker_consumes_exactly_the_declared_queues(fleet: Fleet) -> None:
    """And nothing that it was not told to: no queue of its own that others could fill."""
    active = fleet.app.control.inspect([fleet.node.name]).active_queues()
    assert active is not None
    assert {queue["name"] for queue in active[fleet.node.name]} == QUEUES


@pytest.mark.parametrize("queue", sorted(QUEUES))
def test_each_declared_queue_is_answered(queue: str, fleet: Fleet, question: str) -> None:
    """A queue that is declared and not read is worse than none."""
    assert question in fleet.client.submit(question, "calm-flowing-planning", queue=queue).result(20).content


def test_a_task_for_a_queue_that_is_not_declared_fails_at_the_caller(fleet: Fleet) -> None:
    """A typing error is an exception where it was made, and not a list that nobody reads."""
    app = make_app(fleet.client.settings)
    try:
        with pytest.raises(QueueNotFound, match=r"persona\.bluk"):
            app.send_task("persona.process", args=[{}], queue="persona.bluk")
    finally:
        app.close()
    assert fleet.queued("persona.bluk") == 0


def test_a_worker_takes_and_gives_json_alone(fleet: Fleet) -> None:
    """Pickle runs what it reads: whoever may write to the broker would run what they like in the worker."""
    conf = fleet.app.control.inspect([fleet.node.name]).conf()
    assert conf is not None
    shown = conf[fleet.node.name]
    for name in ("accept_content", "result_accept_content"):
        assert shown[name] == ["json"], name
    for name in ("task_serializer", "result_serializer", "event_serializer"):
        assert shown[name] == "json", name


def test_the_time_limits_leave_room_for_the_visibility_timeout() -> None:
    """A task that still runs must not come back to the queue: twice its hard limit has passed before it does."""
    assert celeryconfig.task_soft_time_limit < celeryconfig.task_time_limit
    assert celeryconfig.broker_transport_options["visibility_timeout"] > 2 * celeryconfig.task_time_limit

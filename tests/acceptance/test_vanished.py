"""Tasks that vanish from the broker, by a purge or with its data: those that wait for one have another one within seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from fleet import Fleet, bare_app
from polling import until
from servers import free_port

from pipeline.settings import load_settings
from workers.client import PersonaClient
from workers.client.ticket import Ticket
from workers.queue.backlog import Backlog
from workers.queue.names import PUBLISHED_HEADER, QUEUE

KEY = "curious-flowing-learning"
WITHIN_S = 30.0
"""Much less than the 180 s for which a queued task may be joined."""


@pytest.fixture(scope="module")
def idle_fleet() -> Iterator[Fleet]:
    """No node takes what is queued, until a test adds one."""
    with Fleet(nodes=0) as fleet:
        yield fleet


@pytest.fixture
def other(idle_fleet: Fleet) -> Iterator[PersonaClient]:
    with PersonaClient(load_settings(idle_fleet.environ)) as client:
        yield client


def looked(ticket: Ticket) -> str | None:
    """The task that a waiting ticket waits for after another look."""
    ticket.look(time.monotonic() + 60, 60)
    return ticket.task_id


def test_what_was_purged_is_queued_anew_though_others_are_queued(idle_fleet: Fleet, other: PersonaClient, question: str) -> None:
    """By one of those that wait, for all; what still waits in its queue is left there."""
    fleet = idle_fleet
    purged = fleet.client.submit(question, KEY)
    lost = purged.task_id
    fleet.queue.delete(QUEUE)
    later = {PUBLISHED_HEADER: time.time() + 60}
    fleet.app.send_task("persona.process", args=[{}], queue=QUEUE, headers=later)
    joined = other.submit(question, KEY)
    assert (joined.source, joined.task_id) == ("joined", lost)
    until(lambda: looked(joined) != lost, "another task is queued", bound_s=WITHIN_S)
    until(lambda: looked(purged) != lost, "its sender learns of it", bound_s=WITHIN_S)
    assert purged.task_id == joined.task_id
    assert fleet.queued() == 2
    fleet.queue.delete(QUEUE)


def test_what_went_with_the_brokers_data_is_answered_all_the_same(idle_fleet: Fleet, other: PersonaClient, question: str) -> None:
    """Also by an asyncio program; the model is asked once."""
    fleet = idle_fleet
    lost = fleet.client.submit(question, KEY).task_id
    fleet.queue.flushall()
    fleet.add_node()
    joined = other.submit(question, KEY)
    assert joined.task_id == lost
    calls = fleet.endpoint.calls
    assert question in joined.result(WITHIN_S).content
    assert fleet.endpoint.calls == calls + 1


@pytest.mark.parametrize(
    ("item", "passed"),
    [
        (None, True),
        ('{"headers": {"persona_published_at": 1000.0}}', False),
        ('{"headers": {"persona_published_at": 1001.0}}', False),  # clocks differ so much
        ('{"headers": {"persona_published_at": 1003.0}}', True),
        ('{"headers": {}}', False),
        ("no JSON", False),
    ],
)
def test_a_queue_has_passed_what_was_queued_before_its_next_item(item: str | None, passed: bool, idle_fleet: Fleet) -> None:
    """Where the next item says when it was queued; what was queued behind it tells nothing."""
    fleet = idle_fleet
    queue = f"a queue of {passed} and {item}"
    if item is not None:
        fleet.queue.lpush(queue, item, '{"headers": {"persona_published_at": 5000.0}}')
    assert Backlog(fleet.app).has_passed(queue, 1000.0) is passed


def test_a_broker_that_is_away_tells_nothing_of_its_queues() -> None:
    """And no caller fails for it: the answer may come all the same."""
    with closing(bare_app(f"redis://127.0.0.1:{free_port()}")) as app:
        assert not Backlog(app).has_passed(QUEUE, 1000.0)

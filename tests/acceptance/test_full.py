"""A broker that also keeps the results comes to its limit: who is refused when, and that everything accepted is answered."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery.exceptions import OperationalError
from fleet import Fleet
from polling import until
from redis.exceptions import OutOfMemoryError
from sender import KEY, Sender

from pipeline.models import PersonaRequest
from workers.queue.errors import QueueFullError, QueueUnavailableError
from workers.queue.outcomes.room import SHORT_S, SHORTEST_S

LIMIT = 32 << 20
FILLER = "filler"
RESULT = "celery-task-meta-"


@pytest.fixture(scope="module")
def one() -> Iterator[Fleet]:
    with Fleet(concurrency=2) as fleet:
        fleet.queue.config_set("maxmemory", LIMIT)
        yield fleet


@pytest.fixture
def fleet(one: Fleet) -> Iterator[Fleet]:
    yield one
    one.queue.delete(FILLER)
    until(lambda: one.queued() + one.claimed() == 0, "nothing is left")


def used(fleet: Fleet) -> float:
    memory = fleet.queue.info("memory")
    return float((memory["used_memory"] - memory["mem_not_counted_for_evict"]) / LIMIT)


def fill(fleet: Fleet, share: float) -> None:
    """Have so much of its memory used, by what nobody takes."""
    fleet.queue.config_set("maxmemory", 0)
    fleet.queue.delete(FILLER)
    fleet.queue.setrange(FILLER, int((share - used(fleet)) * LIMIT), "x")
    fleet.queue.config_set("maxmemory", LIMIT)


def ttl_s(fleet: Fleet, task_id: str) -> int:
    fleet.queue.execute_command("SELECT", 1)
    try:
        return int(fleet.queue.ttl(RESULT + task_id))
    finally:
        fleet.queue.execute_command("SELECT", 0)


def test_a_client_is_refused_while_others_still_have_room(fleet: Fleet, question: str) -> None:
    """It is told the truth, and asks in vain for no longer than the broker is full. A task that it may join needs no room."""
    fill(fleet, 0.93)
    with pytest.raises(QueueFullError, match=r"full: 9\d% of its memory") as refused:
        until(lambda: not fleet.client.submit(question, KEY).result(20), "it is seen to be full", bound_s=5)
    assert "is it running" not in str(refused.value)
    assert isinstance(refused.value, QueueUnavailableError)
    with Sender.of(fleet) as sender:
        sender.wait(sender.request(5))
    fleet.queue.delete(FILLER)
    until(lambda: answered(fleet, question), "it is queued again", bound_s=5)


def answered(fleet: Fleet, question: str) -> bool:
    try:
        return bool(fleet.client.ask(question, KEY, use_cache=False).content)
    except QueueFullError:
        return False


def test_a_client_without_a_margin_is_told_what_the_server_says(fleet: Fleet, question: str) -> None:
    fill(fleet, 1.01)
    app = fleet.client._dispatch._app
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(app, "settings", app.settings.model_copy(update={"queue_full_at": 1.0}))
        patched.setattr("workers.queue.outcomes.room.KNOWN_S", 60.0)  # what it has seen is old: another filled it
        fleet.client._dispatch._room._until_s, fleet.client._dispatch._room._used = float("inf"), 0.0
        with pytest.raises(QueueFullError, match="is full: ask again"):
            fleet.client.submit_request(PersonaRequest.create(question, KEY))
        fleet.client._dispatch._room._until_s = 0.0


@pytest.mark.parametrize(("share", "longest_s"), [(0.3, 3600), (0.6, SHORT_S), (0.95, SHORTEST_S)])
def test_results_are_kept_shorter_the_fuller_it_is(fleet: Fleet, share: float, longest_s: int) -> None:
    """So they never take the room of tasks for long."""
    fill(fleet, share)
    with Sender.of(fleet) as sender:
        until(lambda: longest_s - 5 < ttl_s(fleet, told(sender)) <= longest_s, "it is kept for so long", bound_s=10)


def told(sender: Sender) -> str:
    """The id of one more task that is answered."""
    (task_id,) = sender.request(1)
    sender.wait([task_id])
    return task_id


@pytest.mark.long
def test_what_plain_producers_have_filled_it_with_is_answered() -> None:
    """They push until the broker itself refuses. Each outcome lets go of a message: it is stored all the same."""
    with Fleet(nodes=0, concurrency=2) as fleet, Sender.of(fleet) as sender:
        fleet.queue.config_set("maxmemory", LIMIT)
        fill(fleet, 0.98)
        ids = list(accepted(sender))
        assert len(ids) > 50
        fleet.add_node(wait=False)  # a broker that is full carries no ping
        sender.wait(ids)
        assert "results.not_stored" not in fleet.node.log()
        until(lambda: fleet.queued() + fleet.claimed() == 0, "nothing is left")


def accepted(sender: Sender) -> Iterator[str]:
    while True:
        try:
            yield from sender.request(1)
        except (OperationalError, OutOfMemoryError):
            return

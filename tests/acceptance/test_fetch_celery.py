"""With messages that are claimed, it remains plain Celery: its options, its remote control, its canvas, its other workers."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path

import pytest
from celery import chain, chord
from celery.exceptions import NotRegistered
from fleet import ROOT, Fleet
from noted_tasks import RUNS
from polling import until
from sender import Sender, new_request

from benchmarks.kit.nodes import node_command, own_environment
from pipeline.settings import load_settings
from workers.node.fetch.claims import ASIDE, TASKS
from workers.queue.dead_letters.letter import DEAD_LETTERS
from workers.queue.factory import make_app
from workers.stack.processes import ChildProcess


@pytest.fixture(scope="module")
def one() -> Iterator[Fleet]:
    """A node with one slot, for the tests that end nothing."""
    with Fleet(app="fetch_tasks", concurrency=1) as fleet:
        yield fleet


@pytest.fixture
def fleet(one: Fleet) -> Iterator[Fleet]:
    one.queue.delete(RUNS)
    yield one
    until(lambda: one.queued() + one.claimed() == 0, "nothing is left")


@pytest.fixture
def sender(fleet: Fleet) -> Iterator[Sender]:
    with Sender.of(fleet) as sender:
        yield sender


def runs(fleet: Fleet) -> list[str]:
    return list(fleet.queue.lrange(RUNS, 0, -1))


def occupy(fleet: Fleet, sender: Sender, seconds: float = 1.0) -> str:
    """Have the slot taken for so long."""
    nap = sender.send("test.nap", "nap", seconds)
    until(lambda: "nap" in runs(fleet), "the slot is taken")
    return nap


def test_what_is_less_urgent_waits_for_the_rest(fleet: Fleet, sender: Sender) -> None:
    """0 is the most urgent, as with kombu's Redis transport."""
    occupy(fleet, sender)
    ids = [sender.send("test.note", f"{priority}", priority=priority) for priority in (9, 6, 3, 0, 9, 0)]
    sender.wait(ids)
    assert runs(fleet) == ["nap", "0", "0", "3", "6", "9", "9"]


def test_what_is_least_urgent_is_taken_when_nothing_else_is_there(fleet: Fleet, sender: Sender) -> None:
    sender.wait([sender.send("test.note", "alone", priority=9)], bound_s=5)


def test_a_task_for_soon_waits_in_the_node(fleet: Fleet, sender: Sender) -> None:
    due_s = time.time() + 0.5
    sender.wait([sender.send("test.note", "soon", countdown=0.5)])
    assert time.time() >= due_s
    assert runs(fleet) == ["soon"]


def test_a_task_that_has_expired_or_is_revoked_does_not_run(fleet: Fleet, sender: Sender) -> None:
    occupy(fleet, sender)
    expired = sender.send("test.note", "expired", expires=0.3)
    revoked = sender.send("test.note", "revoked")
    fleet.app.control.revoke(revoked)
    sender.wait([expired, revoked], "REVOKED")
    assert runs(fleet) == ["nap"]


def test_what_waits_aside_is_seen_purged_and_revoked(fleet: Fleet, sender: Sender) -> None:
    """By remote control, and by this package's app, whose purge knows of it. What another queue has aside stays."""
    aside = [sender.send("test.note", "aside", countdown=7), sender.send("test.note", "revoked", countdown=6)]
    other = sender.send("test.note", "other", countdown=600, queue="persona.bulk", priority=9)
    until(lambda: fleet.queue.zcard(ASIDE) == 3, "they wait")
    inspect = fleet.app.control.inspect(timeout=5, limit=1)
    shown = {task["request"]["id"]: task for task in (inspect.scheduled() or {})[fleet.node.name]}
    assert set(shown) == {*aside, other}
    assert shown[other]["request"]["name"] == "test.note"
    assert shown[other]["request"]["delivery_info"]["routing_key"] == "persona.bulk"
    assert abs(datetime.fromisoformat(shown[other]["eta"]).timestamp() - time.time() - 600) < 10
    fleet.app.control.revoke(aside[1])
    sender.wait([aside[1]], "REVOKED")
    sender.wait([aside[0]])
    assert runs(fleet) == ["aside"]
    again = sender.send("test.note", "again", countdown=60)
    until(lambda: fleet.queue.zcard(ASIDE) == 2, "it waits")
    with closing(make_app(load_settings(fleet.environ))) as ours, ours.connection_for_write() as connection:
        assert connection.default_channel.queue_purge("persona") == 1
        assert fleet.queue.zcard(ASIDE) == 1
        assert ours.control.purge() == 1
    assert fleet.queue.zcard(ASIDE) == 0
    assert sender.outcomes([again, other]) == [None, None]


def test_a_node_claims_no_more_than_it_has_slots_for(fleet: Fleet, sender: Sender) -> None:
    """The rest waits where another node finds it."""
    nap = occupy(fleet, sender, 2.0)
    ids = [sender.send("test.note", f"{number}") for number in range(5)]
    inspect = fleet.app.control.inspect(timeout=5, limit=1)
    assert [task["id"] for task in (inspect.active() or {})[fleet.node.name]] == [nap]
    assert (inspect.reserved() or {})[fleet.node.name] == []
    assert fleet.node.name in (inspect.ping() or {})
    assert fleet.claimed() == 1
    assert fleet.queued() == 5
    sender.wait(ids)


def test_queues_are_taken_in_turns(fleet: Fleet, sender: Sender) -> None:
    occupy(fleet, sender, 0.5)
    ids = [sender.send("test.note", queue, queue=queue) for queue in ("persona", "persona.bulk") for _ in range(10)]
    sender.wait(ids)
    first = Counter(runs(fleet)[1:11])
    assert first["persona"] >= 3
    assert first["persona.bulk"] >= 3


def test_queues_come_and_go_by_remote_control(fleet: Fleet, sender: Sender) -> None:
    control = fleet.app.control
    control.cancel_consumer("persona.bulk", reply=True, timeout=5, limit=1)
    left = sender.send("test.note", "left", queue="persona.bulk")
    sender.wait([sender.send("test.note", "taken")])
    assert fleet.queued("persona.bulk") == 1
    control.add_consumer("persona.bulk", reply=True, timeout=5, limit=1)
    sender.wait([left])
    control.add_consumer("added", reply=True, timeout=5, limit=1)
    fleet.app.conf.task_create_missing_queues = True
    sender.wait([sender.send("test.note", "added", queue="added")])
    control.cancel_consumer("added", reply=True, timeout=5, limit=1)


def test_chains_and_chords_end(fleet: Fleet) -> None:
    requests = [fleet.app.signature("persona.process", args=[new_request().to_wire()], queue="persona") for _ in range(3)]
    count = fleet.app.signature("test.count", queue="persona")
    assert chord(requests, app=fleet.app)(count).get(timeout=20) == 3
    assert chain(requests[0], count, app=fleet.app).apply_async().get(timeout=20) > 3


def test_readme_s_plain_producer_is_served_beside_another_project(fleet: Fleet, sender: Sender) -> None:
    """Another project uses the same database without any configuration: nothing of it is taken, buried or moved."""
    foreign = [sender.send("shop.order" if number % 2 else "shop.pay", number, queue="celery") for number in range(150)]
    entry = json.dumps([{"headers": {"task": "shop.order"}}, "celery", "celery"])
    fleet.queue.hset("unacked", "foreign", entry)
    fleet.queue.zadd("unacked_index", {"foreign": 1.0})
    before = fleet.queue.lrange("celery", 0, -1)
    assert len(before) == len(foreign)
    seen = len(fleet.node.log())
    sender.wait(sender.request(4, queue="celery"), bound_s=10)
    sender.wait(sender.request(1, queue="celery", priority=5), bound_s=10)
    assert fleet.queue.lrange("celery", 0, -1) == before
    assert fleet.queue.hget("unacked", "foreign") == entry
    assert fleet.queue.llen(DEAD_LETTERS) == 0
    assert fleet.node.log().count("fetch.foreign: ") == 2
    assert "shop.order" in fleet.node.log()
    assert "refused" not in fleet.node.log()[seen:]
    fleet.queue.delete("celery", "unacked", "unacked_index")


def test_a_task_for_later_waits_at_the_broker() -> None:
    """It outlives every node, and runs once."""
    with Fleet(app="fetch_tasks", nodes=2, concurrency=1) as fleet, Sender.of(fleet) as sender:
        due_s = time.time() + 8
        later = sender.send("test.note", "later", countdown=8)
        until(lambda: fleet.queue.zcard(ASIDE) == 1, "it is aside")
        for node in fleet.nodes:
            node.kill()
        fleet.add_node()
        sender.wait([later])
        assert time.time() >= due_s
        until(lambda: fleet.queued() + fleet.claimed() + fleet.queue.zcard(ASIDE) == 0, "nothing is left")
        assert runs(fleet) == ["later"]


def test_a_node_of_one_queue_leaves_the_others() -> None:
    with Fleet(app="fetch_tasks", concurrency=1, arguments=("-Q", "persona.bulk")) as fleet, Sender.of(fleet) as sender:
        sender.send("test.note", "left")
        sender.wait([sender.send("test.note", "taken", queue="persona.bulk")])
        assert runs(fleet) == ["taken"]
        assert fleet.queued() == 1


def test_a_node_may_have_many_queues() -> None:
    """More than the connections that kombu allows a channel."""
    names = [f"many{number}" for number in range(20)]
    environ = {"PERSONA_DOOR": "false"}
    with Fleet(app="fetch_tasks", pool="threads", nodes=1, concurrency=1, environ=environ) as fleet, Sender.of(fleet) as sender:
        fleet.app.conf.task_create_missing_queues = True
        for name in names:
            fleet.app.control.add_consumer(name, reply=True, timeout=5, limit=1)
        sender.wait([sender.send("test.note", name, queue=name) for name in names])
        assert sorted(runs(fleet)) == sorted(names)
        assert fleet.node.log().count("Connected to") == 1


@contextmanager
def stock_worker(fleet: Fleet, directory: Path) -> Iterator[ChildProcess]:
    """Celery as it is, on the same queue."""
    command = [*node_command("stock@test", pool="solo", concurrency=1, app="stock_tasks", log_level="INFO"), "-Q", "persona"]
    environ = {**own_environment(), "PYTHONPATH": str(ROOT / "tests"), "PERSONA_BROKER_URL": fleet.broker.url}
    with ExitStack() as opened:
        child = ChildProcess(command, log=directory / "log", environ=environ, directory=directory)
        opened.callback(child.kill)
        until(lambda: "ready." in (directory / "log").read_text(), "the stock worker is ready")
        yield child


def test_a_stock_worker_serves_the_same_queue(fleet: Fleet, sender: Sender, tmp_path: Path) -> None:
    with stock_worker(fleet, tmp_path) as stock:
        ids = [sender.send("test.nap", f"{number}", 0.05) for number in range(40)]
        sender.wait(ids)
        assert Counter(runs(fleet)) == Counter(f"{number}" for number in range(40))
        assert 0 < (tmp_path / "log").read_text().count("succeeded in") < 40
        assert stock.exit_code is None


def test_what_a_stock_worker_has_abandoned_comes_back(tmp_path: Path) -> None:
    with Fleet(nodes=0, app="fetch_tasks") as fleet, Sender.of(fleet) as sender:
        with stock_worker(fleet, tmp_path) as stock:
            taken = sender.send("test.nap", "taken", 2.0)
            until(lambda: runs(fleet) == ["taken"], "it is taken")
            stock.kill()
        (tag,) = fleet.queue.zrange("unacked_index", 0, -1)
        fleet.queue.zadd("unacked_index", {tag: time.time() - 181})
        fleet.add_node()
        sender.wait([taken])
        assert runs(fleet) == ["taken", "taken"]
        assert fleet.queue.hlen("unacked") == 0


def test_an_unknown_task_waits_for_a_worker_that_knows_it() -> None:
    with Fleet(concurrency=1, environ={"PERSONA_UNKNOWN_TASK_S": "30"}) as fleet, Sender.of(fleet) as sender:
        known_elsewhere = sender.send("test.note", "known")
        until(lambda: fleet.queue.zcard(ASIDE) == 1, "it waits")
        fleet.add_node(app="fetch_tasks")
        sender.wait([known_elsewhere])
        assert runs(fleet) == ["known"]


def test_many_tasks_that_one_node_knows_are_destroyed_by_no_other_one() -> None:
    """They wait for it for longer than a task may wait that nobody knows: it takes a few at a time, and the other one refuses the
    rest, again and again."""
    with Fleet(concurrency=1, environ={"PERSONA_UNKNOWN_TASK_S": "1"}) as fleet, Sender.of(fleet) as sender:
        fleet.add_node(app="fetch_tasks")
        until(lambda: fleet.queue.zscore(TASKS, "test.note"), "it has named its tasks")
        sender.wait([sender.send("test.note", str(number)) for number in range(10)])
        assert len(runs(fleet)) == 10


def test_a_task_that_nobody_knows_fails_in_time() -> None:
    with Fleet(concurrency=1, environ={"PERSONA_UNKNOWN_TASK_S": "1"}) as fleet:
        with pytest.raises(NotRegistered):
            fleet.app.send_task("test.nobody", queue="persona").get(timeout=20)
        assert fleet.queue.llen(DEAD_LETTERS) == 1

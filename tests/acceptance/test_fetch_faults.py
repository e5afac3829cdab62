"""Faults of the broker and of its connections: no node ends by them, each goes on by itself, and no message is lost."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.exceptions import OperationalError
from fleet import Fleet, Pool
from noted_tasks import RUNS
from polling import until
from sender import Sender

from benchmarks.kit.endpoint import Fault
from workers.node.fetch.claims import CLAIMS, NODES
from workers.queue.dead_letters.letter import DEAD_LETTERS

AWAY_S = 2.5
FULL = "1mb"
LONG = pytest.mark.long
"""`make test` has each fault once; `make test-long` has them in each pool, idle and busy."""


def nothing_is_left(fleet: Fleet) -> bool:
    return fleet.queued() + fleet.claimed() == 0


def works(fleet: Fleet, sender: Sender) -> None:
    """Each node runs, hears remote control, and a task is answered."""
    assert all(node.running for node in fleet.nodes), fleet.logs()
    names = {node.name for node in fleet.nodes}
    until(lambda: names <= pinged(fleet), "each node answers")
    sender.wait(sender.request(2 * len(names)), bound_s=20)
    until(lambda: nothing_is_left(fleet), "nothing is left")


def pinged(fleet: Fleet) -> set[str]:
    try:
        replies: list[dict[str, Any]] = fleet.app.control.ping(timeout=0.3)
    except (redis.RedisError, OperationalError, OSError):
        return set()
    return {name for reply in replies for name in reply}


def reconnections(fleet: Fleet) -> int:
    return fleet.logs().count("Connected to ")


@contextmanager
def read_only(fleet: Fleet) -> Iterator[None]:
    """As a primary is that a failover has made a replica."""
    fleet.queue.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        fleet.queue.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def full(fleet: Fleet) -> Iterator[None]:
    fleet.queue.config_set("maxmemory", FULL)
    try:
        yield
    finally:
        fleet.queue.config_set("maxmemory", "0")


@pytest.mark.parametrize(
    ("pool", "busy"), [("prefork", True), pytest.param("prefork", False, marks=LONG), pytest.param("threads", True, marks=LONG)]
)
def test_a_broker_that_is_killed_several_times_ends_no_node(pool: Pool, busy: bool) -> None:
    with Fleet(nodes=2, pool=pool, concurrency=1, delay_ms=200) as fleet, Sender.of(fleet) as sender:
        ids = sender.request(12) if busy else []
        for away_s in (0.0, 1.0, 0.0):
            if busy:
                calls = fleet.endpoint.calls
                until(lambda calls=calls: fleet.endpoint.calls > calls or nothing_is_left(fleet), "a task runs")
            fleet.broker.kill()
            time.sleep(away_s)
            fleet.broker.start()
            until(lambda: len(pinged(fleet)) == 2 or not all(node.running for node in fleet.nodes), "they are back")
        sender.wait(ids)
        works(fleet, sender)


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=LONG)])
def test_a_broker_that_stands_still_ends_no_node(pool: Pool) -> None:
    """Its connections are given up after 5 s. A task that ends after that has a channel that is closed."""
    with Fleet(pool=pool, concurrency=1, delay_ms=500) as fleet, Sender.of(fleet) as sender:
        ids = sender.request(3)
        until(lambda: fleet.endpoint.calls == 1, "a task runs")
        fleet.broker.freeze()
        until(lambda: "Connection to broker lost" in fleet.node.log() or not fleet.node.running, "it has noticed")
        fleet.broker.thaw()
        sender.wait(ids)
        works(fleet, sender)


@pytest.mark.parametrize("refusing", [read_only, pytest.param(full, marks=LONG)])
@pytest.mark.parametrize("busy", [pytest.param(False, marks=LONG, id="idle"), pytest.param(True, id="busy")])
def test_a_broker_that_refuses_for_a_while_ends_no_node(refusing: Callable[[Fleet], Any], busy: bool) -> None:
    """Nor one that starts meanwhile, whose queues cannot be declared."""
    with Fleet(concurrency=1, delay_ms=300) as fleet, Sender.of(fleet) as sender:
        ids = sender.request(5) if busy else []
        if busy:
            until(lambda: fleet.endpoint.calls > 0, "a task runs")
        connected = reconnections(fleet)
        with refusing(fleet):
            started = fleet.add_node(wait=False)
            until(lambda: "Connected to" in started.log() or not started.running, "the second has met it")
            time.sleep(AWAY_S)
        assert fleet.node.log().count("Connected to") == connected, "it had no reason to connect anew"
        sender.wait(ids)
        works(fleet, sender)


@pytest.mark.parametrize("refusing", [pytest.param(read_only, marks=LONG), full])
def test_a_node_that_pops_outlasts_a_broker_that_refuses(refusing: Callable[[Fleet], Any]) -> None:
    """It waits and goes on as one that claims. What it has popped and cannot note goes back; what it cannot acknowledge comes
    again after the visibility time-out, and is dropped then."""
    popping = {"PERSONA_FETCH": "pop", "PERSONA_DOOR": "false"}
    with Fleet(concurrency=1, environ=popping) as fleet, Sender.of(fleet) as sender:
        fleet.node.freeze()
        ids = sender.request(5)
        with refusing(fleet):
            fleet.node.thaw()
            time.sleep(AWAY_S)
        assert fleet.node.running, fleet.logs()
        sender.wait(ids)
        assert "messages_lost" not in fleet.node.log()
        sender.wait(sender.request(2))


def test_a_full_broker_gives_its_messages_away() -> None:
    with Fleet(concurrency=1, environ={"PERSONA_DOOR": "false"}) as fleet, Sender.of(fleet) as sender:
        fleet.endpoint.script(Fault("hang"))
        ids = sender.request(3)
        until(lambda: fleet.endpoint.calls == 1, "the first runs")
        with full(fleet):
            waiting = fleet.queued() + fleet.claimed()
            fleet.endpoint.script(Fault())
            until(lambda: fleet.endpoint.calls >= 2 or fleet.queued() < waiting - 2, "more are taken")
        sender.wait(ids)
        works(fleet, sender)


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=LONG)])
def test_subscriptions_that_break_touch_no_task(pool: Pool) -> None:
    with Fleet(pool=pool, concurrency=2, delay_ms=1000) as fleet, Sender.of(fleet) as sender:
        ids = sender.request(8)
        until(lambda: fleet.endpoint.calls == 2, "tasks run")
        connected = reconnections(fleet)
        ends_s = time.monotonic() + 5
        while time.monotonic() < ends_s:
            fleet.queue.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            time.sleep(0.2)
        sender.wait(ids)
        assert fleet.endpoint.calls == len(ids)
        assert reconnections(fleet) == connected
        works(fleet, sender)


def waiters(fleet: Fleet) -> list[str]:
    return [client["id"] for client in fleet.queue.client_list() if client["cmd"] == "blmove"]


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=LONG)])
def test_a_wait_that_breaks_is_begun_anew(pool: Pool) -> None:
    with Fleet(pool=pool, concurrency=1) as fleet, Sender.of(fleet) as sender:
        connected = reconnections(fleet)
        for _ in range(3):
            until(lambda: len(waiters(fleet)) == 4, "it waits on each queue")
            before = waiters(fleet)
            for client in before:
                fleet.queue.client_kill_filter(_id=client)
            until(lambda before=before: len(set(waiters(fleet)) - set(before)) == 4, "it waits anew")
        assert reconnections(fleet) == connected
        works(fleet, sender)


def watched_in_vain(pid: int) -> list[str]:
    """What the process's event loops still watch by the number of a file that is closed, or is another one by now."""
    found = []
    for known in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            if "eventpoll" not in str(known.readlink()):
                continue
            for line in Path(f"/proc/{pid}/fdinfo/{known.name}").read_text().splitlines():
                if watch := re.match(r"tfd: +(\d+) .* ino:([0-9a-f]+)", line):
                    file = Path(f"/proc/{pid}/fd/{watch[1]}")
                    if not file.exists() or file.stat().st_ino != int(watch[2], 16):
                        found.append(line)
    return found


@pytest.mark.parametrize("environ", [{}, pytest.param({"PERSONA_FETCH": "pop"}, marks=LONG)], ids=["claims", "pop"])
def test_what_a_child_has_inherited_is_watched_no_longer_once_it_is_broken(environ: dict[str, str]) -> None:
    """The kernel watches a closed socket on while a child holds it, by a number that the next connection has."""
    with Fleet(concurrency=1, environ=environ) as fleet, Sender.of(fleet) as sender:
        before = set(fleet.node.pids)
        fleet.node.kill_child()
        until(lambda: len(fleet.node.pids) == len(before) and set(fleet.node.pids) != before, "another child is there")
        works(fleet, sender)
        assert not watched_in_vain(fleet.node.pid)
        for _ in range(5):
            for kind in ("normal", "pubsub"):
                fleet.queue.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            time.sleep(0.2)
        works(fleet, sender)
        until(lambda: not watched_in_vain(fleet.node.pid), "it watches what it has")
        works(fleet, sender)


SOFTLY = {"REMAP_SIGTERM": "SIGQUIT"}
"""As the containers have it."""


@pytest.mark.parametrize("environ", [pytest.param({}, marks=LONG, id="warm"), pytest.param(SOFTLY, id="soft")])
def test_a_stop_takes_as_long_as_the_tasks_that_run(environ: dict[str, str]) -> None:
    """And not the 30 s that a soft shutdown may take; what was claimed beside them is back in its queue."""
    with Fleet(concurrency=2, delay_ms=1500, environ=environ) as fleet, Sender.of(fleet) as sender:
        ids = sender.request(10)
        until(lambda: fleet.endpoint.calls == 2, "tasks run")
        fleet.node.stop(wait=False)
        until(lambda: not fleet.node.running, "it has ended", bound_s=10)
        assert fleet.node.exit_code == 0
        assert fleet.claimed() == 0
        assert sender.done(ids) + fleet.queued() == len(ids)
        assert sender.done(ids) >= 2


def test_a_soft_stop_gives_back_what_takes_longer() -> None:
    bound = ("--", "worker.soft_shutdown_timeout=1")
    with Fleet(concurrency=1, environ=SOFTLY, arguments=bound) as fleet, Sender.of(fleet) as sender:
        fleet.endpoint.script(Fault("hang"))
        ids = sender.request(1)
        until(lambda: fleet.endpoint.calls == 1, "it runs")
        fleet.node.stop(wait=False)
        until(lambda: not fleet.node.running, "it has ended", bound_s=10)
        assert (fleet.claimed(), fleet.queued()) == (0, 1)
        fleet.endpoint.script(Fault())
        fleet.add_node()
        sender.wait(ids)


@pytest.mark.parametrize(
    ("pool", "fault", "environ"),
    [
        ("prefork", "kill", SOFTLY),
        pytest.param("prefork", "freeze", {}, marks=LONG),
        pytest.param("threads", "kill", {}, marks=LONG),
    ],
)
def test_a_stop_without_a_broker_ends(pool: Pool, fault: str, environ: dict[str, str]) -> None:
    """Also while a task runs, and with a broker that keeps the results: the task goes back, and is answered by another node."""
    with Fleet(pool=pool, concurrency=1, delay_ms=500, environ=environ) as fleet, Sender.of(fleet) as sender:
        ids = sender.request(2)
        until(lambda: fleet.endpoint.calls == 1, "a task runs")
        getattr(fleet.broker, fault)()
        fleet.node.stop(wait=False)
        until(lambda: not fleet.node.running, "it has ended", bound_s=20)
        fleet.broker.thaw() if fault == "freeze" else fleet.broker.start()
        for name in fleet.queue.zrange(NODES, 0, -1):
            age(fleet, name)
        fleet.add_node()
        sender.wait(ids)


def age(fleet: Fleet, name: str) -> None:
    """Let a node that has ended, or stands still, seem to have been silent for long."""
    fleet.queue.zadd(NODES, {name: 1.0})


def claiming_nodes(fleet: Fleet) -> list[str]:
    """The names, at the broker, of the nodes that have claims."""
    prefixes = fleet.queue.zrange(NODES, 0, -1)
    return [name for name in prefixes if fleet.queue.keys(f"{CLAIMS}{name}:*")]


@pytest.mark.parametrize("pool", ["threads", pytest.param("solo", marks=LONG)])
def test_a_message_that_ends_its_node_is_given_to_three(pool: Pool) -> None:
    """Then it is a dead letter, and its caller is told."""
    with Fleet(nodes=0, app="fetch_tasks", pool=pool, concurrency=1) as fleet, Sender.of(fleet) as sender:
        deadly = sender.send("test.die", "deadly")
        for count in (1, 2, 3):
            node = fleet.add_node(wait=False)
            until(lambda node=node: not node.running, "it has ended")
            assert fleet.queue.llen(RUNS) == count
            (name,) = claiming_nodes(fleet)
            age(fleet, name)
        fleet.add_node()
        sender.wait([deadly], "FAILURE")
        assert fleet.queue.llen(RUNS) == 3
        (letter,) = fleet.queue.lrange(DEAD_LETTERS, 0, -1)
        assert deadly in letter
        (outcome,) = sender.outcomes([deadly])
        assert outcome is not None
        assert outcome["result"]["exc_type"] == "WorkerLostError"
        until(lambda: nothing_is_left(fleet), "nothing is left")


def test_a_node_that_was_frozen_acknowledges_nothing_of_another() -> None:
    """Another one has its message by then. What the first does when it wakes harms neither the task nor that claim."""
    with Fleet(app="fetch_tasks", concurrency=1) as fleet, Sender.of(fleet) as sender:
        ids = [sender.send("test.nap", "nap", 4.0)]
        until(lambda: fleet.queue.llen(RUNS) == 1, "it runs")
        (frozen,) = claiming_nodes(fleet)
        fleet.node.freeze()
        age(fleet, frozen)
        other = fleet.add_node()
        until(lambda: fleet.queue.llen(RUNS) == 2, "the other one has it")
        (owner,) = claiming_nodes(fleet)
        assert owner != frozen
        fleet.node.thaw()
        until(lambda: "succeeded in" in fleet.node.log(), "the first has acknowledged it")
        until(lambda: fleet.queue.zscore(NODES, frozen) > 1.0, "it beats again")
        assert fleet.queued() == 0
        assert claiming_nodes(fleet) == [owner]
        until(lambda: "succeeded in" in other.log(), "the other has acknowledged it")
        until(lambda: nothing_is_left(fleet), "nothing is left")
        assert sender.done(ids) == 1
        assert fleet.queue.llen(RUNS) == 2

"""An invalidation reaches every process of real nodes.

The staleness bound is a minute here, so that the lease cannot be what made a process forget; where it is meant, it is short.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fleet import Fleet, Pool, captured_events
from kombu import Connection, Producer
from polling import until

from benchmarks.kit.endpoint import Fault
from pipeline.cache.keys import KeySpace
from pipeline.models import PersonaRequest
from pipeline.settings import DEFAULT_NAMESPACE
from workers.queue.broadcast import ROUTING_KEY, TASK, exchange_of

EXCHANGE = exchange_of(DEFAULT_NAMESPACE)
LONG_BOUND = {"PERSONA_STALENESS_BOUND_S": "60", "PERSONA_DOOR": "false"}
"""Each request goes to a child: at the door the main process would answer those that it may."""
REQUEST = PersonaRequest.create("How do I begin?", "frustrated-burst-seek_advice")  # Lua's
PATTERNS = ("persona:lua:*", "routing:*", "prompt:lua:frustrated-burst-seek_advice", "persona:lua:info", "*:lua:frustrated*")


def _answer(fleet: Fleet, version: int) -> None:
    """From now on the model says this."""
    message = {"role": "assistant", "content": f"version {version}"}
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "echo",
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
    }
    fleet.endpoint.script(Fault("body", body=json.dumps(body)))


def _ask_all(fleet: Fleet, processes: int, at_once: int) -> list[tuple[str, str]]:
    """Ask until every process has had to look beyond its L1 (its first time since it knew nothing): source and content.

    `at_once`: no more than there are processes to take them. Of two threads of one process both may have to look.
    """
    asked: list[tuple[str, str]] = []

    def asked_by_all() -> bool:
        asked.extend((answer.cached, answer.content) for answer in fleet.plain(*[REQUEST] * at_once))
        return sum(source != "l1" for source, _ in asked) >= processes

    until(asked_by_all, f"{processes} processes have answered", bound_s=60)
    return asked


def _ask_some(fleet: Fleet) -> set[str]:
    """The different contents of a dozen answers, more than there are processes."""
    return {answer.content for answer in fleet.plain(*[REQUEST] * 12)}


@pytest.fixture(scope="module")
def prefork() -> Iterator[Fleet]:
    """Two nodes of three children."""
    with Fleet(nodes=2, concurrency=3, environ=LONG_BOUND) as fleet:
        yield fleet


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_child_of_every_node_forgets_at_once(prefork: Fleet, pattern: str) -> None:
    """By key, prefix, glob and dependency: when the nodes have acknowledged, no child serves a value computed before."""
    _answer(prefork, 1)
    prefork.client.invalidate("*", wait_s=5)
    _ask_all(prefork, 6, 6)
    _answer(prefork, 2)
    done = prefork.client.invalidate(pattern, wait_s=5)
    assert done.durable
    assert len(done.applied) == 2, done
    assert done.silent == ()
    assert {content for _, content in _ask_all(prefork, 6, 6)} == {"version 2"}


def test_every_main_process_forgets_at_once() -> None:
    """It answers hits at the door, from an L1 of its own, and follows the log for itself as for its children."""
    with Fleet(nodes=2, concurrency=1, environ=LONG_BOUND | {"PERSONA_DOOR": "true"}) as fleet:
        _answer(fleet, 1)
        _ask_all(fleet, 1, 1)
        until(lambda: all("(l1" in node.log() for node in fleet.nodes) or not _ask_some(fleet), "both have it in their L1")
        _answer(fleet, 2)
        assert len(fleet.client.invalidate("persona:lua:*", wait_s=5).applied) == 2
        assert {answer.content for answer in fleet.plain(*[REQUEST] * 40)} == {"version 2"}


@pytest.mark.parametrize(
    ("pool", "processes"),  # all of them also in test_install
    [
        pytest.param("solo", 2, marks=pytest.mark.long),
        pytest.param("threads", 2, marks=pytest.mark.long),
        pytest.param("gevent", 2, marks=pytest.mark.long),
    ],
)
def test_every_pool_forgets_at_once(pool: Pool, processes: int) -> None:
    """A pool without children is one process a node."""
    if pool == "gevent":
        pytest.importorskip("gevent")
    with Fleet(nodes=2, pool=pool, concurrency=2, environ=LONG_BOUND) as fleet:
        _answer(fleet, 1)
        _ask_all(fleet, processes, 1)
        _answer(fleet, 2)
        assert len(fleet.client.invalidate("persona:lua:*", wait_s=5).applied) == 2
        assert {content for _, content in _ask_all(fleet, processes, 1)} == {"version 2"}


def test_a_child_that_was_forked_later_forgets_too() -> None:
    """Children come and go, each with an L1 of its own, on the bus of their node. (Celery needs some 5 s to replace one.)"""
    with Fleet(concurrency=2, environ=LONG_BOUND, arguments=["--max-tasks-per-child", "4"]) as fleet:
        first = set(fleet.node.pids)
        for version in range(1, 3):
            _answer(fleet, version)
            fleet.client.invalidate("persona:lua:*", wait_s=5)
            assert _ask_some(fleet) == {f"version {version}"}
        assert not first & set(fleet.node.pids), "every child was replaced"


def test_a_node_applies_it_while_all_its_slots_are_busy() -> None:
    """The broadcast does not wait for a slot, nor for the tasks' prefetch credit."""
    with Fleet(concurrency=2, environ=LONG_BOUND) as fleet:
        fleet.endpoint.script(Fault("hang"))
        tickets = [fleet.client.submit(f"question {number}", "calm-medium-learning") for number in range(6)]
        until(lambda: fleet.endpoint.calls >= 2, "both slots are busy")
        done = fleet.client.invalidate("persona:lua:*", wait_s=5)
        assert done.silent == ()
        assert len(done.applied) == 1
        for ticket in tickets:
            ticket.revoke()
        fleet.endpoint.script(Fault())
        del tickets, ticket  # while the server that they tell of it is there


def test_without_a_notice_the_lease_bounds_it() -> None:
    """Nothing is broadcast (as if lost): the nodes' own look at the log, twice a bound, is enough."""
    with Fleet(nodes=2, environ={"PERSONA_STALENESS_BOUND_S": "0.5"}) as fleet:
        _answer(fleet, 1)
        _ask_all(fleet, 4, 4)
        _answer(fleet, 2)
        fleet.client.cache._coherence.announce = None
        fleet.client.invalidate("persona:lua:*")
        # Served fresh by all within the bound and the next beat; polled, as the clock is the nodes'.
        until(lambda: _ask_some(fleet) == {"version 2"}, "no old answer is served")
        assert _ask_some(fleet) == {"version 2"}


def test_a_plain_producer_can_invalidate(prefork: Fleet) -> None:
    """Any program that speaks Celery's protocol, without a line of ours."""
    _answer(prefork, 1)
    prefork.client.invalidate("*", wait_s=5)
    _ask_all(prefork, 6, 6)
    _answer(prefork, 2)
    done = prefork.app.send_task("cache.invalidate", args=["persona:lua:*", "routing:*"]).get(timeout=20)
    assert done["durable"] is True
    assert done["patterns"] == ["persona:lua:*", "routing:*"]
    # It does not wait for the nodes, as `invalidate` of the client does: they hear of it in a moment, long before the bound.
    until(lambda: _ask_some(prefork) == {"version 2"}, "every child has heard of it")
    with pytest.raises(Exception, match="pattern: has an open"):
        prefork.app.send_task("cache.invalidate", args=["persona:[lua"]).get(timeout=20)


def test_a_malformed_or_foreign_message_is_dropped(prefork: Fleet) -> None:
    """Whatever is published to the exchange, the main process goes on, and the next notice is applied."""
    before = [node.pid for node in prefork.nodes]
    headers = {"lang": "py", "task": TASK, "id": "malformed"}
    bodies: list[object] = [
        None, 5, [], {}, "text", [[], {}, {}], [["e", 1], {}, {}], [["e", -1, ["a"]], {}, {}], [["e", 1, []], {}, {}],
        [["e", 1, ["["]], {}, {}], [["e", 1, [5]], {}, {}], [["e", 1, ["a"]], None, {}], [["e" * 99, 1, ["a"]], {}, {}],
    ]  # fmt: skip
    with Connection(prefork.broker.url) as connection:
        producer = Producer(connection, exchange=EXCHANGE, routing_key=ROUTING_KEY)
        for body in bodies:
            producer.publish(body, headers=headers, serializer="json", declare=[EXCHANGE])
        producer.publish([["e", 1, ["a"]], {}, {}], headers={"task": "another.task", "id": "x"}, serializer="json")
        producer.publish("not json", headers=headers, content_type="application/json", content_encoding="utf-8")
        producer.publish(b"\xff\x00", headers=headers, content_type="application/x-python-serialize", content_encoding="binary")
    for raw in (b"garbage", b"{}", b"[1]", b'{"body": 5}'):
        prefork.queue.execute_command("PUBLISH", f"/0.{EXCHANGE.name}/{ROUTING_KEY}", raw)
    done = prefork.client.invalidate("persona:lua:*", wait_s=10)
    assert len(done.applied) == 2, prefork.logs()
    assert [node.pid for node in prefork.nodes] == before
    assert all(node.log().count("cache.notice_dropped") >= len(bodies) for node in prefork.nodes)


def test_a_node_leaves_no_binding_that_would_outlast_it(prefork: Fleet) -> None:
    """It would be there for ever, one for each node that was killed. What they hear by is a subscription."""
    assert not prefork.queue.keys(f"_kombu.binding*{EXCHANGE.name}")


def test_flower_sees_the_invalidation_on_each_node(prefork: Fleet) -> None:
    """The events of a task, an id for each node."""
    events: list[dict[str, Any]]

    def received() -> list[dict[str, Any]]:
        # Those of earlier tests may still come in.
        told = [event for event in events if event["type"] == "task-received" and event["name"] == TASK]
        return [event for event in told if "persona:shown:*" in event["args"]]

    def succeeded() -> int:
        ids = {event["uuid"] for event in received()}
        return sum(event["type"] == "task-succeeded" and event["uuid"] in ids for event in events)

    with captured_events(prefork.app) as events:
        prefork.client.invalidate("persona:shown:*", wait_s=5)
        until(lambda: succeeded() >= 2, "both nodes have told")
    assert len({event["uuid"] for event in received()}) == 2
    assert len({event["hostname"] for event in received()}) == 2
    started = {event["uuid"] for event in events if event["type"] == "task-started"}
    assert started >= {event["uuid"] for event in received()}


def test_an_invalidation_while_redis_is_away_reaches_the_processes_and_is_kept() -> None:
    """The caller is told; the broadcast carries it; the processes that heard of it append it when Redis is back."""
    # No process can learn of it but by the broadcast, whatever the bound: the log does not answer.
    with Fleet(concurrency=2, environ={"PERSONA_STALENESS_BOUND_S": "2"}) as fleet:
        _answer(fleet, 1)
        _ask_all(fleet, 2, 2)
        fleet.cache.freeze()
        _answer(fleet, 2)
        done = fleet.client.invalidate("persona:lua:*", wait_s=5)
        assert done.durable is False
        assert (done.applied, done.silent) == ((), ())
        until(lambda: _ask_some(fleet) == {"version 2"}, "the processes have heard of it")
        fleet.cache.thaw()
        keys = KeySpace("persona")
        with fleet.cache.client() as redis:
            until(lambda: redis.zscore(keys.records, "persona:lua:*") is not None, "it is in the log")
        assert _ask_some(fleet) == {"version 2"}

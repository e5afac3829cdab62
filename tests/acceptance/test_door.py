"""Hits that a node's main process answers, and what takes the long way instead. Held against what a pool child answers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import chain
from fleet import Fleet, captured_events
from polling import until

from benchmarks.kit.endpoint import Fault
from pipeline.cache.server.connection import RedisConnection
from pipeline.figures import FigureKeys, read_figures
from workers.queue.factory import make_app

KEY = "calm-flowing-learning"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(concurrency=1, environ={"PERSONA_STALENESS_BOUND_S": "60"}) as fleet:
        yield fleet


def wire(question: str, **fields: Any) -> dict[str, Any]:
    return {"user_input": question, "resonance_key": KEY} | fields


def send(fleet: Fleet, request: Any, **options: Any) -> Any:
    return fleet.app.send_task("persona.process", args=[request], queue="persona", **options)


def at_the_door(fleet: Fleet, task_id: str) -> bool:
    return f"door.answered: task {task_id}" in fleet.node.log()


def computed(fleet: Fleet, question: str, **fields: Any) -> dict[str, Any]:
    answer: dict[str, Any] = send(fleet, wire(question, **fields)).get(timeout=20)
    assert answer["cached"] == "no"
    return answer


def test_a_hit_is_what_celery_would_have_kept(fleet: Fleet, question: str) -> None:
    """Key for key and type for type, beside the result of a child; and its caller sees no difference."""
    first = send(fleet, wire(question))
    answer = first.get(timeout=20)
    second = send(fleet, wire(question))
    again = second.get(timeout=20)
    until(lambda: at_the_door(fleet, second.id), "the door has told")
    assert again["cached"] == "l2"
    assert {**again, "cached": 0, "execution_time_ms": 0} == {**answer, "cached": 0, "execution_time_ms": 0}
    results = fleet.app.backend.client
    kept = [json.loads(results.get(f"celery-task-meta-{result.id}")) for result in (first, second)]
    lives_s = [results.ttl(f"celery-task-meta-{result.id}") for result in (first, second)]
    of_child, of_door = kept
    assert {name: type(value) for name, value in of_door.items()} == {name: type(value) for name, value in of_child.items()}
    assert (of_door["status"], of_door["traceback"], of_door["children"]) == ("SUCCESS", None, [])
    assert datetime.fromisoformat(of_door["date_done"]).tzinfo is not None
    assert abs(lives_s[0] - lives_s[1]) < 30
    assert send(fleet, wire(question)).get(timeout=20)["cached"] == "l1"


def test_all_hits_are_counted_and_some_are_shown(question: str) -> None:
    """Each with its three events, in their order, up to so many a second; how many are not shown is told."""
    with Fleet(concurrency=1, environ={"PERSONA_HIT_EVENTS_PER_S": "3"}) as fleet:
        computed(fleet, question)
        with captured_events(fleet.app) as events, closing(RedisConnection(fleet.cache.url, timeout_s=5)) as reader:
            sent = [send(fleet, wire(question)) for _ in range(40)]
            sources = Counter(result.get(timeout=20)["cached"] for result in sent)
            until(lambda: read_figures(reader, FigureKeys("persona")).ever.requests.total == 41, "all are counted")
            ever = read_figures(reader, FigureKeys("persona")).ever
            assert Counter(l1=ever.requests.l1, l2=ever.requests.l2) == sources
            assert ever.requests.no == 1
            ids = {result.id for result in sent}
            until(lambda: seen(events, ids) + ever.not_shown == 40, "what was not shown is told")
            assert ever.not_shown > 20
        shown = [event["type"] for event in events if event.get("uuid") == sent[0].id]
    assert shown == ["task-received", "task-started", "task-succeeded"]
    assert question not in json.dumps(list(events))


def seen(events: list[dict[str, Any]], ids: set[str]) -> int:
    return sum(event["type"] == "task-succeeded" and event["uuid"] in ids for event in list(events))


def test_hits_go_by_while_all_slots_are_busy_and_misses_keep_their_order(fleet: Fleet, question: str) -> None:
    computed(fleet, question)
    assert send(fleet, wire(question)).get(timeout=20)["cached"] in ("l1", "l2")
    calls = fleet.endpoint.calls
    fleet.endpoint.script(Fault("hang"))
    misses = [send(fleet, wire(f"{question} {number}")) for number in range(6)]
    until(lambda: fleet.endpoint.calls == calls + 1, "the slot is busy")
    hits = [send(fleet, wire(question)) for _ in range(20)]
    assert {hit.get(timeout=10)["cached"] for hit in hits} <= {"l1", "l2"}
    assert not any(miss.ready() for miss in misses)
    waiting = [json.loads(item)["headers"]["id"] for item in reversed(fleet.queue.lrange("persona", 0, -1))]
    assert waiting == [miss.id for miss in misses[-len(waiting) :]]
    assert len(waiting) >= 4
    fleet.endpoint.script(Fault())
    for miss in misses[1:]:
        assert miss.get(timeout=60)["cached"] == "no"


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"countdown": 0.1}, {}),
        ({"expires": 60}, {}),
        ({"retries": 1}, {}),
        ({"time_limit": 60}, {}),
        ({"headers": {"unusual": 1}}, {}),
        ({}, {"use_cache": False}),
    ],
)
def test_what_is_no_plain_request_takes_the_long_way(
    options: dict[str, Any], fields: dict[str, Any], fleet: Fleet, question: str
) -> None:
    computed(fleet, question)
    sent = send(fleet, wire(question, **fields), **options)
    assert sent.get(timeout=20)["content"]
    assert not at_the_door(fleet, sent.id)


def test_a_revoked_hit_is_not_answered(fleet: Fleet, question: str) -> None:
    computed(fleet, question)
    fleet.app.control.revoke("00000000-revoked", reply=True, timeout=5)
    sent = send(fleet, wire(question), task_id="00000000-revoked")
    with pytest.raises(Exception, match="revoked"):
        sent.get(timeout=20)


def test_a_link_runs(fleet: Fleet, question: str) -> None:
    computed(fleet, question)
    after = fleet.app.signature("cache.invalidate", args=["persona:nobody:*"], immutable=True, queue="persona")
    last = chain(fleet.app.signature("persona.process", args=[wire(question)], queue="persona"), after).apply_async()
    assert last.get(timeout=20)["patterns"] == ["persona:nobody:*"]


def test_a_personal_answer_is_its_users_alone(fleet: Fleet, question: str) -> None:
    mine = {"context": {"user_id": "me", "user_name": "Me"}}
    computed(fleet, question, **mine)
    assert send(fleet, wire(question, **mine)).get(timeout=20)["cached"] == "l2"
    assert send(fleet, wire(question, context={"user_id": "you", "user_name": "You"})).get(timeout=20)["cached"] == "no"


def test_a_bad_message_harms_none_of_its_neighbours(fleet: Fleet, question: str) -> None:
    """In the middle of a batch that is claimed at once."""
    computed(fleet, question)
    node = fleet.node
    dead = fleet.queue.llen("persona.dead")
    node.freeze()
    sent = [send(fleet, wire(question)) for _ in range(10)]
    fleet.queue.lpush("persona", b"\xff no message", b"{}", b"[" * 5000)
    sent += [send(fleet, wire(question)) for _ in range(10)]
    node.thaw()
    assert {result.get(timeout=20)["cached"] for result in sent} <= {"l1", "l2"}
    until(lambda: fleet.queue.llen("persona.dead") == dead + 3, "the others are put aside")
    until(lambda: fleet.claimed() == 0, "all are acknowledged")


def test_without_the_result_server_a_hit_takes_the_long_way_and_is_told_later(question: str) -> None:
    with Fleet(concurrency=1) as fleet:
        computed(fleet, question)
        assert send(fleet, wire(question)).get(timeout=20)["cached"] == "l2"
        with fleet.broker.client() as client:
            client.config_set("maxmemory-policy", "noeviction")
        sent = send(fleet, wire(question))
        assert sent.get(timeout=20)["cached"] == "l1"


def test_the_door_can_be_shut(question: str) -> None:
    with Fleet(concurrency=1, environ={"PERSONA_DOOR": "false"}) as fleet:
        computed(fleet, question)
        sent = send(fleet, wire(question))
        assert sent.get(timeout=20)["cached"] == "l1"  # that of the only child
        assert not at_the_door(fleet, sent.id)


def test_a_stock_app_without_a_configuration_is_answered_too(fleet: Fleet, question: str) -> None:
    """By way of the queue `celery`."""
    computed(fleet, question)
    sent = fleet.app.send_task("persona.process", args=[wire(question)], queue="celery")
    assert sent.get(timeout=20)["cached"] in ("l1", "l2")
    until(lambda: at_the_door(fleet, sent.id), "the door has told")
    eta = datetime.now(UTC) - timedelta(hours=1)
    with closing(make_app(fleet.client.settings)) as app:
        late = app.send_task("persona.process", args=[wire(question)], queue="celery", eta=eta)
        assert late.get(timeout=20)["cached"] in ("l1", "l2")

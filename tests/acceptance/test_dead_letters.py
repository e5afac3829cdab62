"""Dead letters, as an operator meets them: listed without their text, queued anew once, dropped, and counted."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from envelopes import envelope, whole
from fleet import Fleet
from monitor import FlowerServer
from polling import until
from prometheus_client.parser import text_string_to_metric_families
from servers import NO_STACK

from benchmarks.kit.nodes import own_environment
from pipeline.discovery import STACK_DIR
from workers.queue.dead_letters.letter import DEAD_LETTERS, MAX_ITEM_CHARS
from workers.queue.names import DELIVERIES_HEADER, UNKNOWN_SINCE_HEADER

CANARY = "Kanarienvogel"
REQUEST = {"user_input": f"{CANARY}, how do I begin?", "resonance_key": "calm-flowing-planning"}


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(environ={"PERSONA_UNKNOWN_TASK_S": "0"}) as fleet:
        yield fleet


@pytest.fixture(autouse=True)
def none_before(fleet: Fleet) -> None:
    fleet.queue.delete(DEAD_LETTERS)


def persona(fleet: Fleet, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workers.cli", "dead-letters", *words],
        env={**own_environment(), STACK_DIR: NO_STACK, **fleet.environ},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def document(fleet: Fleet, *words: str) -> dict[str, Any]:
    done = persona(fleet, *words, "--json")
    shown: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode == 0) == ("error" not in shown), done.stderr
    return shown


def buried(fleet: Fleet, count: int = 1) -> list[dict[str, Any]]:
    until(lambda: fleet.queue.llen(DEAD_LETTERS) == count, "they are dead letters")
    letters: list[dict[str, Any]] = document(fleet)["letters"]
    return letters


def test_a_letter_is_listed_without_its_text_and_shown_with_it(fleet: Fleet) -> None:
    task_id = fleet.app.send_task("persona.tomorrow", args=[REQUEST], queue="persona").id
    (letter,) = buried(fleet)
    assert (letter["task"], letter["task_id"], letter["queue"], letter["whole"]) == ("persona.tomorrow", task_id, "persona", True)
    listed = persona(fleet)
    assert letter["id"] in listed.stdout
    assert "does not know" in " ".join(listed.stdout.split())
    assert CANARY not in listed.stdout + json.dumps(letter)
    shown = persona(fleet, "show", letter["id"])
    assert task_id in shown.stdout
    assert "what a user wrote" in shown.stderr
    assert document(fleet, "show", letter["id"])["item"] in shown.stdout
    assert document(fleet, "count")["kept"] == 1
    assert document(fleet, "count")["ever"] >= 1


def test_a_letter_is_queued_as_it_was_and_once(fleet: Fleet) -> None:
    """Two operators at once: one of them queues it. Its caller, who had a failure, has the answer."""
    task_id = str(uuid.uuid4())
    item = envelope(whole(REQUEST), id=task_id, **{DELIVERIES_HEADER: 3})
    fleet.queue.lpush("persona", item)
    with pytest.raises(Exception, match="3 nodes that died"):
        fleet.app.AsyncResult(task_id).get(timeout=20)
    (letter,) = buried(fleet)
    told: list[dict[str, Any]] = []
    operators = [threading.Thread(target=lambda: told.append(document(fleet, "requeue", letter["id"]))) for _ in range(2)]
    for operator in operators:
        operator.start()
    for operator in operators:
        operator.join()
    assert sum(each.get("queued", 0) for each in told) == 1, told
    until(lambda: fleet.app.AsyncResult(task_id).state == "SUCCESS", "it is answered")
    assert fleet.queue.llen(DEAD_LETTERS) == 0


def test_all_of_a_task_are_queued_anew_and_others_stay(fleet: Fleet) -> None:
    for name in ("persona.tomorrow", "persona.tomorrow", "persona.yesterday"):
        fleet.app.send_task(name, args=[REQUEST], queue="persona")
    buried(fleet, 3)
    since = {UNKNOWN_SINCE_HEADER: 1.0}
    fleet.queue.lpush("persona", envelope(whole(REQUEST), task="persona.tomorrow", **since))
    buried(fleet, 4)
    assert document(fleet, "requeue", "--all", "--task", "persona.tomorrow", "--yes") == {"queued": 3, "gone": 0, "cut": 0}
    assert len(buried(fleet, 4)) == 4, "no worker knows them yet: they are letters again"
    assert document(fleet, "drop", "--all", "--why", "persona.yesterday", "--yes") == {"dropped": 1, "gone": 0}
    assert {letter["task"] for letter in buried(fleet, 3)} == {"persona.tomorrow"}
    assert document(fleet, "drop", "--all", "--yes") == {"dropped": 3, "gone": 0}
    assert persona(fleet).stdout == "none\n"


@pytest.mark.parametrize(
    "item", [b"{" + CANARY.encode(), b"\xff\xfe", envelope(b"x" * MAX_ITEM_CHARS)], ids=["no JSON", "no text", "long"]
)
def test_what_was_not_kept_whole_or_is_no_message_is_not_queued(item: bytes, fleet: Fleet) -> None:
    fleet.queue.lpush("persona", item)
    (letter,) = buried(fleet)
    refused = document(fleet, "requeue", letter["id"])
    assert (refused["queued"], refused["cut"], refused["error"]["kind"]) == (0, 1, "cut")
    assert fleet.queue.llen(DEAD_LETTERS) == 1


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("requeue",), "ID"),
        (("drop", "a", "--all"), "ID"),
        (("drop", "a", "--task", "x"), "--task"),
        (("requeue", "--all"), "--yes"),
        (("show", "0123456789ab"), "ID"),
    ],
)
def test_a_mistake_is_named_and_changes_nothing(words: tuple[str, ...], field: str, fleet: Fleet) -> None:
    fleet.app.send_task("persona.tomorrow", queue="persona")
    buried(fleet)
    assert document(fleet, *words)["error"]["field"] == field
    assert fleet.queue.llen(DEAD_LETTERS) == 1


def test_flower_tells_prometheus_how_many_there_are(fleet: Fleet) -> None:
    fleet.app.send_task("persona.tomorrow", queue="persona")
    buried(fleet)
    with FlowerServer(broker_url=fleet.broker.url, cache_url=fleet.cache.url) as flower:
        families = text_string_to_metric_families(flower.ask("/metrics").text)
        found = {sample.name: sample.value for family in families for sample in family.samples}
    assert found["persona_dead_letters"] == 1

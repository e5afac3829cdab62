"""Warm before the traffic comes: preloads by task and by hand, and a pool child that comes in another one's place."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import TimeoutError as AnswerTimeout
from celery.result import AsyncResult
from fleet import ROOT, Fleet
from polling import until

from benchmarks.kit.endpoint import Fault
from benchmarks.kit.nodes import own_environment
from pipeline.hot import HotKeys
from pipeline.personas import load_catalog
from pipeline.preload.preloader import FAILURES

KEY = "calm-flowing-planning"
COMMON = [f"common question {number}" for number in range(80)]
FIRST = 100
"""The successor's requests that count."""


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Three children that have all been asked the common questions, and have told the fleet so."""
    with Fleet(concurrency=3, environ={"PERSONA_DOOR": "false"}) as fleet:
        ask(fleet, COMMON * 4)
        with fleet.cache.client() as redis:
            keys = HotKeys("persona")

            def kept() -> int:
                """How many could be renewed: asked for more than once, and known by their requests."""
                return sum(redis.exists(keys.request(key.decode())) for key in redis.zrange(keys.scores, 0, -1))

            # A request that joined another one is not noted: which are is chance.
            until(lambda: kept() == len(COMMON) or not ask(fleet, random.sample(COMMON, 40)), "all of them are hot")
        yield fleet


@pytest.fixture(autouse=True)
def answering(fleet: Fleet) -> Iterator[None]:
    yield
    fleet.endpoint.script(Fault())


def ask(fleet: Fleet, questions: list[str], context: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """As a program that has no cache of its own: every request is a task."""
    return [result.get(timeout=30) for result in [send(fleet, question, context) for question in questions]]


def send(fleet: Fleet, question: str, context: dict[str, str] | None = None) -> AsyncResult:
    request = {"user_input": question, "resonance_key": KEY, "context": context}
    return fleet.app.send_task("persona.process", args=[request], queue="persona")


def preload(fleet: Fleet, **options: Any) -> dict[str, Any]:
    report: dict[str, Any] = fleet.app.send_task("cache.preload", kwargs=options, queue="maintenance").get(timeout=60)
    return report


def lose_answers(fleet: Fleet) -> None:
    """No process may serve its old values any more; values computed from now on stay."""
    fleet.client.invalidate("persona:*", wait_s=5)


def test_after_a_preload_the_first_request_of_every_common_key_is_a_hit(fleet: Fleet) -> None:
    """The burst costs the model nothing: it was asked before, once a key."""
    lose_answers(fleet)
    calls = fleet.endpoint.calls
    report = preload(fleet, budget=200)
    assert report["hot_considered"] >= len(COMMON)
    assert report["renewed"] == report["due"] == report["hot_considered"]
    assert (report["personas"], report["routes"], report["templates"]) == (len(load_catalog()), 216, 216)
    assert fleet.endpoint.calls == calls + report["renewed"]
    assert {answer["cached"] for answer in ask(fleet, COMMON)} <= {"l1", "l2"}
    assert fleet.endpoint.calls == calls + report["renewed"]
    again = preload(fleet, budget=200)
    assert (again["due"], again["renewed"]) == (0, 0)


def test_a_budget_bounds_what_a_preload_spends(fleet: Fleet) -> None:
    """The hottest come first, and the model is not called more often than the budget says, however many workers help."""
    lose_answers(fleet)
    calls = fleet.endpoint.calls
    report = preload(fleet, budget=5)
    assert (report["due"], report["renewed"]) == (5, 5)
    assert fleet.endpoint.calls == calls + 5
    assert preload(fleet, budget=0)["due"] == 0


def test_a_preload_that_meets_a_failing_model_stops_spending_and_reports(fleet: Fleet) -> None:
    """It asks three times, and says why it ended."""
    lose_answers(fleet)
    fleet.endpoint.script(Fault("status", status=400))
    calls = fleet.endpoint.calls
    report = preload(fleet)
    assert (report["renewed"], report["failed"]) == (0, FAILURES)
    assert report["due"] > FAILURES
    assert "model failed" in report["stopped_because"]
    assert fleet.endpoint.calls == calls + FAILURES


def test_the_words_of_a_user_are_kept_of_nobody_with_a_context(fleet: Fleet) -> None:
    """However often it is asked for: an answer that belongs to one user is neither counted nor renewed."""
    secret = "my very own question"
    for context in ({"user_id": "u-1"}, {"user_name": "Mina"}):
        ask(fleet, [secret] * 5, context)
    ask(fleet, ["asked by everybody"] * 5)
    with fleet.cache.client() as redis:

        def kept() -> bytes:
            names = list(redis.scan_iter(match="*:hot}*"))
            strings = [name for name in names if redis.type(name) == b"string"]
            return b" ".join(value for value in redis.mget(strings) if value)

        # Asked until it is among what each process counts: see the fixture.
        until(
            lambda: b"asked by everybody" in kept() or not ask(fleet, ["asked by everybody"] * 5), "what is not personal is kept"
        )
        assert secret.encode() not in kept()
    assert secret not in fleet.node.log()
    assert "asked by everybody" not in fleet.node.log()


def test_a_child_that_is_killed_under_load_has_a_warm_successor(fleet: Fleet) -> None:
    """Its L1 hit rate in its first 100 requests is at least 80 % of its siblings' in that time."""
    preload(fleet, budget=200)
    for _ in range(8):
        ask(fleet, COMMON)
    answers: dict[str, str] = {}
    ended = threading.Event()

    def load() -> None:
        rng = random.Random(1)
        while not ended.is_set():
            sent = [send(fleet, rng.choice(COMMON)) for _ in range(20)]
            for result in sent:
                if not ended.is_set():
                    try:
                        answers[result.id] = result.get(timeout=5)["cached"]
                    except AnswerTimeout:  # the one that the killed child was at
                        continue

    thread = threading.Thread(target=load)
    thread.start()
    try:
        until(lambda: len(answers) >= 100, "there is a load")
        seen = len(fleet.node.log())
        killed = fleet.node.kill_child()
        until(lambda: len(fleet.node.pids) == 3 and killed not in fleet.node.pids, "there is a successor")
        until(lambda: len(served(fleet, seen, answers).get(youngest(fleet), ())) >= FIRST, "it has served", bound_s=60)
    finally:
        ended.set()
        thread.join()
    by_child = served(fleet, seen, answers)
    its = by_child.pop(youngest(fleet))[:FIRST]
    others = [source for sources in by_child.values() for source in sources]
    theirs = others.count("l1") / len(others)
    assert theirs > 0.5, "the siblings are warm"
    assert its.count("l1") / FIRST >= 0.8 * theirs, its


def served(fleet: Fleet, seen: int, answers: dict[str, str]) -> dict[str, list[str]]:
    """By the pool child's name in the log: where its answers came from, in the order in which it gave them."""
    by_child = defaultdict(list)
    line = re.compile(r"INFO/(ForkPoolWorker-\d+)\] Task persona\.process\[(\S+)\] succeeded")
    for child, task_id in line.findall(fleet.node.log()[seen:]):
        if task_id in answers:
            by_child[child].append(answers[task_id])
    return by_child


def youngest(fleet: Fleet) -> str:
    """The name in the log of the child that came last: it has the highest number, and three were there before it."""
    highest = max(map(int, re.findall(r"ForkPoolWorker-(\d+)\]", fleet.node.log())))
    return f"ForkPoolWorker-{highest}" if highest > 3 else ""


# -- by hand


def persona(fleet: Fleet, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "workers.cli", "preload", *arguments],
        env={**own_environment(), **fleet.environ},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_by_hand_it_does_the_same_and_shows_it(fleet: Fleet) -> None:
    """For people and for programs; the answers that were due are no longer due."""
    lose_answers(fleet)
    out, errors = persona(fleet, "--json", "--budget", "7").communicate(timeout=60)
    document = json.loads(out)
    assert (document["due"], document["renewed"], document["failed"], errors) == (7, 7, 0, "")
    shown = persona(fleet, "--budget", "3")
    out, _ = shown.communicate(timeout=60)
    assert shown.returncode == 0
    assert f"{len(load_catalog())} personas, 216 routes, 216 prompt templates" in out
    assert "3 of them due, 3 computed anew" in out


def test_by_hand_a_failing_model_is_exit_1_with_the_report(fleet: Fleet) -> None:
    """A script that deploys must see it."""
    lose_answers(fleet)
    fleet.endpoint.script(Fault("status", status=400))
    ended = persona(fleet, "--json")
    document = json.loads(ended.communicate(timeout=60)[0])
    assert ended.returncode == 1
    assert (document["failed"], document["error"]["kind"]) == (FAILURES, "preload_stopped")


def test_ctrl_c_ends_the_spending_too(fleet: Fleet) -> None:
    """Running renewals may end; no other is begun for a command that has gone."""
    lose_answers(fleet)
    until(lambda: not fleet.queued("maintenance") and not fleet.claimed(), "the helpers of earlier rounds have ended")
    fleet.endpoint.script(Fault("hang"))
    calls = fleet.endpoint.calls
    asked = persona(fleet, "--json")
    until(lambda: fleet.endpoint.calls == calls + 1, "the first is being renewed")
    asked.send_signal(signal.SIGINT)
    asked.communicate(timeout=60)
    assert asked.returncode == 130
    fleet.endpoint.script(Fault())
    until(lambda: "stopped_because=the command that asked" in fleet.node.log(), "the round has ended")
    assert fleet.endpoint.calls <= calls + 2  # the model's client tries a dropped connection once more


@pytest.mark.parametrize(
    ("arguments", "settings", "code", "kind"),
    [
        (("--budget", "-1"), {}, 2, "usage"),
        ((), {"PERSONA_CACHE_URL": ""}, 1, "no_shared_cache"),
        ((), {"PERSONA_CACHE_URL": "redis://127.0.0.1:1/0"}, 1, "cache_unavailable"),
        ((), {"PERSONA_BROKER_URL": "redis://127.0.0.1:1/0"}, 1, "queue_unavailable"),
        (("--timeout", "1"), {"PERSONA_CACHE_NAMESPACE": "another"}, 1, "no_worker"),
    ],
)
def test_by_hand_what_is_wrong_is_one_sentence(
    fleet: Fleet, arguments: tuple[str, ...], settings: dict[str, str], code: int, kind: str, tmp_path: Path
) -> None:
    """With the field to look at, and an exit code."""
    environ = {**own_environment(), **fleet.environ, "PERSONA_STACK_DIR": str(tmp_path), **settings}
    ended = subprocess.run(
        [sys.executable, "-m", "workers.cli", "preload", "--json", *arguments],
        env=environ,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, json.loads(ended.stdout)["error"]["kind"]) == (code, kind), ended.stderr
    assert ended.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cache.preload", {"budget": -1}),
        ("cache.preload", {"budget": "many"}),
        ("cache.preload", {"every_s": 0}),
        ("cache.preload", {"round_id": "x" * 65}),
        ("cache.maintain", {"every_s": True}),
    ],
)
def test_a_task_with_a_wrong_argument_fails_and_names_it(fleet: Fleet, name: str, options: dict[str, Any]) -> None:
    """Any program may send it."""
    with pytest.raises(Exception, match=f"^{next(iter(options))}: "):
        fleet.app.send_task(name, kwargs=options, queue="maintenance").get(timeout=20)


def test_maintenance_removes_what_was_invalidated(fleet: Fleet) -> None:
    """By its task, and once a slot."""
    ask(fleet, COMMON[:5])
    lose_answers(fleet)
    with fleet.cache.client() as redis:
        assert any(True for _ in redis.scan_iter(match="persona:2:e:persona:*", count=1000))
        done = fleet.app.send_task("cache.maintain", kwargs={"every_s": 60}, queue="maintenance").get(timeout=20)
        assert done["pass_done"]
        assert done["swept"] >= 5
        assert not any(True for _ in redis.scan_iter(match=f"persona:2:e:persona:*:{KEY}:*", count=1000))
    again = fleet.app.send_task("cache.maintain", kwargs={"every_s": 60}, queue="maintenance").get(timeout=20)
    assert "has run within" in again["stopped_because"]

"""Failed tasks, as an operator meets them: listed without their text, tried again once under their own ids, dropped, counted."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from celery.result import AsyncResult
from envelopes import envelope, whole
from fleet import Fleet, answers_of, captured_events, send_plain
from monitor import FlowerServer
from polling import until
from prometheus_client.parser import text_string_to_metric_families
from servers import NO_STACK

from benchmarks.kit.endpoint import Fault
from benchmarks.kit.nodes import own_environment
from pipeline.discovery import STACK_DIR
from pipeline.models import PersonaRequest
from pipeline.settings import load_settings
from workers.cli import main
from workers.queue.dead_letters.choice import Choice
from workers.queue.dead_letters.letter import MAX_ITEM_CHARS, Found, written
from workers.queue.factory import make_app
from workers.queue.failures import box as kept
from workers.queue.failures.box import FAILURES, FAILURES_TTL_S, Failures
from workers.queue.names import PUBLISHED_HEADER
from workers.queue.reach import bound_waits

KEY = "calm-flowing-planning"
CANARY = "Kanarienvogel"
REFUSED = Fault("status", status=401)


@pytest.fixture
def failures(fleet: Fleet) -> Iterator[Failures]:
    with closing(make_app(load_settings(fleet.environ))) as app:
        bound_waits(app)
        made = Failures(app)
        made.drop(made.all())
        yield made


def failed(fleet: Fleet, failures: Failures, count: int, words: str = CANARY) -> list[str]:
    """The ids of so many tasks whose model refuses, and that are kept by now; the model is well again."""
    fleet.endpoint.script(REFUSED)
    before = failures.count()
    tasks = [send_plain(fleet.app, PersonaRequest.create(f"{words} {number} {time.time_ns()}?", KEY)) for number in range(count)]
    for task in tasks:
        with pytest.raises(Exception, match="PERSONA_LLM_API_KEY"):
            task.get(timeout=20)
    until(lambda: failures.count() == before + count, "they are kept")
    fleet.endpoint.script(Fault())
    return [task.id for task in tasks]


def answered(fleet: Fleet, ids: list[str]) -> bool:
    """By what is kept: a result of Celery's keeps the failure that it was told."""
    backend = fleet.app.backend
    outcomes = backend.mget([backend.get_key_for_task(task_id) for task_id in ids])
    return all(raw and json.loads(raw)["status"] == "SUCCESS" for raw in outcomes)


def persona(fleet: Fleet, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workers.cli", "failures", *words],
        env={**own_environment(), STACK_DIR: NO_STACK, **fleet.environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def document(fleet: Fleet, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, Any]:
    for name, value in fleet.environ.items():
        monkeypatch.setenv(name, value)
    capsys.readouterr()
    code = main(["failures", *words, "--json"])
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (code == 0) == ("error" not in shown)
    return shown


def test_a_failed_task_is_listed_without_its_text_and_tried_again_under_its_id(fleet: Fleet, failures: Failures) -> None:
    """Its caller has the answer by the same id, and it is no failure any more."""
    tasks = failed(fleet, failures, 2)
    listed = persona(fleet)
    assert CANARY not in listed.stdout + listed.stderr
    assert "PermanentModelError" in listed.stdout
    one, other = failures.all()
    assert one.id in listed.stdout
    assert {one.letter.task_id, other.letter.task_id} == set(tasks)
    shown = persona(fleet, "show", one.id)
    assert "what a user wrote" in shown.stderr
    assert one.letter.item in shown.stdout
    done = json.loads(persona(fleet, "retry", "--all", "--why", "PermanentModelError", "--yes", "--json").stdout)
    assert done == {"queued": 2, "gone": 0, "cut": 0}
    until(lambda: answered(fleet, tasks), "both are answered")
    assert failures.all() == []


def test_two_operators_at_once_try_each_task_once(fleet: Fleet, failures: Failures) -> None:
    tasks = failed(fleet, failures, 12)
    letters = failures.all()
    calls, told = fleet.endpoint.calls, []
    with captured_events(fleet.app) as events:
        operators = [threading.Thread(target=lambda: told.append(failures.retry(letters))) for _ in range(2)]
        for operator in operators:
            operator.start()
        for operator in operators:
            operator.join()
        until(lambda: answered(fleet, tasks), "all are answered")
    assert sum(each["queued"] for each in told) == sum(each["gone"] for each in told) == 12, told
    assert fleet.endpoint.calls == calls + 12
    begun = [event["uuid"] for event in events if event["type"] == "task-received"]
    assert sorted(begun) == sorted(tasks)


def test_those_of_a_task_an_error_or_an_age_are_meant(failures: Failures) -> None:
    """Each alone, and together."""
    now_s = time.time()
    letters = [
        Found(str(number), kept.found(written("persona", b"{}", why, whole=True, task=task)).letter, b"")  # type: ignore[union-attr]
        for number, (why, task) in enumerate([("TimeLimitExceeded", "a"), ("PermanentModelError: x", "a"), ("KeyError", "b")])
    ]
    old = letters[0]._replace(letter=_aged(letters[0].letter, now_s - 600))
    meant = [old, *letters[1:]]
    assert [one.id for one in Choice(task="a").of(meant)] == ["0", "1"]
    assert [one.id for one in Choice(why="ModelError").of(meant)] == ["1"]
    assert [one.id for one in Choice(older_than_s=300).of(meant)] == ["0"]
    assert [one.id for one in Choice(newer_than_s=300).of(meant)] == ["1", "2"]
    assert Choice(task="b", older_than_s=300).of(meant) == []


def test_drop_count_and_mistakes(
    fleet: Fleet, failures: Failures, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tell(*words: str) -> dict[str, Any]:
        return document(fleet, capsys, monkeypatch, *words)

    failed(fleet, failures, 3)
    one = failures.all()[0]
    assert tell("count")["kept"] == 3
    assert tell("count")["ever"] >= 3
    for words, field in (
        (("retry",), "ID"),
        (("drop", "x", "--all"), "ID"),
        (("drop", one.id, "--older-than", "1"), "--older-than"),
        (("retry", "--all"), "--yes"),
        (("show", "0123456789ab"), "ID"),
    ):
        assert tell(*words)["error"]["field"] == field
    assert tell("drop", one.id) == {"dropped": 1, "gone": 0}
    assert tell("retry", one.id)["error"]["kind"] == "unknown_letter", "it has vanished: a sentence"
    assert tell("drop", "--all", "--older-than", "3600", "--yes") == {"dropped": 0, "gone": 0}
    assert tell("drop", "--all", "--yes") == {"dropped": 2, "gone": 0}
    assert tell()["failures"] == []


def test_what_another_try_could_not_mend_is_not_kept(fleet: Fleet, failures: Failures) -> None:
    """A request of a wrong shape, and a pattern; nor what has succeeded, or is tried again by itself."""
    for name, args in (("persona.process", [{"user_input": ""}]), ("cache.invalidate", ["["])):
        with pytest.raises(Exception, match=r"user_input|\["):
            fleet.app.send_task(name, args=args, queue="persona").get(timeout=20)
    fleet.endpoint.script(Fault("status", status=500, times=1))
    assert fleet.ask_plain(f"And then? {time.time_ns()}", KEY).content
    (task,) = failed(fleet, failures, 1)
    assert [one.letter.task_id for one in failures.all()] == [task]


@pytest.mark.long
def test_a_long_one_is_cut_and_cannot_be_tried_again(fleet: Fleet, failures: Failures) -> None:
    failed(fleet, failures, 1, words="가" * 7900)
    (one,) = failures.all()
    assert not one.letter.whole
    assert len(one.letter.item) == MAX_ITEM_CHARS
    done = persona(fleet, "retry", one.id)
    assert done.returncode == 1
    assert "(cut)" in persona(fleet).stdout
    assert "their senders have to send them again" in done.stderr
    assert failures.count() == 1


def test_they_are_bounded_and_have_an_end(fleet: Fleet, failures: Failures, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go; a task that fails once more has one letter; no key is without an end."""
    monkeypatch.setattr(kept, "MAX_FAILURES", 3)
    for number in [*range(5), 4]:
        kept.keep(fleet.queue, f"task-{number}", written("persona", b"{}", "KeyError", whole=True, task_id=f"task-{number}"))
    assert [one.letter.task_id for one in failures.all()] == ["task-4", "task-3", "task-2"]
    names = [name for name in fleet.queue.keys(f"{FAILURES}*") if name != kept.FAILURES_COUNT]
    assert len(names) == 4
    assert all(0 < fleet.queue.ttl(name) <= FAILURES_TTL_S for name in names)


def test_a_task_is_queued_as_if_it_had_never_been_tried(fleet: Fleet, failures: Failures) -> None:
    """To a queue that there is, whatever its message names."""
    headers = {"retries": 2, "eta": "2001-01-01T00:00:00", "expires": "2001-01-01T00:00:00", PUBLISHED_HEADER: 1.0}
    request = PersonaRequest.create(f"Late? {time.time_ns()}", KEY)
    item = envelope(whole(request.to_wire()), id="late", **headers)
    kept.keep(fleet.queue, "late", written("elsewhere", item, "KeyError", whole=True, task_id="late"))
    assert failures.retry(failures.all()) == {"queued": 1, "gone": 0, "cut": 0}
    assert answers_of([AsyncResult("late", app=fleet.app)])
    assert not fleet.queue.exists("elsewhere")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_thousand_that_failed_with_their_model_are_tried_again_in_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """The model's endpoint refuses for ten seconds under load; then all that failed is tried again at once. Each of the tasks is
    answered, and once."""
    with Fleet(concurrency=8, pool="threads") as fleet, closing(make_app(load_settings(fleet.environ))) as app:
        bound_waits(app)
        failures = Failures(app)
        fleet.ask_plain("First?", KEY)
        with captured_events(fleet.app) as events:
            fleet.endpoint.script(REFUSED)
            began_s = time.monotonic()
            tasks: list[str] = []
            while len(tasks) < 1000 or time.monotonic() - began_s < 10:
                until(lambda: time.monotonic() - began_s > len(tasks) / 100, "it is time for some more")
                for _ in range(10):
                    tasks.append(send_plain(fleet.app, PersonaRequest.create(f"How, {len(tasks)}?", KEY)).id)
            until(lambda: failures.count() == len(tasks), "all have failed", bound_s=200)
            fleet.endpoint.script(Fault())
            letters = failures.all()
            again_s = time.monotonic()
            assert failures.retry(letters) == {"queued": len(letters), "gone": 0, "cut": 0}
            took_s = time.monotonic() - again_s
            until(lambda: answered(fleet, tasks), "all are answered", bound_s=200)
            answered_s = time.monotonic() - again_s
        with capsys.disabled():
            sys.stdout.write(f"\n{len(letters)} failed tasks queued anew in {took_s:.2f} s, answered in {answered_s:.1f} s\n")
        ended = [event["uuid"] for event in events if event["type"] == "task-succeeded"]
        assert sorted(ended) == sorted(tasks)
        assert len(letters) == len(tasks) >= 1000
        assert failures.count() == 0


@pytest.mark.long
def test_without_claims_a_failed_task_is_kept_whole_too() -> None:
    with Fleet(environ={"PERSONA_FETCH": "pop"}) as fleet, closing(make_app(load_settings(fleet.environ))) as app:
        bound_waits(app)
        failures = Failures(app)
        tasks = failed(fleet, failures, 1)
        assert failures.retry(failures.all())["queued"] == 1
        until(lambda: answered(fleet, tasks), "it is answered")


@pytest.mark.long
def test_a_task_beyond_its_time_limit_is_kept(fleet: Fleet, failures: Failures) -> None:
    fleet.endpoint.script(Fault("hang"))
    request = PersonaRequest.create(f"Slow? {time.time_ns()}", KEY)
    limits = {"soft_time_limit": 1, "time_limit": 60}
    task = fleet.app.send_task("persona.process", args=[request.to_wire()], queue="persona", **limits)
    with pytest.raises(Exception, match="TimeLimitExceeded"):
        task.get(timeout=60)
    until(lambda: failures.count() == 1, "it is kept")
    assert failures.all()[0].letter.why == "SoftTimeLimitExceeded"


@pytest.mark.long
@pytest.mark.parametrize("limits", [{"time_limit": 2}, {"time_limit": 2, "soft_time_limit": 30}], ids=str)
def test_a_hard_limit_below_the_soft_one_holds(limits: dict[str, int], fleet: Fleet, failures: Failures) -> None:
    """Also below that of the task itself, which is 75 s; Celery alone would let it run until then."""
    fleet.endpoint.script(Fault("hang"))
    request = PersonaRequest.create(f"Endless? {time.time_ns()}", KEY)
    began_s = time.monotonic()
    task = fleet.app.send_task("persona.process", args=[request.to_wire()], queue="persona", **limits)
    with pytest.raises(Exception, match="TimeLimitExceeded"):
        task.get(timeout=60)
    assert time.monotonic() - began_s < 20
    fleet.endpoint.script(Fault())
    until(lambda: failures.count() == 1, "it is kept")


@pytest.mark.long
def test_a_task_that_ends_its_process_is_kept_when_it_is_given_up() -> None:
    """Not after each death, of which the next try is the cure."""
    with Fleet(concurrency=1) as fleet, closing(make_app(load_settings(fleet.environ))) as app:
        bound_waits(app)
        failures = Failures(app)
        fleet.ask_plain("First?", KEY)
        fleet.endpoint.script(Fault("hang"))
        task = send_plain(fleet.app, PersonaRequest.create("Deadly?", KEY))
        for _ in range(3):
            calls = fleet.endpoint.calls
            until(lambda calls=calls: fleet.endpoint.calls > calls, "it runs")  # type: ignore[misc]
            assert failures.count() == 0
            fleet.node.kill_child()
        with pytest.raises(Exception, match="exited"):
            task.get(timeout=30)
        until(lambda: failures.count() == 1, "it is kept")
        assert failures.all()[0].letter.why == "WorkerLostError"


def _aged(letter: Any, at: float) -> Any:
    import msgspec

    return msgspec.structs.replace(letter, at=at)


def test_flower_tells_prometheus_how_many_are_kept(fleet: Fleet, failures: Failures) -> None:
    failed(fleet, failures, 2)
    with FlowerServer(broker_url=fleet.broker.url, cache_url=fleet.cache.url) as flower:
        families = text_string_to_metric_families(flower.ask("/metrics").text)
        found = {sample.name: sample.value for family in families for sample in family.samples}
    assert found["persona_failed_tasks"] == 2

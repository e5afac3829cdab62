"""What users write and are told stays between them and the model: no log, event or inspection shows it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fleet import API_KEY, Fleet, bare_app, captured_events
from polling import until

from benchmarks.kit.endpoint import Fault
from pipeline.errors import PermanentModelError

CANARY = "Kanarienvogel"
KEY = "anxious-medium-validation"
REQUEST: dict[str, Any] = {
    "user_input": f"My secret is {CANARY}-input.",
    "resonance_key": KEY,
    "context": {
        "user_id": f"{CANARY}-id",
        "user_name": f"{CANARY}-name",
        "history": [{"role": "user", "content": f"{CANARY}-history"}],
    },
}


@pytest.fixture(scope="module", params=["prefork", pytest.param("threads", marks=pytest.mark.long)])
def quiet_fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """A node of its own: its whole log is searched."""
    with Fleet(pool=request.param) as fleet:
        yield fleet


def numbered(number: int) -> dict[str, Any]:
    return {**REQUEST, "user_input": f"{REQUEST['user_input']} {number}"}


def assert_absent(shown: object, where: str) -> None:
    text = str(shown)
    for secret in (CANARY, API_KEY):
        assert secret not in text, f"{where} shows {secret!r}: ...{text[max(0, text.index(secret) - 300) :][:600]}"


def test_no_log_event_or_inspection_shows_what_was_asked_and_answered(quiet_fleet: Fleet) -> None:
    """Also of a sender that writes its arguments into the message's `argsrepr`, as every plain Celery program does."""
    fleet = quiet_fleet
    with captured_events(fleet.app) as events:
        fleet.endpoint.script(Fault("hang"))
        inspect = fleet.app.control.inspect([fleet.node.name])
        later = fleet.app.send_task("persona.process", args=[REQUEST], countdown=4)
        until(lambda: any((inspect.scheduled() or {}).values()), "one waits for its time")
        # Each asks something else: equal requests are one computation, and would keep one slot busy.
        foreign = [fleet.app.send_task("persona.process", args=[numbered(number)]) for number in range(2)]
        ours = [fleet.client.submit(**numbered(number)) for number in range(2, 4)]
        until(lambda: fleet.endpoint.calls >= 2, "the slots are busy")
        tasks = 0
        for name in ("active", "reserved", "scheduled", "stats", "conf", "registered"):
            reply = getattr(inspect, name)()
            assert reply, name
            assert_absent(reply, f"inspect {name}")
            tasks += sum(map(len, reply.values())) if name in ("active", "reserved", "scheduled") else 0
        assert tasks >= 3, "there was something to show"
        assert_absent(inspect.query_task([result.id for result in foreign]), "inspect query_task")
        fleet.endpoint.script(Fault())
        answers = [*(result.get(timeout=20)["content"] for result in (*foreign, later)), *(t.result(20).content for t in ours)]
        until(lambda: [event["type"] for event in events].count("task-succeeded") == 5, "all have succeeded")
    assert all(f"{CANARY}-input" in answer for answer in answers), "the caller has the answer itself"
    assert_absent(events, "an event")
    assert_absent(fleet.node.log(), "the log")


def test_neither_a_retry_nor_a_failure_shows_it(quiet_fleet: Fleet) -> None:
    """Errors quote much: the endpoint's own message, the arguments of a retry, a traceback."""
    fleet = quiet_fleet
    echo = f"bad prompt: {REQUEST['user_input']} key {API_KEY}"
    request = {**REQUEST, "user_input": f"Another secret is {CANARY}."}
    with captured_events(fleet.app) as events:
        fleet.endpoint.script(Fault("status", status=503, times=2, message=echo))
        assert CANARY in fleet.client.ask(**request).content
        fleet.endpoint.script(Fault("status", status=400, times=1, message=echo))
        with pytest.raises(PermanentModelError) as failed:
            fleet.client.ask(**{**request, "user_input": f"A third one is {CANARY}."})
        until(lambda: any(event["type"] == "task-failed" for event in events), "the failure is told")
    assert any(event["type"] == "task-retried" for event in events)
    assert_absent(failed.value, "the error")
    assert_absent(events, "an event")
    assert_absent(fleet.node.log(), "the log")


@pytest.mark.parametrize(
    "bad",
    [
        {"user_input": "x", "resonance_key": f"{CANARY} and more"},
        {"user_input": "x", "resonance_key": KEY, "context": {"user_id": f" {CANARY}"}},
        {"user_input": "x", "resonance_key": KEY, f"{CANARY}": 1},
        {"user_input": "x", "resonance_key": KEY, "context": {"history": [{"role": CANARY, "content": "x"}]}},
    ],
    ids=["key", "user id", "field", "role"],
)
def test_a_refused_request_is_quoted_to_its_sender_alone(bad: dict[str, Any], quiet_fleet: Fleet) -> None:
    """A sender who mixes up two fields puts a user's words where the error quotes them."""
    fleet = quiet_fleet
    with captured_events(fleet.app) as events:
        sent = fleet.app.send_task("persona.process", args=[bad])
        with pytest.raises(Exception, match=CANARY):
            sent.get(timeout=20)
        until(lambda: any(event["type"] == "task-failed" for event in events), "the failure is told")
    assert_absent(events, "an event")
    assert_absent(fleet.node.log(), "the log")


@pytest.mark.parametrize("serializer", ["json", "yaml"])
def test_a_message_that_the_worker_cannot_take_is_not_printed(serializer: str, quiet_fleet: Fleet) -> None:
    """Celery prints the body of a message that it drops: of an unknown task, as an older release meets it, and of a foreign
    encoding."""
    fleet = quiet_fleet
    seen = len(fleet.node.log())
    if serializer == "json":
        fleet.app.send_task("persona.tomorrow", args=[REQUEST], queue="persona")
    else:
        with bare_app(fleet.broker.url) as app, app.connection_for_write() as connection:
            connection.SimpleQueue("persona").put(b"{" + CANARY.encode(), content_type="application/json")
    until(lambda: len(fleet.node.log()) > seen and fleet.queued() + fleet.queued("celery") + fleet.claimed() == 0, "it is gone")
    assert fleet.ask_plain("Are you still there?", KEY).persona
    assert_absent(fleet.node.log(), "the log")

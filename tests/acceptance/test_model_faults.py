"""An endpoint that fails, refuses or hangs: what passes is tried again, what does not fails at once, nothing lasts for ever."""

from __future__ import annotations

import time

import pytest
from fleet import API_KEY, Fleet, captured_events
from polling import until

from benchmarks.kit.endpoint import Fault
from pipeline.errors import PermanentModelError, TransientModelError

KEY = "anxious-medium-validation"


def test_an_endpoint_that_recovers_costs_a_retry_and_no_answer(fleet: Fleet, question: str) -> None:
    """The task is tried again by Celery, after a pause, and the caller sees but the answer."""
    calls = fleet.endpoint.calls
    fleet.endpoint.script(Fault("status", status=500, times=2))
    with captured_events(fleet.app) as events:
        answer = fleet.client.ask(question, KEY)
    assert question in answer.content
    assert fleet.endpoint.calls == calls + 3
    assert [event["type"] for event in events].count("task-retried") == 1


def test_an_endpoint_that_refuses_the_key_fails_the_request_at_once(fleet: Fleet, question: str) -> None:
    """One call, no retry, and the error says which variable to look at, but never its value."""
    calls = fleet.endpoint.calls
    fleet.endpoint.script(Fault("status", status=401, message=f"Incorrect API key provided: {API_KEY}"))
    with captured_events(fleet.app) as events:
        with pytest.raises(PermanentModelError, match="PERSONA_LLM_API_KEY") as failed:
            fleet.client.ask(question, KEY)
        until(lambda: any(event["type"] == "task-failed" for event in events), "the failure is told")
    assert fleet.endpoint.calls == calls + 1
    assert not [event for event in events if event["type"] == "task-retried"]
    assert API_KEY not in str(failed.value)


def test_an_error_is_not_cached(fleet: Fleet, question: str) -> None:
    """The next request after an outage is answered, and by the model."""
    fleet.endpoint.script(Fault("status", status=403, times=1))
    with pytest.raises(PermanentModelError):
        fleet.client.ask(question, KEY)
    answers = [fleet.client.ask(question, KEY) for _ in range(2)]
    assert answers[0].cached == "no"
    assert answers[1].cached in ("l1", "l2")


def test_a_hung_endpoint_is_given_up_at_the_deadline_and_the_worker_goes_on(question: str) -> None:
    """No request waits for ever, the error says what happened, and the child is free for the next one."""
    with Fleet(concurrency=1, environ={"PERSONA_LLM_TIMEOUT_S": "1"}) as fleet:
        fleet.client.ask(question + "!", KEY)  # the first one pays for imports
        fleet.endpoint.script(Fault("hang"))
        calls = fleet.endpoint.calls
        began = time.monotonic()
        ticket = fleet.client.submit(question, KEY)
        with pytest.raises(TransientModelError, match="no whole answer within the deadline") as failed:
            ticket.result(40)
        # Three tries of a second, and the pauses of at most 2 and 10 s between them.
        assert time.monotonic() - began < 25
        assert "PERSONA_LLM_TIMEOUT_S" in str(failed.value)
        assert fleet.endpoint.calls == calls + 3
        fleet.endpoint.script(Fault())
        again = fleet.client.ask(question, KEY)
        assert (again.cached, question in again.content) == ("no", True)

"""Programs that ask: one request, many in order, no worker to answer, and no broker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count

import pytest
import redis
from fleet import Fleet, captured_events, persona_environ
from polling import until
from servers import ValkeyServer, free_port

from benchmarks.kit.endpoint import Fault
from pipeline.errors import InvalidRequestError, PermanentModelError
from pipeline.models import PersonaRequest
from pipeline.settings import load_settings
from workers.client import PersonaClient, Progress
from workers.queue.errors import AnswerTimeoutError, QueueUnavailableError

KEY = "curious-flowing-learning"
PASSWORD = "correct-horse"


def requests_of(question: str, number: int) -> list[PersonaRequest]:
    return [PersonaRequest.create(f"{question} {index}", KEY) for index in range(number)]


@pytest.mark.parametrize("fault", ["kill", pytest.param("freeze", marks=pytest.mark.long)])
def test_without_the_caches_server_the_client_has_its_own_and_asks_the_workers_for_the_rest(fault: str, question: str) -> None:
    """Promise 7, where the program that asks looks first: nothing raises, it says so, and it heals by itself."""
    with Fleet(concurrency=1) as fleet:
        assert [fleet.client.ask(question, KEY).cached for _ in range(3)] == ["no", "l2", "l1"]
        getattr(fleet.cache, fault)()
        until(lambda: fleet.client.ask(question, KEY).degraded, "L1 is served unconfirmed")
        known, unknown = fleet.client.ask(question, KEY), fleet.client.ask(question + "!", KEY)
        assert (known.cached, known.degraded) == ("l1", True)
        assert (unknown.cached, unknown.degraded) == ("no", True)
        fleet.cache.thaw() if fault == "freeze" else fleet.cache.start()
        # The client and the worker recover each by itself.
        fresh = (f"{question} {number}" for number in count())
        until(lambda: _found_again(fleet, next(fresh)), "the client finds what the worker has left in Redis")


def _found_again(fleet: Fleet, question: str) -> bool:
    first, second = (fleet.client.ask(question, KEY) for _ in range(2))
    return (first.cached, first.degraded, second.cached, second.degraded) == ("no", False, "l2", False)


def test_where_a_result_goes_to_its_sender_alone_nobody_joins(question: str) -> None:
    """With results by `rpc://` each caller queues its own task, rather than wait for a result that never comes. The model is
    asked once."""
    with (
        Fleet(concurrency=3, delay_ms=300, environ={"PERSONA_RESULT_URL": "rpc://"}) as fleet,
        PersonaClient(load_settings(fleet.environ)) as other,
    ):
        tickets = [client.submit(question, KEY) for client in (fleet.client, other, other)]
        assert [ticket.source for ticket in tickets] == ["no"] * 3
        assert all(question in ticket.result(20).content for ticket in tickets)
        assert fleet.endpoint.calls == 1


def test_many_requests_come_back_in_order_with_errors_beside_answers(fleet: Fleet, question: str) -> None:
    """One that fails does not end the others, and the progress adds up."""
    requests = requests_of(question, 30)
    fleet.client.ask(requests[3].user_input, KEY)
    seen: list[Progress] = []
    outcomes = []
    for outcome in fleet.client.map(requests, concurrency=1, on_progress=seen.append):
        outcomes.append(outcome)
        # With one on its way at a time, this meets the 11th.
        fleet.endpoint.script(Fault("status", status=401) if outcome.index == 9 else Fault())
    assert [outcome.index for outcome in outcomes] == list(range(30))
    for outcome in outcomes:
        assert outcome.request is requests[outcome.index]
        assert (outcome.response is None) == (outcome.index == 10) == (outcome.error is not None)
        assert outcome.response is None or f"{question} {outcome.index}" in outcome.response.content
    assert isinstance(outcomes[10].error, PermanentModelError)
    assert [progress.done for progress in seen] == list(range(1, 31))
    assert seen[-1] == Progress(done=30, failed=1, cached=1, total=30)


def test_a_long_source_is_taken_no_faster_than_answers_come(fleet: Fleet, question: str) -> None:
    """Memory stays bounded, however many requests there are, and so does the queue."""
    fleet.endpoint.script(Fault(delay_ms=10))
    taken = 0

    def source() -> Iterator[PersonaRequest]:
        nonlocal taken
        for request in requests_of(question, 60):
            taken += 1
            yield request

    most = 0
    totals = set()
    for done, _ in enumerate(fleet.client.map(source(), concurrency=8, on_progress=lambda p: totals.add(p.total))):
        most = max(most, taken - done)
        assert fleet.queued() <= 8
    assert (taken, most) == (60, 8)
    assert totals == {None}


def test_leaving_early_takes_back_what_has_not_begun(fleet: Fleet, question: str) -> None:
    """No caller waits for the rest: the model is not asked for it."""
    fleet.endpoint.script(Fault(delay_ms=300))
    calls = fleet.endpoint.calls
    with captured_events(fleet.app) as events:
        outcomes = fleet.client.map(requests_of(question, 40), concurrency=20)
        assert next(outcomes).index == 0
        outcomes.close()  # type: ignore[attr-defined]  # it is a generator: that is what a `break` comes to
        until(lambda: fleet.queued() + fleet.claimed() == 0, "the queue is empty")
    begun = {event["uuid"] for event in events if event["type"] == "task-started"}
    taken_back = {event["uuid"] for event in events if event["type"] == "task-revoked"}
    assert len(begun | taken_back) == 20, "no more than 20 were on their way"
    assert len(taken_back) >= 10
    assert fleet.endpoint.calls - calls == len(begun)


def test_with_nobody_to_answer_the_error_names_the_queue(valkey: ValkeyServer) -> None:
    """The caller learns what to look at, in the time that it gave."""
    settings = load_settings(persona_environ(broker_url=valkey.url_of(10)))
    with PersonaClient(settings) as client:
        began = time.monotonic()
        with pytest.raises(AnswerTimeoutError, match=r"within 0\.5 s.*'persona\.bulk'"):
            client.submit("Is there anybody?", KEY, queue="persona.bulk").result(0.5)
        assert time.monotonic() - began < 3
        with closing(redis.Redis.from_url(valkey.url_of(10))) as queue:
            assert queue.llen("persona.bulk") == 1


def test_without_a_broker_the_caller_learns_it_within_seconds(question: str) -> None:
    """Bounded, clear, and without the password; another try is safe."""
    url = f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0"
    with PersonaClient(load_settings(persona_environ(broker_url=url))) as client:
        began = time.monotonic()
        with pytest.raises(QueueUnavailableError, match="is it running") as failed:
            client.ask(question, KEY)
        assert time.monotonic() - began < 6
        assert PASSWORD not in str(failed.value)


@pytest.mark.parametrize("fault", ["freeze", pytest.param("kill", marks=pytest.mark.long)])
def test_a_broker_that_goes_away_ends_the_wait_and_its_return_mends_the_client(fault: str, question: str) -> None:
    """A wait is bounded, whatever the broker does; cached answers are given, and the same client goes on when the broker is
    back."""
    with Fleet(concurrency=1) as fleet:
        assert fleet.client.ask(question, KEY).cached == "no"
        fleet.endpoint.script(Fault("hang"))
        ticket = fleet.client.submit(question + "!", KEY)
        until(lambda: fleet.endpoint.calls == 2, "it is being answered")
        getattr(fleet.broker, fault)()
        began = time.monotonic()
        with pytest.raises((AnswerTimeoutError, QueueUnavailableError)):
            ticket.result(1)
        with pytest.raises(QueueUnavailableError):
            _ = ticket.done
        with pytest.raises(QueueUnavailableError):
            fleet.client.ask(question + "?", KEY)
        assert fleet.client.ask(question, KEY).cached == "l2"
        assert time.monotonic() - began < 15
        fleet.endpoint.script(Fault())
        fleet.broker.thaw() if fault == "freeze" else fleet.broker.start()
        fresh = (f"{question} {number}" for number in count())
        until(lambda: _answers(fleet, next(fresh)), "the same client is answered again", bound_s=40)


def _answers(fleet: Fleet, question: str) -> bool:
    try:
        return fleet.client.ask(question, KEY, timeout_s=5).cached == "no"
    except (AnswerTimeoutError, QueueUnavailableError):
        return False


def test_a_request_of_wrong_settings_is_not_sent(fleet: Fleet) -> None:
    """Too many at a time is a mistake of the program, and so is 0."""
    with pytest.raises(ValueError, match="concurrency: 0"):
        next(fleet.client.map([], concurrency=0))
    with pytest.raises(InvalidRequestError, match="resonance_key"):
        fleet.client.submit("x", "nonsense")

"""The producer's fast path: hits without a queue hop, tasks that are shared, tickets that say where an answer comes from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import msgspec
import pytest
from fleet import Fleet, bare_app, send_plain
from polling import until

from benchmarks.kit.endpoint import Fault
from pipeline.errors import PermanentModelError, TransientModelError
from pipeline.models import PersonaRequest
from pipeline.settings import load_settings
from workers.client import PersonaClient
from workers.client.ticket import Ticket
from workers.queue.errors import AnswerExpiredError, AnswerFailedError, AnswerTimeoutError
from workers.queue.names import MAINTENANCE_QUEUE

KEY = "curious-flowing-learning"
SHORT_L1 = {"PERSONA_L1_MAX_TTL_S": "0.05"}
"""No process holds what a test makes old in Redis."""


@pytest.fixture
def other(fleet: Fleet) -> Iterator[PersonaClient]:
    """Another program that asks."""
    with PersonaClient(load_settings(fleet.environ)) as client:
        yield client


def test_a_hit_needs_no_task(fleet: Fleet, other: PersonaClient, question: str) -> None:
    """From Redis once, then from this process; each ticket says so at once and is done."""
    assert fleet.client.ask(question, KEY).cached == "no"
    tickets = [other.submit(question, KEY) for _ in range(3)]
    assert [ticket.source for ticket in tickets] == ["l2", "l1", "l1"]
    assert all(ticket.done and ticket.task_id is None for ticket in tickets)
    for ticket in tickets:
        ticket.revoke()
        assert ticket.result(0).cached == ticket.source
    assert tickets[0].result().content == tickets[1].result().content
    assert tickets[0].result().execution_time_ms > 0


def test_equal_requests_share_the_task_that_runs(fleet: Fleet, other: PersonaClient, question: str) -> None:
    """Also from another program; one model call; and each caller is told its own time."""
    calls = fleet.endpoint.calls
    fleet.endpoint.script(Fault(delay_ms=400, times=1))
    first = fleet.client.submit(question, KEY)
    joined = [client.submit(question, KEY) for client in (other, fleet.client, other)]
    assert (first.source, [ticket.source for ticket in joined]) == ("no", ["joined"] * 3)
    assert {ticket.task_id for ticket in joined} == {first.task_id}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda ticket: ticket.result(20), [first, *joined]))
    assert [answer.cached for answer in answers] == ["no", "joined", "joined", "joined"]
    assert len({answer.content for answer in answers}) == 1
    assert fleet.endpoint.calls == calls + 1
    until(lambda: other.submit(question, KEY).source in ("l1", "l2"), "nobody joins a task that has ended")


def test_a_task_that_is_queued_is_joined_too(question: str) -> None:
    """Before any worker has it."""
    with Fleet(nodes=0) as fleet:
        tickets = [fleet.client.submit(question, KEY) for _ in range(5)]
        assert [ticket.source for ticket in tickets] == ["no"] + ["joined"] * 4
        assert fleet.queued() == 1
        fleet.add_node()
        assert len({ticket.result(20).content for ticket in tickets}) == 1


def test_an_invalidation_forbids_joining_what_was_begun_before(fleet: Fleet, other: PersonaClient, question: str) -> None:
    """A caller that asks after it gets an answer that was computed after it."""
    fleet.endpoint.script(Fault("hang", times=1))
    calls = fleet.endpoint.calls
    before = fleet.client.submit(question, KEY)
    until(lambda: fleet.endpoint.calls == calls + 1, "it is being answered")
    other.invalidate("persona:*")
    after = other.submit(question, KEY)
    assert after.source == "no"
    assert other.submit(question, KEY).task_id == after.task_id
    assert after.result(20).cached == "no"
    assert before.task_id != after.task_id
    fleet.endpoint.release()


def test_without_the_cache_every_request_is_a_task_of_its_own(fleet: Fleet, question: str) -> None:
    tickets = [fleet.client.submit(question, KEY, use_cache=False) for _ in range(3)]
    assert {ticket.source for ticket in tickets} == {"no"}
    assert len({ticket.task_id for ticket in tickets}) == 3
    assert {ticket.result(20).cached for ticket in tickets} == {"no"}


def test_no_user_joins_or_hits_another_ones_request(fleet: Fleet, other: PersonaClient, question: str) -> None:
    """Equal words, another user: another key."""
    fleet.endpoint.script(Fault(delay_ms=200))
    mine, yours = (client.submit(question, KEY, {"user_id": user}) for client, user in ((fleet.client, "u1"), (other, "u2")))
    assert (mine.source, yours.source) == ("no", "no")
    mine.result(20)
    assert other.submit(question, KEY, {"user_id": "u1"}).source == "l2"
    assert other.submit(question, KEY, {"user_id": "u3"}).source == "no"
    yours.result(20)


def test_revoking_a_shared_task_hurts_nobody(question: str) -> None:
    """Neither by a caller that joined it nor by its owner; a task that no other caller shares is taken back."""
    with Fleet(nodes=0) as fleet, PersonaClient(load_settings(fleet.environ)) as busy:
        fleet.endpoint.script(Fault("hang", times=1))
        blocker = busy.submit(question + " first", KEY)
        fleet.add_node(concurrency=1)
        until(lambda: fleet.endpoint.calls == 1, "the only child is busy")
        owner, joined, alone = (fleet.client.submit(text, KEY) for text in (question, question, question + "!"))
        joined.revoke()
        owner.revoke()
        alone.revoke()
        fleet.endpoint.release()
        assert joined.result(20).cached == "joined"
        assert owner.result(20).content == joined.result(20).content
        with pytest.raises(AnswerFailedError, match="Revoked"):
            alone.result(20)
        with suppress(AnswerFailedError, TransientModelError):
            blocker.result(20)


def test_a_task_that_somebody_else_revokes_by_its_id_is_asked_for_anew(fleet: Fleet, other: PersonaClient, question: str) -> None:
    """Its owner hears that it was revoked; the callers that had joined it are answered."""
    fleet.endpoint.script(Fault("hang", times=2))
    calls = fleet.endpoint.calls
    blockers = [fleet.client.submit(f"{question} {number}", KEY, use_cache=False) for number in range(2)]
    until(lambda: fleet.endpoint.calls == calls + 2, "both children are busy")
    owner = fleet.client.submit(question, KEY)
    joined = other.submit(question, KEY)
    fleet.app.control.revoke(owner.task_id, reply=True, timeout=2)
    fleet.endpoint.release()
    with pytest.raises(AnswerFailedError, match="Revoked"):
        owner.result(20)
    assert joined.result(20).content
    for each in blockers:
        with suppress(AnswerFailedError, AnswerTimeoutError):
            each.result(20)


def test_a_joined_task_that_was_lost_is_sent_anew(fleet: Fleet, other: PersonaClient, question: str) -> None:
    """Such as one whose sender died before it had queued it: its record ends, and the waiting callers go on by themselves."""
    seek = other.pipeline.seek(PersonaRequest.create(question, KEY))
    assert fleet.client.cache.in_flight is not None
    assert fleet.client.cache.in_flight.enter(seek.key, seek.deps, "a-task-that-never-was") is None
    ticket = other.submit(question, KEY)
    assert (ticket.source, ticket.task_id) == ("joined", "a-task-that-never-was")
    fleet.client.cache.in_flight.leave(seek.key, "a-task-that-never-was")
    assert ticket.result(20).cached == "no"
    assert ticket.task_id != "a-task-that-never-was"


def test_a_failure_is_everybodys_and_is_not_kept(fleet: Fleet, other: PersonaClient, question: str) -> None:
    fleet.endpoint.script(Fault("status", status=401, delay_ms=300, times=1))
    tickets = [client.submit(question, KEY) for client in (fleet.client, other)]
    for ticket in tickets:
        with pytest.raises(PermanentModelError):
            ticket.result(20)
    assert other.ask(question, KEY).cached == "no"


def test_an_answer_past_its_time_is_served_and_refreshed_by_one_task(question: str) -> None:
    """For any caller: a program, or a worker with a plain task."""
    with Fleet(environ=SHORT_L1) as fleet:
        old = fleet.client.ask(question, KEY)
        age(fleet.client, question)
        fleet.endpoint.script(Fault(delay_ms=500))
        served = [fleet.client.ask(question, KEY) for _ in range(3)]
        assert [answer.cached for answer in served] == ["stale"] * 3
        until(lambda: fleet.ask_plain(question, KEY).cached in ("stale", "l2"), "no child holds it any more")
        assert {answer.content for answer in served} == {old.content}
        until(lambda: fleet.client.ask(question, KEY).cached in ("l1", "l2"), "it was computed anew")
        assert fleet.endpoint.calls == 2
        assert fleet.queued(MAINTENANCE_QUEUE) == 0


def test_when_the_model_fails_the_last_good_answer_is_served_unless_it_was_invalidated(question: str) -> None:
    """The refresh fails unseen; `max_age_s=0` asks for nothing old, and has the failure."""
    with Fleet(concurrency=1, environ=SHORT_L1) as fleet:
        old = fleet.client.ask(question, KEY)
        age(fleet.client, question)
        fleet.endpoint.script(Fault("status", status=401))
        until(lambda: fleet.ask_plain(question, KEY).cached == "stale", "the child holds it no more")
        for answer in (fleet.client.ask(question, KEY), fleet.ask_plain(question, KEY)):
            assert (answer.cached, answer.content) == ("stale", old.content)
        with pytest.raises(PermanentModelError):
            fleet.client.ask(question, KEY, max_age_s=0)
        fleet.client.invalidate("persona:*", wait_s=5)
        with pytest.raises(PermanentModelError):
            fleet.client.ask(question, KEY)


def test_a_ticket_whose_result_expired_says_so(question: str) -> None:
    """It was there for as long as results are kept; waiting for longer would be in vain."""
    with Fleet(nodes=0, environ={"PERSONA_RESULT_TTL_S": "1", "PERSONA_LEASE_S": "1", "PERSONA_STALE_GRACE_S": "1"}) as fleet:
        ticket = fleet.client.submit(question, KEY, use_cache=False)
        time.sleep(1.2)  # the life of a result; it will never be written
        began = time.monotonic()
        with pytest.raises(AnswerExpiredError, match="PERSONA_RESULT_TTL_S"):
            ticket.result(60)
        assert time.monotonic() - began < 10


def test_outcomes_come_as_they_are_ready(fleet: Fleet, question: str) -> None:
    """A slow one holds up no other; errors and hits come beside the others; every one comes once."""
    fleet.client.ask(question + " 3", KEY)
    requests = [PersonaRequest.create(f"{question} {number}", KEY) for number in range(12)]
    fleet.endpoint.script(Fault(delay_ms=700, times=1))
    outcomes = list(fleet.client.map(requests, concurrency=6, ordered=False))
    assert sorted(outcome.index for outcome in outcomes) == list(range(12))
    assert outcomes[0].index != 0
    assert all(outcome.request is requests[outcome.index] for outcome in outcomes)
    assert all(outcome.response and f"{question} {outcome.index}" in outcome.response.content for outcome in outcomes)


def test_as_they_come_a_request_that_nobody_answers_ends_by_its_own_time(question: str) -> None:
    with Fleet(nodes=0) as fleet:
        requests = [PersonaRequest.create(f"{question} {number}", KEY) for number in range(3)]
        outcomes = list(fleet.client.map(requests, concurrency=3, timeout_s=0.5, ordered=False))
        assert [type(outcome.error) for outcome in outcomes] == [AnswerTimeoutError] * 3


def test_an_asyncio_program_is_not_held_up(fleet: Fleet, question: str) -> None:
    """Many wait at once while the loop goes on; errors and time-outs come as to any other caller."""

    async def program() -> tuple[list[str], int, list[Ticket]]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        fleet.endpoint.script(Fault(delay_ms=100))
        answers = await asyncio.gather(*(fleet.client.aask(f"{question} {number % 5}", KEY) for number in range(40)))
        tickets = [await fleet.client.asubmit(f"{question} 1", KEY) for _ in range(2)]
        fleet.endpoint.script(Fault("status", status=401, times=1))
        with pytest.raises(PermanentModelError):
            await fleet.client.aask(question + " fails", KEY)
        fleet.endpoint.script(Fault("hang", times=1))
        hanging = await fleet.client.asubmit(question + " hangs", KEY)
        with pytest.raises(AnswerTimeoutError, match=r"within 0\.3 s"):
            await hanging.aresult(0.3)
        fleet.endpoint.release()
        with suppress(TransientModelError):
            await hanging.aresult(20)
        ticking.cancel()
        for number, answer in enumerate(answers):
            assert f"{question} {number % 5}" in answer.content
        return [answer.cached for answer in answers], ticks, tickets

    calls = fleet.endpoint.calls
    sources, ticks, tickets = asyncio.run(program())
    assert sources.count("no") == 5
    assert set(sources) <= {"no", "joined", "l1", "l2"}
    assert fleet.endpoint.calls >= calls + 5
    assert ticks > 10
    assert [ticket.source for ticket in tickets][-1] == "l1"


def test_a_plain_producer_shares_the_computation_though_not_the_task(fleet: Fleet, other: PersonaClient, question: str) -> None:
    """A producer that knows nothing of all this costs no second model call: the worker's own single flight sees to it."""
    calls = fleet.endpoint.calls
    fleet.endpoint.script(Fault(delay_ms=400, times=1))
    foreign = bare_app(fleet.broker.url, fleet.broker.url_of(1))
    try:
        request = PersonaRequest.create(question, KEY)
        plain = [send_plain(foreign, request) for _ in range(2)]
        ticket = other.submit(question, KEY)
        cached = [each.get(timeout=20)["cached"] for each in plain] + [ticket.result(20).cached]
    finally:
        foreign.close()
    assert cached.count("no") == 1
    assert fleet.endpoint.calls == calls + 1


def age(client: PersonaClient, question: str) -> None:
    """Make the answer look to readers of Redis as if it had been computed past its time to live ago."""
    key = client.pipeline.seek(PersonaRequest.create(question, KEY)).key
    l2 = client.cache.l2
    assert l2 is not None
    raw, _ = l2.read(key)
    entry = l2.decode(key, raw)
    assert entry is not None
    l2.write(key, msgspec.structs.replace(entry, created_ms=entry.created_ms - entry.ttl_ms - 1000))
    client.cache.l1.clear()

"""Killed on purpose: an accepted task is answered by another try, or waits where another node will find it."""

from __future__ import annotations

from fleet import Fleet
from polling import until
from supervised import alive

from benchmarks.kit.endpoint import Fault
from pipeline.models import PersonaRequest
from workers.client import PersonaClient

KEY = "urgent-burst-problem_solving"


def test_a_request_whose_pool_child_is_killed_is_answered_by_another_try(question: str) -> None:
    """Promise 9: the caller waits longer, and notices nothing else."""
    with Fleet(concurrency=1) as fleet:
        fleet.endpoint.script(Fault("hang"))
        ticket = fleet.client.submit(question, KEY)
        until(lambda: fleet.endpoint.calls == 1, "the request is being answered")
        killed = fleet.node.kill_child()
        fleet.endpoint.script(Fault())
        # Celery may give the lost child 10 s to have finished after all; the caller looks for itself once its lease has run out.
        assert question in ticket.result(40).content
        assert fleet.endpoint.calls == 2
        assert killed not in fleet.node.pids
        until(lambda: fleet.claimed() + fleet.queued() == 0, "nothing is left")


def test_what_a_killed_node_had_begun_is_answered_by_another_one(question: str) -> None:
    """Its claim stays with the broker, and goes back to the queue when the node has not been heard of for 10 s."""
    with Fleet(concurrency=1) as fleet:
        fleet.endpoint.script(Fault("hang"))
        ticket = fleet.client.submit(question, KEY)
        until(lambda: fleet.endpoint.calls == 1, "the request is being answered")
        children = fleet.node.pids
        fleet.node.kill()
        until(lambda: fleet.claimed() == 1, "the message is with the broker")
        until(lambda: not any(alive(pid) for pid in children), "no child is left that would answer as well")
        fleet.endpoint.script(Fault())
        fleet.add_node()
        assert question in ticket.result(30).content
        until(lambda: fleet.claimed() + fleet.queued() == 0, "nothing is left")


def test_nobody_waits_for_a_killed_node_for_longer_than_its_lease(question: str) -> None:
    """Its message returns after 10 s. A caller that waits for it by then, its sender or one that joined, has it computed
    elsewhere; and a caller that asks after the node has gone does not join a task that will not end."""
    with Fleet(nodes=2, concurrency=1, environ={"PERSONA_LEASE_S": "1"}) as fleet, PersonaClient(fleet.client.settings) as other:
        fleet.endpoint.script(Fault("hang"))
        tickets = [fleet.client.submit(question, KEY)]
        until(lambda: fleet.endpoint.calls == 1, "the request is being answered")
        tickets.append(other.submit(question, KEY))
        assert [ticket.source for ticket in tickets] == ["no", "joined"]
        active = fleet.app.control.inspect(limit=2).active()
        next(node for node in fleet.nodes if [task["id"] for task in active[node.name]] == [tickets[0].task_id]).kill()
        fleet.endpoint.script(Fault())
        tickets.append(other.submit(question, KEY))
        for ticket in tickets:
            assert question in ticket.result(20).content
        assert fleet.endpoint.calls == 2


def test_a_node_that_is_told_to_end_finishes_what_runs_and_leaves_the_rest(question: str) -> None:
    """A deployment costs no caller its answer: TERM, and the supervisor waits."""
    with Fleet(concurrency=1, delay_ms=1000) as fleet:
        tickets = [fleet.client.submit(f"{question} {number}", KEY) for number in range(4)]
        until(lambda: fleet.endpoint.calls == 1, "the first is being answered")
        assert fleet.node.stop()
        assert fleet.node.exit_code == 0
        assert f"{question} 0" in tickets[0].result(5).content
        left = [ticket for ticket in tickets if not ticket.done]
        assert len(left) == fleet.queued() + fleet.claimed() >= 2
        fleet.endpoint.script(Fault(delay_ms=1))
        fleet.add_node()
        for number, ticket in enumerate(tickets):
            assert f"{question} {number}" in ticket.result(20).content
        assert fleet.endpoint.calls == len(tickets)


def test_a_broker_that_is_killed_and_returns_loses_nothing(question: str) -> None:
    """The worker reconnects by itself and goes on with the queue. Its running task has lost its connection to the message: it is
    given up, and goes back to the queue when the worker is connected again."""
    with Fleet(concurrency=1) as fleet:
        fleet.endpoint.script(Fault("hang"))
        running = fleet.client.submit(question, KEY)
        until(lambda: fleet.endpoint.calls == 1, "one is being answered")
        waiting = [fleet.client.submit(f"{question} {number}", KEY) for number in range(3)]
        fleet.broker.kill()
        # It cannot tell the result backend either.
        until(lambda: "results.state_dropped: RETRY" in fleet.node.log(), "it has given the request up")
        fleet.broker.start()
        fleet.endpoint.script(Fault())
        for number, ticket in enumerate(waiting):
            assert f"{question} {number}" in ticket.result(40).content
        assert question in running.result(30).content
        until(lambda: fleet.claimed() + fleet.queued() == 0, "nothing is left")
        assert fleet.node.running


def test_requests_in_flight_survive_a_broken_connection(question: str) -> None:
    """The network drops every connection of the worker at once; each request that runs is answered, to its own sender, and the
    worker goes on."""
    with Fleet(delay_ms=500) as fleet:
        requests = [PersonaRequest.create(f"{question} {number}", KEY) for number in range(2)]
        tickets = [fleet.client.submit_request(request) for request in requests]
        until(lambda: fleet.endpoint.calls >= 2 and fleet.queued() == 0, "both are being answered")
        for client in fleet.queue.client_list():
            if client["name"] == "persona-worker":
                fleet.queue.client_kill_filter(_id=client["id"])
        for number, ticket in enumerate(tickets):
            assert f"{question} {number}" in ticket.result().content
        later = [PersonaRequest.create(f"{question} later {number}", KEY) for number in range(4)]
        for outcome in fleet.client.map(later):
            assert outcome.response is not None, outcome.error
            assert f"{question} later {outcome.index}" in outcome.response.content

"""The fleet's own figures, held against the counts of the programs that load it."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from fleet import Fleet
from polling import until

from benchmarks.command import main as measure
from benchmarks.kit.endpoint import Fault
from pipeline.cache.server.connection import RedisConnection
from pipeline.errors import ModelError
from pipeline.figures import FigureKeys, FleetFigures, read_figures
from pipeline.figures.fields import REQUESTS
from pipeline.models import PersonaRequest
from pipeline.settings import load_settings
from workers.cli.terminal.fleet_view import _process
from workers.client import PersonaClient

CANARY = "Kanarienvogel"
KEYS = ("calm-flowing-learning", "urgent-medium-planning", "playful-burst-reflection")


def request_of(number: int, key: str | None = None) -> PersonaRequest:
    return PersonaRequest.create(f"{CANARY} {number}", key or KEYS[number % len(KEYS)])


@pytest.fixture(scope="module")
def counted_fleet() -> Iterator[Fleet]:
    """Two nodes of two children that log in JSON; a model that takes 20 ms."""
    with Fleet(nodes=2, concurrency=2, delay_ms=20, environ={"PERSONA_LOG": "json"}) as fleet:
        yield fleet


@pytest.fixture
def reader(counted_fleet: Fleet) -> Iterator[RedisConnection]:
    with closing(RedisConnection(counted_fleet.cache.url, timeout_s=5)) as connection:
        yield connection


def read(reader: RedisConnection) -> FleetFigures:
    figures = read_figures(reader, FigureKeys("persona"))
    assert figures.available
    return figures


class Load:
    """Several programs and their observations: answers by `cached`, and failures."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._lock = threading.Lock()
        self.seen: Counter[str] = Counter()

    def _saw(self, source: str) -> None:
        with self._lock:
            self.seen[source] += 1

    def ask_as_a_client(self, first: int) -> None:
        """A program of its own, with an L1 of its own. At its end it tells its counts."""
        with PersonaClient(load_settings(self._fleet.environ)) as client:
            for answered in client.map([request_of(first + number % 12) for number in range(60)], concurrency=8):
                self._saw(answered.response.cached if answered.response else "failed")

    def ask_without_a_line_of_ours(self) -> None:
        """Tasks, of which one in six is no request at all."""
        results = []
        for number in range(30):
            request: dict[str, Any] = request_of(number % 15).to_wire()
            if number % 6 == 5:
                request["resonance_key"] = "no-such-key"
            results.append(self._fleet.app.send_task("persona.process", args=[request]))
        for result in results:
            answer = result.get(timeout=30, propagate=False)
            self._saw(answer["cached"] if isinstance(answer, dict) else "failed")

    def run(self) -> None:
        threads = [threading.Thread(target=self.ask_as_a_client, args=(first,)) for first in (0, 0, 6)]
        threads.append(threading.Thread(target=self.ask_without_a_line_of_ours))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def test_the_figures_are_what_the_load_generators_counted(counted_fleet: Fleet, reader: RedisConnection) -> None:
    """Exactly, at rest, source by source: requests that became a task, joined another task, or never left their program."""
    before = read(reader).requests
    load = Load(counted_fleet)
    load.run()
    expected = {source: load.seen[source] + getattr(before, source) for source in REQUESTS}
    assert load.seen.total() == 3 * 60 + 30
    assert load.seen["failed"] == 5

    def told() -> dict[str, int]:
        requests = read(reader).requests
        return {source: getattr(requests, source) for source in REQUESTS}

    until(lambda: sum(told().values()) >= sum(expected.values()), "all is reported")
    assert told() == expected
    figures = read(reader)
    assert figures.requests == figures.ever.requests
    assert figures.spreads["queue_wait"].count > 0
    assert next(source for source in figures.sources if source.source == "no").p50_ms >= 18


def test_a_request_that_is_tried_again_counts_once(counted_fleet: Fleet, reader: RedisConnection) -> None:
    """As its caller sees it: one that succeeds at the second try is an answer, one that never does is a failure."""
    before = read(reader)
    counted_fleet.endpoint.script(Fault("status", status=500, times=2))  # the endpoint's client tries twice by itself
    key = "frustrated-burst-seek_advice"
    assert counted_fleet.client.submit_request(request_of(901, key)).result(30).cached == "no"
    counted_fleet.endpoint.script(Fault("status", status=400))
    with pytest.raises(ModelError):
        counted_fleet.client.submit_request(request_of(902, key)).result(30)
    counted_fleet.endpoint.script(Fault())
    until(lambda: read(reader).requests.total >= before.requests.total + 2, "both are reported")
    after = read(reader)
    assert (after.requests.no, after.requests.failed) == (before.requests.no + 1, before.requests.failed + 1)
    assert after.requests.total == before.requests.total + 2


def test_a_look_up_counts_where_it_was_made(counted_fleet: Fleet, reader: RedisConnection) -> None:
    """Half of what a program asks it has, half it sends to the workers: it has found half, whatever they find. The sums stay."""
    requests = [request_of(number) for number in range(910, 914)]
    before = read(reader)
    others = {each.since for node in before.nodes for each in node.processes}
    with PersonaClient(load_settings(counted_fleet.environ)) as client:
        for request in requests * 2:
            client.submit_request(request).result(30)
        client.submit_request(PersonaRequest.create(f"{CANARY} 914", KEYS[0], use_cache=False)).result(30)  # not looked for
        client.pipeline.reporter.courier.deliver()
        until(lambda: read(reader).requests.total >= before.requests.total + 9, "all are reported")
        after = read(reader)
        (process,) = (each for node in after.nodes for each in node.processes if each.missed and each.since not in others)
    assert (process.role, process.pid) == ("producer", os.getpid())
    assert (process.missed, process.look_ups, process.requests.saved) == (4, 8, 4)
    assert after.requests.no - before.requests.no == 5
    assert after.requests.total - before.requests.total == 9
    assert "found 50.0% of 8 look-ups" in "".join(str(cell) for cell in _process(process))
    workers = [each for node in after.nodes for each in node.processes if each.role == "worker"]
    assert all(each.missed == 0 and each.look_ups == each.requests.answered for each in workers)


def test_a_request_that_joins_anothers_task_counts_as_joined(counted_fleet: Fleet, reader: RedisConnection) -> None:
    """Its task counts with the other; it counts itself when it has its answer, once however often that is taken."""
    before = read(reader).requests
    with PersonaClient(load_settings(counted_fleet.environ)) as client:
        tickets = [client.submit_request(request_of(905)) for _ in range(3)]
        assert [ticket.source for ticket in tickets] == ["no", "joined", "joined"]
        assert [ticket.result(30).cached for ticket in tickets] == ["no", "joined", "joined"]
        assert tickets[1].result(30).cached == "joined"
    until(lambda: read(reader).requests.total >= before.total + 3, "all are reported")
    after = read(reader).requests
    assert (after.no, after.joined, after.total) == (before.no + 1, before.joined + 2, before.total + 3)


def test_the_events_of_many_tasks_go_out_in_few_messages(counted_fleet: Fleet) -> None:
    """Three of each task, in their order; a message for each of them would cost the main process more than the task does."""
    tasks = 60
    request = request_of(906).to_wire()
    counted_fleet.app.send_task("persona.process", args=[request]).get(timeout=30)
    with counted_fleet.queue.pubsub(ignore_subscribe_messages=True) as messages:
        messages.psubscribe("*celeryev*task*")
        messages.get_message(timeout=5)
        asked = [counted_fleet.app.send_task("persona.process", args=[request]) for _ in range(tasks)]
        events: list[dict[str, Any]] = []
        sent = 0
        ids = {result.id for result in asked}

        def all_have_come() -> bool:
            nonlocal sent
            while (message := messages.get_message(timeout=0.05)) is not None:
                sent += 1
                body = json.loads(base64.b64decode(json.loads(message["data"])["body"]))
                events.extend(event for event in body if event["uuid"] in ids)
            return len(events) >= 3 * tasks

        until(all_have_come, "every event has come")
        for result in asked:
            result.get(timeout=30)
    of_first = [event["type"] for event in events if event["uuid"] == asked[0].id]
    assert of_first == ["task-received", "task-started", "task-succeeded"]
    assert len(events) == 3 * tasks
    assert sent <= tasks


def test_an_invalidation_is_shown_with_who_made_it_and_every_node_it_reached(
    counted_fleet: Fleet, reader: RedisConnection
) -> None:
    """Also one that was asked for by a task, and so made in a pool child."""
    counted_fleet.client.invalidate("persona:lua:*", wait_s=5)
    counted_fleet.app.send_task("cache.invalidate", args=["persona:riri:*"]).get(timeout=20)

    def shown() -> dict[tuple[str, ...], Any]:
        return {made.patterns: made for made in read(reader).invalidations}

    until(lambda: sum(len(made.reach) for made in shown().values()) >= 4, "both nodes have noted both")
    names = {node.name for node in counted_fleet.nodes}
    for patterns, role in ((("persona:lua:*",), "producer"), (("persona:riri:*",), "worker")):
        made = shown()[patterns]
        assert {applied.node for applied in made.reach} == names
        assert (made.alive, made.durable) == (2, True)
        assert f" ({role} " in made.by
        assert all(0 <= applied.delay_ms < 5000 for applied in made.reach)
    assert read(reader).spreads["staleness"].count >= 4


def test_every_process_of_every_node_is_shown(counted_fleet: Fleet, reader: RedisConnection) -> None:
    """The main process and the pool children of each, by their pids, also those that were never asked anything."""

    def shown() -> dict[str, Any]:
        return {node.name: node for node in read(reader).nodes}

    for node in counted_fleet.nodes:
        until(lambda: len(shown()[node.name].processes) >= 3, "all report")  # noqa: B023 - called before `node` changes
        processes = shown()[node.name].processes
        assert shown()[node.name].alive
        assert [process.pid for process in processes if process.role == "main"] == [node.pid]
        assert sorted(process.pid for process in processes if process.role == "worker") == node.pids


def test_a_node_that_stops_tells_what_it_counted_last(counted_fleet: Fleet, reader: RedisConnection) -> None:
    """Its children report when they end, and it is not shown any more."""
    node = counted_fleet.add_node()
    before = read(reader).requests
    asked = [counted_fleet.app.send_task("persona.process", args=[request_of(number).to_wire()]) for number in range(700, 718)]
    for result in asked:
        result.get(timeout=30)
    until(lambda: any(process.pid == node.pid for each in read(reader).nodes for process in each.processes), "it is shown")
    assert node.stop()
    until(lambda: read(reader).requests.total == before.total + len(asked), "all is reported")
    assert not any(process.pid == node.pid for each in read(reader).nodes for process in each.processes)
    assert not [each for each in read(reader).nodes if each.name == node.name and each.processes]


@pytest.mark.long
def test_the_benchmark_of_counting_finds_what_it_asked_counted(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """It fails when the fleet's figures differ from what it asked, or when a node that must not count does. No time is judged."""
    assert measure(["overhead", "--quick", "--json"]) == 0
    figures = json.loads(capfdbinary.readouterr().out)["figures"]
    assert {"throughput_ratio", "counted_per_s", "uncounted_per_s", "count_ns"} <= set(figures)
    assert figures["throughput_ratio"] > 0


def processes_of_tasks(log: str) -> set[str]:
    whole = log[: log.rfind("\n") + 1]
    lines = [json.loads(line) for line in whole.splitlines()]
    return {line["process"] for line in lines if line.get("task_name") == "persona.process"}


def test_every_line_of_the_logs_is_an_object_and_none_shows_a_prompt(counted_fleet: Fleet) -> None:
    """Under PERSONA_LOG=json: of the main processes and of their children, from the first line on."""
    answers = [counted_fleet.app.send_task("persona.process", args=[request_of(number).to_wire()]) for number in range(24)]
    for answer in answers:
        answer.get(timeout=30)
    for node in counted_fleet.nodes[:2]:
        until(lambda: len(processes_of_tasks(node.log())) > 1, "a child has told of its task")  # noqa: B023 - as above
        log = node.log()
        lines = [json.loads(line) for line in log.splitlines()]
        assert CANARY not in log
        of_tasks = [line for line in lines if line.get("task_name") == "persona.process"]
        assert all(line["task_id"] in line["message"] for line in of_tasks)
        assert "MainProcess" in processes_of_tasks(log)
        assert {line["time"][-1] for line in lines} == {"Z"}
        assert any(line["message"] == f"{node.name} ready." for line in lines)

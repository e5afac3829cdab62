"""One whole trace a request, received by a collector: whatever befalls the processes that tell of it."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from collector import Collector, Span, broken
from fleet import ANSWER_S, API_KEY, Fleet, WorkerNode, send_plain
from polling import until
from supervised import alive

from benchmarks.kit.endpoint import Fault
from pipeline.models import PersonaRequest
from pipeline.settings import load_settings
from pipeline.tracing import process
from workers.client import PersonaClient

pytest.importorskip("opentelemetry.proto", reason="the extra `traces` is not installed")

KEY: Final = "calm-flowing-planning"
CANARY: Final = "canary5e1f"
COME_S: Final = 20.0


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def fleet(collector: Collector) -> Iterator[Fleet]:
    """One node of two children, each for ten tasks; its caller and its nodes are traced."""
    environ = collector.environ | {"PERSONA_LLM_API_KEY": API_KEY, "PERSONA_STALE_GRACE_S": "0"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            if name.startswith("OTEL_"):
                patch.setenv(name, value)
        patch.setattr(process, "_tracer", None)
        with Fleet(environ=environ, arguments=("--max-tasks-per-child=10",)) as fleet:
            yield fleet
            process.close()


@pytest.fixture(autouse=True)
def _as_asked(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "fleet" in request.fixturenames:
        request.getfixturevalue("fleet").endpoint.script(Fault())
        request.getfixturevalue("collector").behave("well")


def children(node: WorkerNode) -> list[int]:
    """The pool's, without the process that sends spans, which was forked first."""
    return [pid for pid in node.pids if pid != exporter_of(node)]


def exporter_of(node: WorkerNode) -> int:
    """The process that has but the socket open, beside its standard streams and its connection to the collector. One that has
    ended, and that nobody has waited for, has nothing open."""
    return next(pid for pid in node.pids if 3 < len(list(Path(f"/proc/{pid}/fd").iterdir())) <= 6)


def ran_and_was_awaited(spans: list[Span]) -> bool:
    return {"persona.wait", "persona.process", "persona.model"} <= names(spans)


def began_at_the_node(spans: list[Span]) -> bool:
    return {"persona.process sent", "persona.process", "persona.model"} <= names(spans)


def traces_of(
    fleet: Fleet, collector: Collector, marks: list[str], has_all: Callable[[list[Span]], bool] = ran_and_was_awaited
) -> dict[str, list[Span]]:
    """The traces of the requests whose texts have these marks, by mark, as soon as each has all that it is to have: by the header
    that the model's endpoint was given."""
    by_mark: dict[str, str] = {}

    def all_there() -> bool:
        for asked in fleet.endpoint.asked:
            text = asked.body["messages"][-1]["content"]
            for mark in marks:
                if f"{mark}." in text:
                    by_mark[mark] = asked.headers["traceparent"].split("-")[1]
        traces = collector.traces()
        return len(by_mark) == len(marks) and all(has_all(traces.get(trace, [])) for trace in by_mark.values())

    until(all_there, "all traces are with the collector", bound_s=COME_S)
    traces = collector.traces()
    return {mark: traces[trace] for mark, trace in by_mark.items()}


def names(spans: list[Span]) -> set[str]:
    return {span.name for span in spans}


def one(spans: list[Span], name: str) -> Span:
    (found,) = [span for span in spans if span.name == name]
    return found


def assert_whole(traces: dict[str, list[Span]]) -> None:
    wrong = {mark: broken(spans) for mark, spans in traces.items() if broken(spans)}
    assert not wrong, wrong
    assert len({spans[0].trace for spans in traces.values()}) == len(traces)


def ask(fleet: Fleet, mark: str) -> str:
    return fleet.client.ask(f"What of {mark}.", KEY, {"user_id": f"u-{mark}-{CANARY}"}, timeout_s=ANSWER_S).cached


def test_each_request_has_one_whole_trace_from_caller_to_model(fleet: Fleet, collector: Collector) -> None:
    """Thirty of them, so that each child is replaced some times: with the time in the queue, the look-ups by tier, the lease, the
    stages and the model's call; each in the trace that its caller began."""
    marks = [f"whole{number}" for number in range(30)]
    with ThreadPoolExecutor(6) as pool:
        assert len(list(pool.map(lambda mark: ask(fleet, mark), marks))) == 30
    traces = traces_of(fleet, collector, marks)
    assert_whole(traces)
    steps = {"persona.submit", "queue", "persona.process", "cache.lookup", "cache.flight", "cache.lease", "cache.compute",
             "persona.answer", "persona.model", "cache.store", "persona.wait"}  # fmt: skip
    for mark, spans in traces.items():
        assert steps <= names(spans), mark
        root = one(spans, "persona.submit")
        assert (root.parent, root.service) == ("", "persona-client")
        # On a slow machine a caller may have it sent once more, and either may be the one that computes.
        sent = {span.id for span in spans if span.name in ("persona.submit", "persona.submit again")}
        ran = next(span for span in spans if span.name == "persona.process" and span.attributes["persona.source"] == "no")
        assert ran.parent in sent
        assert (ran.service, ran.error) == ("persona-worker", False)
        assert ran.attributes["persona.attempt"] == 1
        model = one(spans, "persona.model")
        assert model.attributes["gen_ai.request.model"] == "echo"
        assert ran.start_ns <= model.start_ns <= model.end_ns <= ran.end_ns


def test_a_task_whose_child_is_killed_keeps_its_trace(fleet: Fleet, collector: Collector) -> None:
    """What the dead child would have told is missing, and nothing else: the main process tells that it was lost, and the next
    attempt is in the same trace."""
    fleet.endpoint.script(Fault(delay_ms=60_000, times=1))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, fleet, "killed0")
        until(lambda: any("killed0." in str(asked.body) for asked in fleet.endpoint.asked), "the model is asked")
        for pid in children(fleet.node):
            os.kill(pid, signal.SIGKILL)
        answer.result(ANSWER_S)
    spans = traces_of(
        fleet, collector, ["killed0"], lambda spans: ran_and_was_awaited(spans) and "persona.process lost" in names(spans)
    )["killed0"]
    assert not broken(spans)
    lost = one(spans, "persona.process lost")
    assert lost.error
    assert lost.parent == one(spans, "persona.submit").id


def test_tries_are_in_one_trace(fleet: Fleet, collector: Collector) -> None:
    fleet.endpoint.script(Fault("status", status=503, times=2))
    ask(fleet, "tried0")
    traces = traces_of(
        fleet, collector, ["tried0"], lambda spans: len([each for each in spans if each.name == "persona.process"]) > 1
    )
    assert_whole(traces)
    first, *others = sorted((span for span in traces["tried0"] if span.name == "persona.process"), key=lambda span: span.start_ns)
    assert first.attributes["persona.attempt"] == 1
    assert first.attributes["persona.outcome"] == "retry"
    assert not first.error
    assert 2 in [span.attributes["persona.attempt"] for span in others]
    assert any(span.error for span in traces["tried0"] if span.name == "persona.model")


def test_a_caller_without_traces_has_one_all_the_same(fleet: Fleet, collector: Collector) -> None:
    """It begins at the node, where it follows from the task's id: so it is one trace however often the task is tried. Headers of
    a wrong form begin none."""
    forged = ["", "00-0", "ff-" + "1" * 32 + "-" + "1" * 16 + "-01", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "x" * 100_000,
              {"trace": "parent"}, 7]  # fmt: skip
    marks = [f"plain{number}" for number in range(len(forged) + 1)]
    results = [send_plain(fleet.app, PersonaRequest.create(f"What of {marks[-1]}.", KEY))]
    for mark, header in zip(marks, forged, strict=False):
        wire = PersonaRequest.create(f"What of {mark}.", KEY).to_wire()
        results.append(fleet.app.send_task("persona.process", args=[wire], queue="persona", headers={"traceparent": header}))
    assert [result.get(timeout=ANSWER_S)["cached"] for result in results] == ["no"] * len(marks)
    traces = traces_of(fleet, collector, marks, began_at_the_node)
    assert_whole(traces)
    assert {one(spans, "persona.process sent").parent for spans in traces.values()} == {""}


def test_a_foreign_callers_trace_goes_on_also_at_the_door(fleet: Fleet, collector: Collector) -> None:
    """By the header alone, as any instrumentation of Celery writes it; and an unsampled trace is told of nowhere."""
    wire = PersonaRequest.create("What of foreign0.", KEY).to_wire()
    for flag, trace in (("01", "a" * 32), ("01", "b" * 32), ("00", "c" * 32)):
        headers = {"traceparent": f"00-{trace}-{'d' * 16}-{flag}", "tracestate": "vendor=1"}
        fleet.app.send_task("persona.process", args=[wire], queue="persona", headers=headers).get(timeout=ANSWER_S)
    until(lambda: {"a" * 32, "b" * 32} <= collector.traces().keys(), "both traces are there", bound_s=COME_S)
    traces = collector.traces()
    assert {span.parent for span in traces["a" * 32] if span.name == "persona.process"} == {"d" * 16}
    assert names(traces["b" * 32]) == {"persona.process at the door"}
    assert traces["b" * 32][0].attributes["persona.source"] in ("l1", "l2")
    assert "c" * 32 not in traces


def test_a_refresh_is_a_trace_of_its_own_that_links_to_the_request_that_asked_for_it(fleet: Fleet, collector: Collector) -> None:
    """As `workers.queue.dispatch.refresher` sends it: what the header names is the first span's link."""
    wire = PersonaRequest.create("What of refreshed0.", KEY).to_wire()
    headers = {"persona_renewal": True, "persona_trace_link": f"00-{'e' * 32}-{'f' * 16}-01"}
    fleet.app.send_task("persona.process", args=[wire], queue="maintenance", headers=headers).get(timeout=ANSWER_S)
    traces = traces_of(fleet, collector, ["refreshed0"], began_at_the_node)
    assert_whole(traces)
    spans = traces["refreshed0"]
    assert one(spans, "persona.process sent").links == one(spans, "persona.process").links == [["e" * 32, "f" * 16]]
    assert one(spans, "persona.process").attributes["persona.refresh"] is True
    assert "e" * 32 not in collector.traces()


def test_a_caller_that_joins_links_to_the_trace_that_computes(fleet: Fleet, collector: Collector) -> None:
    """Two clients want the same answer: one task, and the second caller's wait names the first one's trace. Two tasks want it:
    one computes, and the other's wait names where."""
    fleet.endpoint.script(Fault(delay_ms=700))
    with closing(PersonaClient(load_settings(fleet.environ))) as other:
        first = fleet.client.submit("What of joined0.", KEY)
        second = other.submit("What of joined0.", KEY)
        assert second.source == "joined"
        assert {first.result(ANSWER_S).cached, second.result(ANSWER_S).cached} == {"no", "joined"}
    (computing,) = traces_of(fleet, collector, ["joined0"]).values()

    def links() -> list[list[str]]:
        return [link for span in collector.spans() if span.name == "persona.wait" for link in span.links]

    until(
        lambda: [computing[0].trace, one(computing, "persona.submit").id] in links(), "the wait's link is there", bound_s=COME_S
    )
    results = [send_plain(fleet.app, PersonaRequest.create("What of joined1.", KEY)) for _ in range(2)]
    assert sorted(result.get(timeout=ANSWER_S)["cached"] for result in results) == ["joined", "no"]
    (computing,) = traces_of(fleet, collector, ["joined1"], began_at_the_node).values()
    until(
        lambda: any(
            link[0] == computing[0].trace and span.trace != computing[0].trace
            for span in collector.spans()
            for link in span.links
        ),
        "the other task's link is there",
        bound_s=COME_S,
    )


def test_a_collector_that_is_away_holds_up_nothing_and_loses_nothing(fleet: Fleet, collector: Collector) -> None:
    """It refuses for a while, and is told of once in the log; then what was kept comes. The process that sends is killed: it is
    begun anew."""
    collector.behave("busy")
    seen = len(fleet.node.log())
    marks = [f"away{number}" for number in range(6)]
    began_s = time.monotonic()
    assert len([ask(fleet, mark) for mark in marks]) == 6
    assert time.monotonic() - began_s < 5
    until(lambda: "traces.not_sent" in fleet.node.log()[seen:], "the log tells of it", bound_s=COME_S)
    came = collector.requests()
    until(lambda: collector.requests() >= came + 2, "it is tried again", bound_s=COME_S)
    collector.behave("well")
    assert_whole(traces_of(fleet, collector, marks))
    assert fleet.node.log()[seen:].count("traces.not_sent") == 1
    killed = exporter_of(fleet.node)
    os.kill(killed, signal.SIGKILL)
    ask(fleet, "anew0")
    assert_whole(traces_of(fleet, collector, ["anew0"]))
    assert exporter_of(fleet.node) != killed


def test_no_span_holds_what_a_user_wrote_or_a_secret(fleet: Fleet, collector: Collector) -> None:
    """Of all that the collector has received: no text, no id, no key of an entry, no key of the model; and of tasks that failed,
    the kind of their error alone. A task's id that its sender made up is the sender's text, too."""
    fleet.client.ask(f"{CANARY} asks", KEY, {"user_id": CANARY, "user_name": CANARY}, timeout_s=ANSWER_S)
    result = fleet.app.send_task(
        "persona.process", args=[{"user_input": 7, CANARY: CANARY}], queue="persona", task_id=f"task-of-{CANARY}"
    )
    with pytest.raises(Exception, match="user_input"):
        result.get(timeout=ANSWER_S)
    fleet.app.send_task("cache.invalidate", args=[f"user:{CANARY}"], queue="persona").get(timeout=ANSWER_S)
    until(lambda: any(span.name == "cache.invalidate" for span in collector.spans()), "all is there", bound_s=COME_S)
    refused = [span for span in collector.spans() if span.attributes.get("error.type") == "InvalidRequestError"]
    assert [span.name for span in refused] == ["persona.process"]
    raw = collector.raw()
    assert b"persona.model" in raw
    for secret in (CANARY, API_KEY, "How do I", "What of", KEY):
        assert secret.encode() not in raw, secret


@pytest.mark.long
def test_a_thousand_requests_with_children_killed_and_replaced(fleet: Fleet, collector: Collector) -> None:
    """1,000 of 1,000 traces are whole, while each child is replaced after ten tasks and one is killed each forty answers."""
    marks = [f"many{number}" for number in range(1000)]
    answered = itertools.count(1)
    killed: list[int] = []
    exporter = exporter_of(fleet.node)

    def ask_and_kill(mark: str) -> str:
        source = ask(fleet, mark)
        if next(answered) % 40 == 0 and (pids := children(fleet.node)):
            os.kill(pids[0], signal.SIGKILL)
            killed.append(pids[0])
        return source

    by_mark: dict[str, str] = {}
    with ThreadPoolExecutor(8) as pool:
        for begin in range(0, len(marks), 200):  # the endpoint remembers a thousand calls
            part = marks[begin : begin + 200]
            assert len(list(pool.map(ask_and_kill, part))) == len(part)
            by_mark |= {mark: spans[0].trace for mark, spans in traces_of(fleet, collector, part).items()}
    traces = collector.traces()
    assert_whole({mark: traces[trace] for mark, trace in by_mark.items()})
    lost = sum(span.name == "persona.process lost" for trace in by_mark.values() for span in traces[trace])
    sys.stdout.write(f"{len(by_mark)} whole traces; {len(killed)} children killed, {lost} tasks lost to that\n")
    assert exporter_of(fleet.node) == exporter
    assert len(by_mark) == 1000
    assert len(killed) >= 20
    assert lost >= 1


@pytest.mark.long
def test_what_a_killed_node_has_told_is_sent_all_the_same(fleet: Fleet, collector: Collector) -> None:
    """The process that sends outlives the main process and the children, and ends when it has sent."""
    with Fleet(environ=collector.environ) as other:
        collector.behave("busy")
        ask(other, "killednode0")
        until(lambda: "traces.not_sent" in other.node.log(), "it has tried to send", bound_s=COME_S)
        exporter = exporter_of(other.node)
        os.kill(other.node.pid, signal.SIGKILL)
        collector.behave("well")
        assert_whole(traces_of(other, collector, ["killednode0"]))
        until(lambda: not alive(exporter), "it has ended", bound_s=COME_S)

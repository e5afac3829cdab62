"""The cost of a hit for its caller: `PersonaClient.submit` of an answer in Redis (L2) or in this process (L1), beside the same
request as a plain Celery task, which a worker answers from its own L1.

The plain tasks run at their best: sent one after the other without waiting, so that the workers, the broker and the caller
are all busy, and their results collected behind the last. In turn with the others, in each round.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Final, NamedTuple

from celery import Celery

from benchmarks.kit.compare import ratio_of_medians
from benchmarks.kit.contract import Benchmark, Figures, Progress
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.fleet import Fleet
from benchmarks.kit.model_server import ModelServer, expected_answer
from benchmarks.kit.requests import spread_over
from benchmarks.kit.routes import PROCESS_TASK
from benchmarks.views.load_views import view_submit
from pipeline.models import PersonaRequest, PersonaResponse, Source
from workers.client import QUEUE, PersonaClient
from workers.queue.factory import make_app

CHILDREN: Final = 2
KINDS: Final = 20
TASK_TIMEOUT_S: Final = 30.0


class Size(NamedTuple):
    """The size of the measurement."""

    rounds: int
    tasks: int
    l2_submits: int
    l1_submits: int


FULL: Final = Size(rounds=7, tasks=400, l2_submits=4_000, l1_submits=40_000)
QUICK: Final = Size(rounds=1, tasks=20, l2_submits=100, l1_submits=1_000)


def measure_submit(progress: Progress, *, quick: bool = False) -> Figures:
    """The figures. Raises BenchmarkFailedError when an answer was wrong, or came from another source than it had to."""
    size = QUICK if quick else FULL
    asked = {request: expected_answer(request) for request in spread_over(KINDS, KINDS)}
    with (
        ModelServer(delay_ms=0) as model,
        Fleet(progress, nodes=1, children=CHILDREN, environ=model.environment) as fleet,
        closing(make_app(fleet.settings)) as app,
        PersonaClient(fleet.settings) as client,
    ):
        bench = _Bench(app, client, asked)
        progress("submit: plain tasks, submits that hit L2 and L1, in turn")
        bench.warm_up()
        rounds = [bench.round(size) for _ in range(size.rounds)]
        one_by_one_s = bench.one_by_one_s(size.tasks // 4)
        calls = model.calls
    if calls != KINDS:
        raise BenchmarkFailedError([f"the model was called {calls} times for {KINDS} misses"])
    plain, l2_per_s, l1_per_s = ([each[way] for each in rounds] for way in range(3))
    figures: Figures = {
        "plain_per_s": statistics.median(plain),
        "plain_one_by_one_per_s": 1 / one_by_one_s,
        "l2_per_s": statistics.median(l2_per_s),
        "l1_per_s": statistics.median(l1_per_s),
    }
    figures |= ratio_of_medians(l2_per_s, plain).figures("l2_ratio")
    figures |= ratio_of_medians(l1_per_s, plain).figures("l1_ratio")
    return figures


class _Bench:
    """Asks, each way, and judges every answer: those of a submit after the measured loop."""

    def __init__(self, app: Celery, client: PersonaClient, asked: dict[PersonaRequest, str]) -> None:
        self._app, self._client, self._asked = app, client, asked

    def warm_up(self) -> None:
        """Each kind is computed once; then both workers, and this program, have it in their L1."""
        self._submit(len(self._asked))
        self.plain_per_s(20 * CHILDREN * len(self._asked))
        self._submit(2 * len(self._asked))

    def round(self, size: Size) -> tuple[float, float, float]:
        """Requests a second: as plain tasks, from L2, from L1."""
        return (
            self.plain_per_s(size.tasks),
            self.l2_per_s(size.l2_submits),
            self.l1_per_s(size.l1_submits),
        )

    def plain_per_s(self, count: int) -> float:
        requests = self._turns(count)
        began_s = time.perf_counter()
        sent = [self._app.send_task(PROCESS_TASK, args=[request.to_wire()], queue=QUEUE) for request in requests]
        answers = [PersonaResponse.from_wire(each.get(timeout=TASK_TIMEOUT_S, interval=0.005)) for each in sent]
        per_s = count / (time.perf_counter() - began_s)
        self._check(requests, answers, None)
        return per_s

    def one_by_one_s(self, count: int) -> float:
        """The median for a caller that waits for each answer before the next request."""
        took_s = []
        for request in self._turns(count):
            began_s = time.perf_counter()
            sent = self._app.send_task(PROCESS_TASK, args=[request.to_wire()], queue=QUEUE)
            answer = PersonaResponse.from_wire(sent.get(timeout=TASK_TIMEOUT_S, interval=0.005))
            took_s.append(time.perf_counter() - began_s)
            self._check([request], [answer], None)
        return statistics.median(took_s)

    def l1_per_s(self, count: int) -> float:
        requests = self._turns(count)
        arguments = [(request.user_input, request.resonance_key) for request in requests]
        submit = self._client.submit
        began_s = time.perf_counter()
        tickets = [submit(text, key) for text, key in arguments]
        per_s = count / (time.perf_counter() - began_s)
        self._check(requests, [ticket.result(TASK_TIMEOUT_S) for ticket in tickets], "l1")
        return per_s

    def l2_per_s(self, count: int) -> float:
        """As if another program had asked before: this one's L1 forgets each answer right before it is asked for. The routing of
        a request, of which there are few, stays there."""
        keys = {request: self._client.pipeline.seek(request).key for request in self._asked}
        requests = self._turns(count)
        arguments = [(keys[request], request.user_input, request.resonance_key) for request in requests]
        submit, forget = self._client.submit, self._client.cache.l1.delete
        tickets = []
        began_s = time.perf_counter()
        for entry, text, key in arguments:
            forget(entry)
            tickets.append(submit(text, key))
        per_s = count / (time.perf_counter() - began_s)
        self._check(requests, [ticket.result(TASK_TIMEOUT_S) for ticket in tickets], "l2")
        return per_s

    def _submit(self, count: int) -> None:
        requests = self._turns(count)
        tickets = [self._client.submit_request(request) for request in requests]
        self._check(requests, [ticket.result(TASK_TIMEOUT_S) for ticket in tickets], None)

    def _turns(self, count: int) -> list[PersonaRequest]:
        return list(itertools.islice(itertools.cycle(self._asked), count))

    def _check(self, requests: Sequence[PersonaRequest], answers: Sequence[PersonaResponse], source: Source | None) -> None:
        for request, answer in zip(requests, answers, strict=True):
            if answer.content != self._asked[request]:
                raise BenchmarkFailedError([f"a wrong answer to {request.user_input!r}: {answer.content[:60]!r}"])
            if source is not None and answer.cached != source:
                raise BenchmarkFailedError([f"an answer that had to come from {source} came from {answer.cached}"])


BENCHMARK: Final = Benchmark(
    "submit",
    "A submit that hits, in Redis and in the program itself, beside the same request as a plain task.",
    9,
    measure_submit,
    view_submit,
)

"""A program that sends requests, as directed by `load.py`: `python -m benchmarks.kit.producers FOLDER NUMBER client|raw`.

It reports its progress on standard output, and finds its plans, and the moment to begin, in the folder.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import msgspec
from celery import Celery

from benchmarks.kit.load import Happened, Plan, go_path, path_of, write_whole
from benchmarks.kit.model_server import expected_answer
from benchmarks.kit.routes import PROCESS_TASK
from pipeline.models import PersonaRequest, PersonaResponse
from pipeline.settings import Settings, get_settings
from workers.client import QUEUE, PersonaClient

POLL_S: Final = 0.005
RAW_POLL_S: Final = 0.005
LAST_MOMENT_S: Final = 0.0003
"""The end of a wait for a moment, spent polling: a sleep ends late, a look at the clock does not."""


class Asked:
    """A request that was sent, or answered at once."""

    def __init__(self, number: int, due_s: float, take: Callable[[float], PersonaResponse], arrival: Future[Any] | None) -> None:
        self.number, self.due_s = number, due_s
        self.take = take
        self.arrived_s = 0.0
        self._arrival = arrival  # kept alive: a future without a reference would not be completed
        if arrival is not None:
            arrival.add_done_callback(self._arrived)

    def _arrived(self, _: Future[Any]) -> None:
        self.arrived_s = time.monotonic()


Ask = Callable[[PersonaRequest], PersonaResponse | tuple[Callable[[float], PersonaResponse], Future[Any] | None]]
"""Sends a request. Returns the answer, if it is here; else a function that waits for it, and the future of its arrival if the
client has one."""


def by_client(client: PersonaClient, *, told: bool) -> Ask:
    """`told`: the client's own thread reports arrivals, instead of waiting for one ticket after the other."""

    def ask(request: PersonaRequest) -> PersonaResponse | tuple[Callable[[float], PersonaResponse], Future[Any] | None]:
        ticket = client.submit_request(request)
        if ticket.task_id is None:
            return ticket.result()
        return ticket.result, ticket.arrival() if told else None

    return ask


def by_task(app: Celery) -> Ask:
    def ask(request: PersonaRequest) -> tuple[Callable[[float], PersonaResponse], None]:
        sent = app.send_task(PROCESS_TASK, args=[request.to_wire()], queue=QUEUE)
        return (lambda timeout_s: PersonaResponse.from_wire(sent.get(timeout=timeout_s, interval=RAW_POLL_S))), None

    return ask


class Run:
    """One plan, from its moment on."""

    def __init__(self, ask: Ask, plan: Plan, expected: Sequence[str], starts_at_s: float) -> None:
        self._ask, self._plan, self._expected = ask, plan, expected
        self._starts_at_s = starts_at_s

    def burst(self) -> list[Happened]:
        """Everything at once, from several threads; each sends its share, then waits for it."""
        count, threads = len(self._plan.requests), self._plan.threads

        def send(thread: int) -> list[tuple[int, Happened]]:
            wait_until(self._starts_at_s)
            sent = [(number, self._send(number, self._starts_at_s)) for number in range(thread, count, threads)]
            return [(number, self._ended(each)) for number, each in sent]

        with ThreadPoolExecutor(threads) as pool:
            return [each for _, each in sorted(itertools.chain.from_iterable(pool.map(send, range(threads))))]

    def paced(self) -> list[Happened]:
        """One request at each intended moment; all waits come after the last of them."""
        gc.collect()
        gc.disable()  # this program's records are many, and no part of the measurement
        sent = []
        for number in range(self._plan.count):
            due_s = self._due_s(number)
            wait_until(due_s)
            sent.append(self._send(number, due_s))
        gc.enable()
        return [self._ended(each) for each in sent]

    def paced_by_threads(self) -> list[Happened]:
        """The same for a client that does not report arrivals: a thread sends and waits."""

        def ask(number: int) -> Happened:
            return self._ended(self._send(number, self._due_s(number)))

        with ThreadPoolExecutor(self._plan.threads) as pool:
            asked = []
            for number in range(self._plan.count):
                wait_until(self._due_s(number))
                asked.append(pool.submit(ask, number))
            return [each.result() for each in asked]

    def _due_s(self, number: int) -> float:
        return self._starts_at_s + number / self._plan.rate_per_s

    def _send(self, number: int, due_s: float) -> Happened | Asked:
        try:
            sent = self._ask(self._plan.requests[number % len(self._plan.requests)])
            if isinstance(sent, PersonaResponse):
                return self._judged(number, sent, due_s, time.monotonic())
            return Asked(number, due_s, *sent)
        except Exception as error:  # noqa: BLE001 - any error fails the request
            return _failed(due_s, error)

    def _ended(self, asked: Happened | Asked) -> Happened:
        if isinstance(asked, Happened):
            return asked
        try:
            response = asked.take(self._plan.timeout_s)
        except Exception as error:  # noqa: BLE001 - any error fails the request
            return _failed(asked.due_s, error)
        return self._judged(asked.number, response, asked.due_s, asked.arrived_s or time.monotonic())

    def _judged(self, number: int, response: PersonaResponse, due_s: float, ended_s: float) -> Happened:
        right = response.content == self._expected[number % len(self._expected)]
        return Happened(due_s, ended_s - due_s, response.cached, right, response.degraded)


def _failed(due_s: float, error: Exception) -> Happened:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return Happened(due_s, time.monotonic() - due_s, "", error=f"{error!r:.200} ({Path(where.filename).name}:{where.lineno})")


def wait_until(moment_s: float) -> None:
    """Until a moment of the monotonic clock."""
    while (remaining_s := moment_s - time.monotonic()) > 0:
        if remaining_s > LAST_MOMENT_S:
            time.sleep(remaining_s - LAST_MOMENT_S)


def carry_out(ask: Ask, plan: Plan, expected: Sequence[str], starts_at_s: float, *, told: bool) -> list[Happened]:
    if not plan.requests:
        return []
    run = Run(ask, plan, expected, starts_at_s)
    if not plan.rate_per_s:
        return run.burst()
    return run.paced() if told else run.paced_by_threads()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kit.producers", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("number", type=int)
    parser.add_argument("way", choices=("client", "raw"))
    options = parser.parse_args()
    with ExitStack() as resources:
        client = resources.enter_context(PersonaClient()) if options.way == "client" else None
        if client is not None:
            client.cache.refresh()  # a program that has run for a while is connected
        app = resources.enter_context(closing(_raw_app(get_settings())))
        say("ready")
        for turn in itertools.count(1):
            plan = msgspec.json.decode(_awaited(path_of(options.folder, "plan", turn, options.number)), type=Plan)
            expected = [expected_answer(request) for request in plan.requests]
            told = client is not None and plan.rate_per_s > 0
            ask = by_task(app) if client is None else by_client(client, told=told)
            say(f"prepared {turn}")
            starts_at_s = msgspec.json.decode(_awaited(go_path(options.folder, turn)), type=float)
            happened = carry_out(ask, plan, expected, starts_at_s, told=told)
            write_whole(path_of(options.folder, "report", turn, options.number), msgspec.json.encode(happened))
            say(f"reported {turn}")
    return 0


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _raw_app(settings: Settings) -> Celery:
    """The app of a program that knows nothing of this project but its queue."""
    return Celery("foreign", broker=settings.broker_url, backend=settings.result_backend_url, set_as_current=False)


def _awaited(path: Path) -> bytes:
    while not path.exists():
        time.sleep(POLL_S)
    return path.read_bytes()


if __name__ == "__main__":
    sys.exit(main())

"""Flower's page of the fleet under load, in a real Chromium: the figures shown beside those that the generator has counted."""

from __future__ import annotations

import random
import secrets
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from celery import Celery

from benchmarks.kit.browser import HOW_TO_INSTALL, Browser, find_chromium
from benchmarks.kit.contract import Benchmark, Figures, Measured, Progress
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.fleet import Fleet
from benchmarks.kit.model_server import ModelServer
from pipeline.errors import PipelineError
from pipeline.figures.fields import REQUESTS
from pipeline.models import PersonaRequest
from workers.client import PersonaClient
from workers.queue.errors import WorkerError
from workers.queue.factory import make_app
from workers.queue.names import PROCESS_TASK
from workers.stack.plan import FLOWER_USER
from workers.stack.processes import ChildProcess
from workers.stack.readiness import http_is_ready
from workers.stack.servers.ports import choose_ports
from workers.stack.servers.valkey_server import HOST

RATE_PER_S: Final = 200
RUN_S: Final = 60.0
QUICK_RUN_S: Final = 12.0
QUESTIONS: Final = 400
TASK_SHARE: Final = 0.3  # sent as tasks by a producer that looks into no cache, such as one in another language
INVALIDATE_EVERY_S: Final = 5.0
MODEL_MS: Final = 80.0
SENDERS: Final = 32
ANSWER_TIMEOUT_S: Final = 60.0
MAX_TASKS: Final = 1000
"""Flower's own limit of tasks: reached within the first third, so that growth after it is not its list of tasks."""
SETTLE_S: Final = 10.0
FADE_S: Final = 0.5  # colours change by degrees
TOLERANCE: Final = 0.02
LONG_WINDOWS: Final = {3600: "60 min", 86_400: "24 h"}
MAX_GROWTH_MB: Final = 4.0
KEYS: Final = ("frustrated-burst-seek_advice", "calm-flowing-planning", "curious-medium-learning", "playful-burst-reflection")
PATTERNS: Final = ("routing:*", "persona:lua:*", f"routing:{KEYS[1]}", "prompt:*")


class Load:
    """Requests at a fixed rate from many threads, some as bare tasks. `counts` are the answers by source, and the failures."""

    def __init__(self, client: PersonaClient, app: Celery) -> None:
        self._client, self._app = client, app
        self._lock = threading.Lock()
        self._random = random.Random(20)  # noqa: S311 - which question comes next is no secret
        self._stopped = threading.Event()
        self.counts: Counter[str] = Counter()
        self.invalidations = 0

    def stop(self) -> None:
        """End the run before its time. May be called again."""
        self._stopped.set()

    def run(self, run_s: float, rate_per_s: float = RATE_PER_S) -> float:
        """Run for that time. Returns the requests a second."""
        began_s = time.monotonic()
        next_invalidation_s = INVALIDATE_EVERY_S / 2
        with ThreadPoolExecutor(SENDERS, thread_name_prefix="load") as senders:
            for number in range(round(run_s * rate_per_s)):
                at_s = number / rate_per_s
                if self._stopped.wait(max(0.0, began_s + at_s - time.monotonic())):
                    break
                if at_s >= next_invalidation_s:
                    next_invalidation_s += INVALIDATE_EVERY_S
                    self._client.invalidate(PATTERNS[self.invalidations % len(PATTERNS)])
                    self.invalidations += 1
                ask = self._ask_as_task if self._random.random() < TASK_SHARE else self._ask
                senders.submit(ask, self._request())
        return sum(self.counts.values()) / (time.monotonic() - began_s)

    def _request(self) -> PersonaRequest:
        """Some questions are asked much more often than others, as users do."""
        number = min(int(self._random.paretovariate(0.6)), QUESTIONS)
        return PersonaRequest.create(f"How do I go on with plan {number}?", KEYS[number % len(KEYS)])

    def _ask(self, request: PersonaRequest) -> None:
        self._count(lambda: self._client.submit_request(request).result(ANSWER_TIMEOUT_S).cached)

    def _ask_as_task(self, request: PersonaRequest) -> None:
        def answer() -> str:
            result = self._app.send_task(PROCESS_TASK, args=[request.to_wire()]).get(timeout=ANSWER_TIMEOUT_S)
            return str(result["cached"])

        self._count(answer)

    def _count(self, ask: Callable[[], str]) -> None:
        try:
            source = ask()
        except (PipelineError, WorkerError, TimeoutError, OSError):
            source = "failed"
        with self._lock:
            self.counts[source] += 1


def measure_page(progress: Progress, *, quick: bool) -> Measured:
    """Figures of the page and of Flower under 200 requests a second.

    Raises BenchmarkFailedError if the page did not show the counted figures, within 2 %, if its console had an error, or if
    Flower grew. Without a Chromium there are no figures, and a note.
    """
    if find_chromium() is None:
        return Measured({}, (f"no Chromium is installed ({HOW_TO_INSTALL}): the page was not measured",))
    run_s = QUICK_RUN_S if quick else RUN_S
    with ExitStack() as resources:
        password = secrets.token_urlsafe(24)
        model = resources.enter_context(ModelServer(delay_ms=MODEL_MS))
        flower_environ = {"FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{password}", "FLOWER_READ_ONLY": "true"}
        flower_environ["FLOWER_MAX_TASKS"] = str(MAX_TASKS)
        fleet = resources.enter_context(Fleet(progress, nodes=2, children=2, environ={**model.environment, **flower_environ}))
        port = choose_ports({"flower": None})["flower"]
        flower = start_flower(fleet, port)
        browser = resources.enter_context(Browser())
        browser.open(f"http://{FLOWER_USER}:{password}@{HOST}:{port}/fleet")
        browser.wait("document.getElementById('fleet').dataset.state === 'live'")
        progress(f"page: {RATE_PER_S} requests a second for {run_s:g} s")
        client = resources.enter_context(PersonaClient(fleet.settings))
        app = make_app(fleet.settings)
        resources.callback(app.close)
        load = Load(client, app)
        watch = _Watch(flower, browser)
        with ThreadPoolExecutor(1, thread_name_prefix="load") as generator:
            running = generator.submit(load.run, run_s)
            while not running.done():
                watch.look()
            rate_per_s = running.result()
        shown = _settled(browser, sum(load.counts.values()))
        wider = {name: _total_of(browser, window_s, shown["total"]) for window_s, name in LONG_WINDOWS.items()}
        figures = _figures(load, shown, watch, rate_per_s)
        problems = _problems(load.counts, shown, browser.errors, figures, quick=quick)
        problems += [
            f"the last {name}: the page shows {total} requests, the load generator has counted {sum(load.counts.values())}"
            for name, total in wider.items()
            if abs(total - sum(load.counts.values())) > TOLERANCE * sum(load.counts.values())
        ]
        if problems:
            raise BenchmarkFailedError(problems, figures)
        return Measured(figures)


class _Watch:
    """Looks at the page and at Flower about once a second while the load runs."""

    def __init__(self, flower: ChildProcess, browser: Browser) -> None:
        self._flower, self._browser = flower, browser
        self.rates: list[float] = []
        self.memory_mb: list[float] = []

    def look(self) -> None:
        time.sleep(1)
        self.rates.append(_number(self._browser, "[data-figure='rate']"))
        self.memory_mb.append(_resident_mb(self._flower.pid))


def start_flower(fleet: Fleet, port: int) -> ChildProcess:
    command = [sys.executable, "-m", "celery", "-A", "workers", "flower", f"--address={HOST}", f"--port={port}"]
    flower = fleet.start("flower", command)
    fleet.await_(lambda: flower.exit_code is not None or http_is_ready(port, "/healthcheck"), "Flower answers", timeout_s=30)
    if flower.exit_code is not None:
        raise BenchmarkFailedError([f"Flower ended with {flower.exit_code}", flower.log.read_text(encoding="utf-8")[-1000:]])
    return flower


def _settled(browser: Browser, total: int) -> dict[str, int]:
    """The page's figures by source once it shows that many requests in all, or after a while."""
    deadline_s = time.monotonic() + SETTLE_S
    while _number(browser, "[data-figure='total']") != total and time.monotonic() < deadline_s:
        time.sleep(0.2)
    shown = {source: _number(browser, f"#fleet-sources [data-source='{source}'] [data-value]") for source in REQUESTS}
    return {"total": int(_number(browser, "[data-figure='total']"))} | {source: int(count) for source, count in shown.items()}


def _total_of(browser: Browser, window_s: int, total: int) -> int:
    """The requests that the page shows for another window, once they are that many, or after a while."""
    browser.evaluate(f"document.querySelector('label[for=fleet-window-{window_s}]').click()")
    browser.wait(f"document.querySelector(\"[data-figure='window']\").dataset.value === '{window_s}'")
    deadline_s = time.monotonic() + SETTLE_S
    while (found := _number(browser, "[data-figure='total']")) != total and time.monotonic() < deadline_s:
        time.sleep(0.2)
    return int(found)


def _figures(load: Load, shown: dict[str, int], watch: _Watch, rate_per_s: float) -> Figures:
    figures: Figures = {
        "rate_per_s": round(rate_per_s, 1),
        "requests": sum(load.counts.values()),
        "shown_requests": shown["total"],
    }
    for source in REQUESTS:
        figures[f"counted_{source}"], figures[f"shown_{source}"] = load.counts[source], shown[source]
    third = max(1, len(watch.rates) // 3)
    figures["shown_rate_per_s"] = round(sum(watch.rates[-third:]) / third, 1)
    figures["invalidations"] = load.invalidations
    figures["flower_mb"] = round(max(watch.memory_mb), 1)
    figures["flower_growth_mb"] = round(_mean(watch.memory_mb[-third:]) - _mean(watch.memory_mb[third : 2 * third]), 2)
    return figures


def _problems(counts: Counter[str], shown: dict[str, int], errors: Sequence[str], figures: Figures, *, quick: bool) -> list[str]:
    counted = {"total": sum(counts.values()), **{source: counts[source] for source in REQUESTS}}
    problems = [
        f"{name}: the page shows {shown[name]}, the load generator has counted {counted[name]}"
        for name in counted
        if abs(shown[name] - counted[name]) > TOLERANCE * counted[name]
    ]
    problems += [f"the console says: {error}" for error in errors]
    if not quick and figures["flower_growth_mb"] > MAX_GROWTH_MB:
        problems.append(f"Flower grew by {figures['flower_growth_mb']} MB from the second third of the run to the last")
    return problems


def _number(browser: Browser, selector: str) -> float:
    value: Any = browser.evaluate(f'document.querySelector("{selector}").dataset.value')
    return float(value or 0)


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)


BENCHMARK: Final = Benchmark(
    "page",
    "Flower's page of the fleet under load in a real browser, beside what the load generator has counted.",
    14,
    measure_page,
)

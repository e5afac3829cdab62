"""The model's process is killed under load and comes back after ten seconds or more: what failed meanwhile is tried again at
once, from the page or by the command, and each task is answered once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from fleet import Fleet, captured_events, send_plain
from monitor import FlowerServer
from polling import until
from servers import NO_STACK

from benchmarks.kit.model_server import ModelServer
from benchmarks.kit.nodes import own_environment
from pipeline.discovery import STACK_DIR
from pipeline.models import PersonaRequest
from pipeline.settings import load_settings
from workers.queue.factory import make_app
from workers.queue.failures.box import Failures
from workers.queue.reach import bound_waits

KEY = "calm-flowing-planning"
AWAY_S = 10.0
WAITING = 100
"""Of tasks in the queue: more are sent when fewer wait."""
MOST = 1900
"""Of tasks in all; of failed ones 2,000 are kept."""
LONGEST_S = 300.0
ENDED = ("SUCCESS", "FAILURE")
BOUND_S = 5.0
"""How long the retry of all of them may take, at a thousand."""


def by_command(fleet: Fleet, count: int) -> float:
    """How long `persona failures retry --all` took, the start of its process included."""
    began_s = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "workers.cli", "failures", "retry", "--all", "--yes", "--json"],
        env={**own_environment(), STACK_DIR: NO_STACK, **fleet.environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert json.loads(done.stdout) == {"queued": count, "gone": 0, "cut": 0}, done.stderr
    return time.monotonic() - began_s


def from_the_page(fleet: Fleet, count: int) -> float:
    """How long the question and its confirmation took, as the page sends them."""
    with FlowerServer(broker_url=fleet.broker.url, cache_url=fleet.cache.url) as flower:
        mark = re.search(r'data-mark="(\w+)"', flower.ask("/fleet").text)
        assert mark is not None
        began_s = time.monotonic()
        asked = post(flower, mark[1], "/fleet/ask", {"what": "again"})
        assert asked["sentence"] == f"Try again {count:,} failed tasks?"
        said = post(flower, mark[1], "/fleet/confirm", {"word": asked["word"]})
        took_s = time.monotonic() - began_s
    assert said["sentence"] == f"Queued {count:,} failed tasks anew."
    return took_s


def post(flower: FlowerServer, mark: str, path: str, body: Any) -> Any:
    headers = {"Origin": f"http://127.0.0.1:{flower.port}", "Content-Type": "application/json", "X-Fleet-Mark": mark}
    return flower.ask(path, method="POST", headers=headers, body=json.dumps(body).encode()).json()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("least", "retry"),
    [
        pytest.param(100, from_the_page, id="100 from the page", marks=pytest.mark.long),
        pytest.param(1000, from_the_page, id="1000 from the page", marks=pytest.mark.long),
        pytest.param(1000, by_command, id="1000 by the command", marks=pytest.mark.long),
    ],
)
def test_what_failed_while_the_model_was_dead_is_tried_again_and_answered_once(
    least: int, retry: Callable[[Fleet, int], float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Requests come all the time. Those that fail thrice while the model is away are kept; those whose next try comes after its
    return are answered by that. It is away for ten seconds, and until so many tasks have failed."""
    with (
        ModelServer(delay_ms=20) as model,
        Fleet(concurrency=16, pool="threads", environ=model.environment) as fleet,
        closing(make_app(load_settings(fleet.environ))) as app,
    ):
        bound_waits(app)
        failures = Failures(app)
        fleet.ask_plain("First?", KEY)
        tasks: list[str] = []
        with captured_events(fleet.app) as events:
            model.kill()
            away_s = send_until(lambda: failures.count() >= least, fleet, tasks)
            model.come_back()
            until(lambda: all(status in ENDED for status in outcomes(fleet, tasks)), "each has ended", bound_s=200)
            kept = failures.count()
            recovered = len(tasks) - kept
            began_s = time.monotonic()
            took_s = retry(fleet, kept)
            until(lambda: succeeded(fleet, tasks) == len(tasks), "all are answered", bound_s=200)
            answered_s = time.monotonic() - began_s
            until(lambda: failures.count() == 0, "none is kept")
        with capsys.disabled():
            sys.stdout.write(
                f"\n{away_s:.1f} s without a model: {len(tasks)} tasks, {recovered} answered by their own tries, "
                f"{kept} failed; these queued anew in {took_s:.2f} s, all answered after {answered_s:.1f} s\n"
            )
        ended = Counter(event["uuid"] for event in events if event["type"] == "task-succeeded")
        assert ended == dict.fromkeys(tasks, 1)
        assert took_s < BOUND_S


def send_until(enough: Callable[[], bool], fleet: Fleet, tasks: list[str]) -> float:
    """Send questions that nobody has asked, as fast as the nodes take them, until that is so and AWAY_S are over; how long."""
    began_s = time.monotonic()
    while (since_s := time.monotonic() - began_s) < AWAY_S or not enough():
        assert since_s < LONGEST_S, f"{len(tasks)} tasks, of which too few have failed"
        if fleet.queued() > WAITING or len(tasks) > MOST:
            time.sleep(0.01)
        else:
            tasks += [send_plain(fleet.app, PersonaRequest.create(f"How, {len(tasks)} {n}?", KEY)).id for n in range(10)]
    return time.monotonic() - began_s


def outcomes(fleet: Fleet, tasks: list[str]) -> list[str]:
    """The state of each that is kept as its outcome; empty for one without."""
    backend = fleet.app.backend
    return [json.loads(raw)["status"] if raw else "" for raw in backend.mget([backend.get_key_for_task(each) for each in tasks])]


def succeeded(fleet: Fleet, tasks: list[str]) -> int:
    return outcomes(fleet, tasks).count("SUCCESS")

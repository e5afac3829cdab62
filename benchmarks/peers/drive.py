"""Measure one peer, in a process of its own: `python -m benchmarks.peers.drive NAME --tasks 1000 --trips 100`.

Reads the requests, and the right answers, as JSON on standard input: `[{"request": ..., "content": ...}]`. Writes one line of
JSON: `{"per_s", "trips_ms"}`, or `{"problem"}`, with `"wrong"` if it is a wrong answer. Ends its workers, also on TERM.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from benchmarks.peers import PeerQueue
from workers.stack.processes import ChildProcess

READY_TIMEOUT_S: Final = 30.0
TASK_TIMEOUT_S: Final = 10.0
DRAIN_TIMEOUT_S: Final = 30.0
SETTLE_S: Final = 1.0  # from the first answer on: the other processes of the workers may still be starting
POLL_S: Final = 0.005


class WrongAnswerError(Exception):
    """A task gave another answer than it must."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.drive", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--tasks", type=int, required=True, help="how many are drained at once")
    parser.add_argument("--trips", type=int, required=True, help="how many round trips, one after the other")
    parser.add_argument("--seconds", type=float, required=True, help="how long the round trips may take together")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    known = [(asked["request"], asked["content"]) for asked in json.load(sys.stdin)]
    try:
        said = measure(options.name, known, options.tasks, options.trips, options.seconds)
    except WrongAnswerError as error:
        said = {"problem": str(error), "wrong": True}
    except Exception as error:  # noqa: BLE001 - any library's error is reported to the program that started this one
        said = {"problem": f"{type(error).__name__}: {error}"}
    sys.stdout.write("\n" + json.dumps(said) + "\n")


def measure(name: str, known: Sequence[tuple[dict[str, Any], str]], tasks: int, trips: int, seconds: float) -> dict[str, Any]:
    """The rate at which its workers empty a full queue, and round trips of a program that waits for each."""
    peer: PeerQueue = import_module(f"benchmarks.peers.{name}_peer").Peer()
    with ExitStack() as resources:
        resources.enter_context(closing(peer))
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="persona-bench-")))
        workers = []
        for number, command in enumerate(peer.workers):
            process = ChildProcess(command, log=folder / f"worker{number}.log", directory=folder)
            resources.callback(process.kill)
            workers.append(process)
        turns = itertools.cycle(known)
        _await_ready(peer, turns, workers)
        trips_ms: list[float] = []
        ends_s = time.monotonic() + seconds
        while len(trips_ms) < trips and time.monotonic() < ends_s:
            trips_ms.append(_ask(peer, *next(turns)))
        for process in workers:  # they stand still while the queue fills: it is emptied at their pace, not at this program's
            os.killpg(process.pid, signal.SIGSTOP)
        asked = list(itertools.islice(turns, tasks))
        peer.fill(request for request, _ in asked)
        began_s = time.perf_counter()
        for process in workers:
            os.killpg(process.pid, signal.SIGCONT)
        _until(lambda: peer.ended() >= tasks, f"{tasks} tasks have ended")
        took_s = time.perf_counter() - began_s
        for (_, content), result in zip(asked, peer.results(), strict=True):
            _check(result, content)
    return {"per_s": tasks / took_s, "trips_ms": trips_ms}


def _await_ready(peer: PeerQueue, turns: itertools.cycle[tuple[dict[str, Any], str]], workers: list[ChildProcess]) -> None:
    """Also the warm-up: every process has connected and answered by the end of it."""
    _ask(peer, *next(turns), timeout_s=READY_TIMEOUT_S)
    ends_s = time.monotonic() + SETTLE_S
    while time.monotonic() < ends_s:
        _ask(peer, *next(turns))
    for process in workers:
        if process.exit_code is not None:
            raise RuntimeError(f"a worker ended with {process.exit_code}")


def _ask(peer: PeerQueue, request: dict[str, Any], content: str, *, timeout_s: float = TASK_TIMEOUT_S) -> float:
    began_s = time.perf_counter()
    answer = peer.ask(request, timeout_s)
    took_ms = (time.perf_counter() - began_s) * 1000
    _check(answer, content)
    return took_ms


def _check(answer: Any, content: str) -> None:
    if answer["content"] != content:
        raise WrongAnswerError(f"{str(answer['content'])[:60]!r} for {content[:60]!r}")


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + DRAIN_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not within {DRAIN_TIMEOUT_S:g} s: {what}")
        time.sleep(POLL_S)


if __name__ == "__main__":
    main()

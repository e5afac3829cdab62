"""Something is spoiled behind the suite's back, on real nodes: its checkers must report each."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

from polling import until

from benchmarks.kit.callers import META
from reliability.bench import Bench
from reliability.result import Result, Row, Say
from reliability.rows.workers import END_S


def _lose(bench: Bench) -> None:
    """A message is taken out of the queue: as one that a server has given away and nobody noted."""
    for node in bench.fleet.nodes:
        node.freeze()
    until(lambda: bench.fleet.queued() > 3, "messages wait")
    bench.fleet.queue.lpop("persona")
    for node in bench.fleet.nodes:
        node.thaw()


def _mistake(bench: Bench) -> None:
    """The model answers one question with another one's answer."""
    right = bench.fleet.endpoint.answer
    bench.fleet.endpoint.answer = lambda _: "another's"
    time.sleep(1.0)
    bench.fleet.endpoint.answer = right


def _repeat(bench: Bench) -> None:
    """One outcome is told once more."""

    def answered() -> list[str]:
        return [task_id for task_id, asked in list(bench.callers.asked.items()) if asked.answered_s and asked.phase != "fill"]

    until(answered, "one is answered")
    task_id = answered()[-1]
    with bench.callers._client() as client:
        client.publish(f"{META}{task_id}", client.get(f"{META}{task_id}") or json.dumps({"status": "SUCCESS"}))


def _forget(bench: Bench) -> None:
    """The writer does not invalidate, and says that it did."""
    bench.watch.invalidates = lambda _: True
    time.sleep(3.0)


def _end(bench: Bench) -> None:
    """A node ends by itself."""
    bench.fleet.node.stop(wait=False)
    until(lambda: not bench.fleet.node.running, "it has ended", bound_s=END_S)


def _mutant(name: str, act: Callable[[Bench], None]) -> Row:
    def run(_: int, say: Say) -> Result:
        with Bench(say, nodes=1) as bench:
            return bench.befall(name, 1, act, answered_s=8.0)

    return Row(name, (), (act.__doc__ or "").replace("\n", " "), run, trials=1)


MUTANTS: Final[Any] = tuple(
    _mutant(name, act)
    for name, act in {"lost": _lose, "wrong": _mistake, "twice": _repeat, "stale": _forget, "ended": _end}.items()
)

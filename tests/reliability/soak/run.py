"""A soak from its start to its judgement."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

from polling import until
from rabbit import missing
from sender import Sender

from reliability.bench import Bench
from reliability.result import Result, Say
from reliability.soak.faults import FAULTS
from reliability.soak.program import Program
from reliability.soak.sampling import Sample, sample
from reliability.soak.shop import Shop
from reliability.soak.slopes import Slope, breaches, slopes

EVERY_S: Final = (5.0, 15.0)
SAMPLE_EVERY_S: Final = 5.0
NODES: Final = 3
WARM_TASKS: Final = 1_200 * NODES
"""New questions, before the first fault: a node remembers the last thousand requests and outcomes, and grows until then."""
WARM_A_SECOND: Final = 2
"""Of a short run: no more than this."""
WARM_S: Final = 600.0
MOST_BACK_S: Final = 45.0
"""Faults overlap with what the one before has left."""
TELL_EVERY_S: Final = 30.0
JOIN_S: Final = 20.0
LOAD: Final[Any] = {"delay_ms": 150.0, "hits_per_s": 15.0, "slow_per_s": 3.0}
ENVIRON: Final = {
    "PERSONA_RESULT_TTL_S": "300",
    "PERSONA_STALE_GRACE_S": "30",
    "PERSONA_L1_MAX_ENTRIES": "200",  # and L1 is full
    "PERSONA_UNKNOWN_TASK_S": "0",
    "PERSONA_PRELOAD_INTERVAL_S": "20",
}


@dataclass(frozen=True)
class Soak:
    seed: int
    seconds: float
    result: Result
    faults: Counter[str]
    program: Program
    samples: Sequence[Sample]
    slopes: Sequence[Slope]
    problems: Sequence[str]
    shop: Mapping[str, Any] = field(default_factory=dict)
    """What the app on RabbitMQ tells; nothing where there was none."""
    left_out: str = ""
    """Why there was none."""


MOST_TRACED: Final = 20
MOST_LINES: Final = 8
NEAR_S: Final = 15.0


def soak(
    seconds: float,
    *,
    seed: int,
    every_s: tuple[float, float],
    say: Say,
    second: bool = True,
    only: Sequence[str] = (),
) -> Soak:
    """`second`: with a second broker, if one is installed. `only`: these of its faults; all unless given. Raises what a fault
    could not end in its time: then the fleet's logs are printed."""
    happened: Counter[str] = Counter()
    left_out = missing() if second else "--without-rabbitmq"
    with (
        Bench(say, nodes=NODES, environ=ENVIRON, wires=("broker", "cache"), seed=seed, **LOAD) as bench,
        ExitStack() as resources,
    ):
        shop = None if left_out else resources.enter_context(Shop(bench))
        faults = dict(FAULTS) | (shop.faults() if shop else {})
        faults = {name: faults[name] for name in only or faults}
        _warm(bench, min(WARM_TASKS, int(WARM_A_SECOND * seconds)), say)
        program, sampler = Program(bench.fleet), _Sampler(bench, shop)
        began_s = time.monotonic()
        told_s = began_s
        when: list[tuple[float, float, str]] = []

        def befall(bench: Bench) -> None:
            nonlocal told_s
            name = bench.chance.choice(list(faults))
            happened[name] += 1
            fault_began_s = time.monotonic()
            faults[name](bench)
            when.append((fault_began_s - began_s, time.monotonic() - began_s, name))
            if time.monotonic() - told_s > TELL_EVERY_S:
                told_s = time.monotonic()
                say(f"soak: {(told_s - began_s) / 60:.1f} of {seconds / 60:g} minutes, {happened.total()} faults")

        with program, sampler:
            result = bench.befall_for("soak", seconds, befall, rest_s=every_s, most_back_s=MOST_BACK_S)
            sampler.now()
            sold = shop.ended() if shop else {}
        found = slopes(sampler.samples)
        problems = [*result.problems, *breaches(found)]
        for count, what in ((result.lost, "lost"), (result.wrong, "wrong or stale"), (result.twice, "answered twice")):
            problems += [f"{count} of {result.tasks} tasks were {what}"] if count else []
        problems += _traces_of_lost(bench, began_s, when) if result.lost else []
        problems += [f"{program.wrong} answers of the program were wrong"] if program.wrong else []
        late = sum(count for name, count in program.told.items() if name.endswith("late"))
        problems += [f"the program waited {late} times to the end of its patience"] if late else []
        problems += _of_shop(sold)
        took_s = time.monotonic() - began_s
        return Soak(seed, took_s, result, happened, program, sampler.samples, found, problems, sold, left_out)


def _traces_of_lost(bench: Bench, began_s: float, when: Sequence[tuple[float, float, str]]) -> list[str]:
    """Of each task that has no outcome: when it was sent, which faults were near, and what the nodes' logs have of it."""
    logs, told = bench.fleet.logs().splitlines(), []
    for task_id, asked in bench.callers.lost("soak")[:MOST_TRACED]:
        sent_s = asked.sent_s - began_s
        near = [
            f"{name} {begun_s:.1f} to {ended_s:.1f}"
            for begun_s, ended_s, name in when
            if begun_s - NEAR_S < sent_s < ended_s + NEAR_S
        ]
        told.append(f"lost: {task_id}, sent after {sent_s:.1f} s, near {', '.join(near) or 'no fault'}")
        told += [f"  {line[:300]}" for line in logs if task_id in line][:MOST_LINES]
    return told


def _warm(bench: Bench, tasks: int, say: Say) -> None:
    say(f"soak: {tasks} tasks to warm up")
    with Sender.of(bench.fleet) as sender:
        sender.request(tasks)
    until(lambda: bench.fleet.queued() + bench.fleet.claimed() == 0, "the nodes are warm", bound_s=WARM_S)


def _of_shop(sold: Mapping[str, Any]) -> list[str]:
    if not sold or "problem" in sold:
        return [sold["problem"]] if sold else []
    bad = [f"{sold[name]} of {sold[of]} {what} of the app on RabbitMQ" for name, of, what in _NONE if sold[name]]
    return bad + ([] if sold["reads"] else ["the app on RabbitMQ was told nothing"])


_NONE: Final = (
    ("lost", "sent", "tasks are lost"),
    ("failed", "sent", "tasks failed"),
    ("stale", "reads", "reads were stale beyond the bound"),
)


class _Sampler:
    """A thread that looks every few seconds."""

    def __init__(self, bench: Bench, shop: Shop | None) -> None:
        self._bench, self._shop = bench, shop
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="sampler", daemon=True)
        self.samples: list[Sample] = []

    def now(self) -> None:
        seen = sample(self._bench.fleet, time.monotonic(), self._bench.fleet.node.name)
        more = self._shop.values() if self._shop else {}
        self.samples.append(Sample(seen.at_s, {**seen.values, **more}))

    def __enter__(self) -> _Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(JOIN_S)

    def _look(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            self.now()

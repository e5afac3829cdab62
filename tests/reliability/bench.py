"""A fleet under load, and what befalls it: the same for every row."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Final, Self

import redis
from fleet import Fleet, WorkerNode

from benchmarks.kit.callers import Asked, Callers
from benchmarks.kit.model_server import answer_to
from pipeline.settings import load_settings
from reliability import checkers
from reliability.result import SEED, Result, Say
from reliability.watch import Watch
from reliability.wire import Wire

BACK_S: Final = 60.0
ANSWERED_S: Final = 60.0
"""Then a task that has no outcome is lost."""
FEW: Final = 20
CATCH_UP_S: Final = 60.0
CATCH_UP_LOOK_S: Final = 0.1
BOUND_S: Final = 1.0
"""The staleness bound."""
LAST_LINES: Final = 40
MOST_CHARS: Final = 300

Fault = Callable[["Bench"], object]
"""Begins and ends it: what the nodes meet is over when it returns."""


class Bench:
    """`with Bench(say) as bench:` two nodes of two children, callers that know nothing of this project, and a watch on what is
    stale. Used by one thread."""

    def __init__(
        self,
        say: Say,
        *,
        nodes: int = 2,
        concurrency: int = 2,
        delay_ms: float = 400.0,
        hits_per_s: float = 15.0,
        slow_per_s: float = 3.0,
        environ: Mapping[str, str] | None = None,
        each: Sequence[Mapping[str, str]] = (),
        wires: Sequence[str] = (),
        seed: int = SEED,
        **options: Any,
    ) -> None:
        """`each`: further variables of the first node, the second, and so on. `wires`: which servers (broker, cache) the nodes
        reach by a wire alone; callers and watch go straight to them."""
        self.say = say
        self.chance = random.Random(seed)
        self.fleet = Fleet(nodes=0, concurrency=concurrency, delay_ms=delay_ms, environ=environ, **options)
        self._rates = hits_per_s, slow_per_s
        self._each = [*each, *[{}] * (nodes - len(each))]
        self._wired = tuple(wires)
        self.wires: dict[str, Wire] = {}
        self._resources = ExitStack()
        self._exits: list[str] = []

    def __enter__(self) -> Self:
        try:
            self._resources.enter_context(self.fleet)
            self.fleet.endpoint.answer = answer_to
            for name in self._wired:
                self.wires[name] = self._resources.enter_context(Wire(getattr(self.fleet, name).port))
            ways = {f"PERSONA_{name.upper()}_URL": wire.url for name, wire in self.wires.items()}
            for environ in self._each:
                self.fleet.add_node(wait=False, environ={**ways, **environ})
            for node in self.fleet.nodes:
                node.wait_ready()
            self.watch = Watch(self.fleet)
            settings = load_settings(self.fleet.environ)
            self.callers = self._resources.enter_context(Callers(settings, hits_per_s=self._rates[0], slow_per_s=self._rates[1]))
        except BaseException:
            self._resources.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._resources.__exit__(kind, error, trace)

    def any_node(self) -> WorkerNode:
        return self.chance.choice(self.fleet.nodes)

    def befall(self, phase: str, trials: int, fault: Fault, **bounds: Any) -> Result:
        """The fault under load, so many times, and until all is answered. `bounds`: see `befall_for`."""
        return self._under_load(phase, lambda done, _: done < trials, fault, told=f" of {trials}", **bounds)

    def befall_for(self, phase: str, seconds: float, fault: Fault, **bounds: Any) -> Result:
        """The same for so long. `rest_s`: before each fault. `most_back_s`: from the fault's end to an answer. `most_failed`:
        tasks that may fail. `answered_s`: then a task without an outcome is lost."""
        return self._under_load(phase, lambda _, took_s: took_s < seconds, fault, told="", **bounds)

    def _under_load(
        self,
        phase: str,
        goes_on: Callable[[int, float], bool],
        fault: Fault,
        *,
        told: str,
        rest_s: tuple[float, float] = (0.3, 1.0),
        most_back_s: float = 15.0,
        most_failed: int = 0,
        answered_s: float = ANSWERED_S,
    ) -> Result:
        back_s: list[float] = []
        began_s = time.monotonic()
        with self.watch, self.callers.load(phase):
            while goes_on(len(back_s), time.monotonic() - began_s):
                if len(back_s) % 5 == 0 and told:
                    self.say(f"{phase}: {len(back_s)}{told}")
                time.sleep(self.chance.uniform(*rest_s))
                self._catch_up()
                fault(self)
                self._revive()
                back_s.append(self.callers.first_answer_s(time.monotonic(), BACK_S))
        self.say(f"{phase}: until all is answered")
        self.callers.await_answers(phase, answered_s)
        return self._judged(phase, back_s, most_back_s, most_failed)

    def _judged(self, phase: str, back_s: list[float], most_back_s: float, most_failed: int) -> Result:
        tally = self.callers.tally(phase)
        stale = checkers.stale(self.watch.reads, self.watch.versions, BOUND_S)
        longest_s = max((each.answered_s - each.sent_s for each in self._of(phase) if each.answered_s), default=0.0)
        problems = list(self._exits)
        if tally.failed - tally.buried > most_failed:
            problems.append(f"{tally.failed - tally.buried} tasks failed")
        if late := checkers.too_late(back_s, most_back_s):
            problems.append(f"{len(late)} times more than {most_back_s:g} s until a task was answered, {max(late):.1f} s at most")
        if stale:
            problems.append(f"{len(stale)} of {len(self.watch.reads)} reads were stale beyond {BOUND_S:g} s")
        return Result(
            len(back_s),
            tally.sent,
            lost=tally.lost,
            wrong=tally.wrong + len(stale),
            twice=tally.twice,
            back_s=tuple(back_s),
            more={"watched": len(self.watch.reads), "failed": tally.failed, "longest_s": longest_s},
            problems=tuple(problems),
        )

    def _of(self, phase: str) -> list[Asked]:
        return [asked for asked in self.callers.asked.values() if asked.phase == phase and asked.sent_s]

    def _catch_up(self) -> None:
        """A fault begins when few messages wait: else what is measured is how long a queue a slow machine has."""
        deadline_s = time.monotonic() + CATCH_UP_S
        while self._waiting() > FEW and time.monotonic() < deadline_s:
            time.sleep(CATCH_UP_LOOK_S)

    def _waiting(self) -> int:
        try:
            return self.fleet.queued()
        except (redis.RedisError, OSError):
            return 0

    def _revive(self) -> None:
        """A node that has ended by itself is a problem, and is started anew: the others are not to suffer for it."""
        for node in self.fleet.nodes:
            if not node.running:
                last = "\n  ".join(line[:MOST_CHARS] for line in node.log().splitlines()[-LAST_LINES:])
                self._exits.append(f"{node.name} ended by itself with {node.exit_code}; its log ends:\n  {last}")
                node.start()

"""Programs that send requests at a given moment, or at a given rate: processes of their own, and the outcome of each request."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import msgspec

from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.fleet import Fleet
from pipeline.models import PersonaRequest, Source
from workers.client import PersonaClient
from workers.stack.processes import ChildProcess

Way = Literal["client", "raw"]
"""By PersonaClient, or by `send_task` of a Celery app that knows nothing of this project."""

READY_TIMEOUT_S: Final = 60.0
AHEAD_S: Final = 0.2
"""From the announcement of the moment to the moment: all programs have read it by then."""
REPORT_MARGIN_S: Final = 60.0
WARM_UP_KEY: Final = "calm-flowing-planning"
WARM_UPS_A_CHILD: Final = 3  # a child that is still busy with its first may leave the others to its neighbour


class Plan(msgspec.Struct, frozen=True):
    """The requests of one program. With `rate_per_s`: `count` requests, in turn, one at each intended moment, whatever becomes of
    the earlier ones (an open loop). Without: each of the requests once, all at the same moment, from `threads` threads."""

    requests: tuple[PersonaRequest, ...]
    rate_per_s: float = 0.0
    count: int = 0
    threads: int = 1
    timeout_s: float = 60.0


class Happened(msgspec.Struct, frozen=True, array_like=True):
    """The outcome of a request. `due_s`: the moment at which it was to be sent (monotonic clock); `took_s` counts from there.
    `source` is empty, and `error` says why, if there was no answer."""

    due_s: float
    took_s: float
    source: Source | Literal[""]
    right: bool = False
    degraded: bool = False
    error: str = ""

    @property
    def ended_s(self) -> float:
        return self.due_s + self.took_s


class Producers:
    """`with Producers(fleet, client=8, raw=2) as producers:` that many programs of each way, connected and idle."""

    def __init__(self, fleet: Fleet, *, client: int, raw: int = 0) -> None:
        ways: tuple[tuple[Way, int], ...] = (("client", client), ("raw", raw))
        self._ways = [way for way, programs in ways for _ in range(programs)]
        self._fleet = fleet
        self._folder = fleet.folder / f"producers-{time.monotonic_ns()}"
        self._processes: list[ChildProcess] = []
        self._round = 0

    def __enter__(self) -> Self:
        self._folder.mkdir()
        for number, way in enumerate(self._ways):
            command = [sys.executable, "-m", "benchmarks.kit.producers", str(self._folder), str(number), way]
            self._processes.append(self._fleet.start(f"{self._folder.name}-{number}", command))
        self._await("ready", READY_TIMEOUT_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for process in self._processes:
            process.kill()

    def run(self, plans: Sequence[Plan], meanwhile: Callable[[float], None] | None = None) -> list[list[Happened]]:
        """Let each program carry out its plan, all from the same moment on. Returns the outcomes, by program and in its order.

        `meanwhile` is called with that moment, some time before it.
        """
        self._round += 1
        for number, plan in enumerate(plans):
            write_whole(self._path("plan", number), msgspec.json.encode(plan))
        self._await(f"prepared {self._round}", READY_TIMEOUT_S)
        starts_at_s = time.monotonic() + AHEAD_S
        write_whole(go_path(self._folder, self._round), msgspec.json.encode(starts_at_s))
        if meanwhile is not None:
            meanwhile(starts_at_s)
        lasts_s = max(plan.count / plan.rate_per_s if plan.rate_per_s else 0.0 for plan in plans)
        longest_s = lasts_s + max(plan.timeout_s for plan in plans) + REPORT_MARGIN_S
        self._await(f"reported {self._round}", longest_s)
        return [
            msgspec.json.decode(self._path("report", number).read_bytes(), type=list[Happened]) for number in range(len(plans))
        ]

    def _path(self, what: str, number: int) -> Path:
        return path_of(self._folder, what, self._round, number)

    def _await(self, line: str, timeout_s: float) -> None:
        """Wait until every program has written that line."""

        def said(process: ChildProcess) -> bool:
            lines = process.log.read_text(encoding="utf-8", errors="replace").splitlines()
            if process.exit_code is not None:
                raise BenchmarkFailedError([f"a producer ended with {process.exit_code}; it said:", *lines[-5:]])
            return line in lines

        self._fleet.await_(lambda: all(map(said, self._processes)), f"each producer said: {line}", timeout_s=timeout_s)


def path_of(folder: Path, what: str, turn: int, number: int) -> Path:
    return folder / f"{what}-{turn}-{number}.json"


def go_path(folder: Path, turn: int) -> Path:
    return folder / f"go-{turn}.json"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that a reader finds whole or not at all."""
    beside = path.with_suffix(".new")
    beside.write_bytes(content)
    beside.replace(path)


def shared_among(requests: Sequence[PersonaRequest], programs: int) -> list[tuple[PersonaRequest, ...]]:
    """In turn, so that each program has some of every kind."""
    return [tuple(requests[number::programs]) for number in range(programs)]


def check_right(happened: Sequence[Happened], expected: int) -> list[str]:
    """The faults of these answers, as sentences."""
    problems = []
    errors = [each.error for each in happened if each.error]
    wrong = sum(not each.right for each in happened if not each.error)
    if len(happened) != expected:
        problems.append(f"{expected - len(happened)} of {expected} requests were lost")
    if errors:
        problems.append(f"{len(errors)} of {expected} requests failed, the first with {errors[0]}")
    if wrong:
        problems.append(f"{wrong} of {expected} answers were wrong")
    return problems


def warm_up(fleet: Fleet) -> None:
    """Let each pool child call the model, whose client costs a tenth of a second to make. The cache stays empty."""
    with PersonaClient(fleet.settings) as client:
        asked = [
            PersonaRequest.create(f"Warm up, number {number}.", WARM_UP_KEY, use_cache=False)
            for number in range(WARM_UPS_A_CHILD * fleet.children)
        ]
        problems = [str(each.error) for each in client.map(asked, concurrency=len(asked)) if each.error is not None]
    if problems:
        raise BenchmarkFailedError([f"{len(problems)} requests to warm up failed, the first with {problems[0]}"])

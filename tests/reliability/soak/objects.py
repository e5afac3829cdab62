"""Whether a node's memory grows without end: what its processes hold, under load, by objects and not by pages; without faults, or
between them. `PYTHONPATH=tests python -m reliability.soak.objects --seconds 240`."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from counted_app import DIRECTORY, LINES, SIGNAL
from polling import until

from reliability.bench import Bench
from reliability.soak.faults import FAULTS
from reliability.soak.run import ENVIRON
from reliability.soak.sampling import rss_mb

LOOKS: Final = 4
MOST_TYPES: Final = 12
MOST_LINES: Final = 10
QUIET_S: Final = 15.0
"""Between the last fault and a look: connections are made anew, and what waits is answered."""


def _kill_child(bench: Bench) -> None:
    node = bench.fleet.node
    if pids := node.pids:
        node.kill_child(bench.chance.choice(pids))


SURVIVED: Final[Mapping[str, Callable[[Bench], None]]] = {
    name: fault for name, fault in FAULTS.items() if name not in ("node killed", "node ended")
} | {"child killed": _kill_child}
"""What the main process outlives."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m reliability.soak.objects", description=__doc__)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--hits", type=float, default=60.0, help="a second")
    parser.add_argument("--new", type=float, default=6.0, help="new questions a second")
    parser.add_argument("--every", type=float, help="seconds between faults; none unless given", metavar="SECONDS")
    parser.add_argument("--only", nargs="+", choices=sorted(SURVIVED), help="these faults alone", metavar="FAULT")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="of the order of the faults")
    parser.add_argument("--lines", action="store_true", help="also say which lines of code hold more; slows the node down")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        Bench(
            lambda text: print(text, file=sys.stderr),  # noqa: T201
            nodes=1,
            app="counted_app",
            environ={**ENVIRON, DIRECTORY: directory, **({LINES: "1"} if given.lines else {})},
            delay_ms=50.0,
            hits_per_s=given.hits,
            slow_per_s=given.new,
            wires=("broker", "cache"),
            seed=given.seed,
        ) as bench,
    ):
        print("| after s | process | objects | blocks | MB |\n|---|---|---|---|---|")  # noqa: T201
        began_s = time.monotonic()
        happened: Counter[str] = Counter()
        held: list[Counter[str]] = []
        lines: dict[str, list[tracemalloc.Snapshot]] = defaultdict(list)
        with bench.callers.load("objects"):
            for look in range(1, LOOKS + 1):
                ends_s = began_s + look * given.seconds / LOOKS
                if given.every:
                    happened += _befall(bench, given.only or list(SURVIVED), ends_s - QUIET_S, given.every)
                time.sleep(max(0.0, ends_s - time.monotonic()))
                main_pid, children = bench.fleet.node.pid, bench.fleet.node.pids
                for pid in (main_pid, *children):
                    counts = _counted(Path(directory) / f"{pid}", pid)
                    held += [Counter(counts["types"])] if pid == main_pid else []
                    name = "main" if pid == main_pid else f"child {pid}"
                    if given.lines:
                        lines[name].append(tracemalloc.Snapshot.load(str(Path(directory) / f"{pid}.lines")))
                    took_s, mb = time.monotonic() - began_s, rss_mb(pid)
                    print(f"| {took_s:.0f} | {name} | {counts['objects']} | {counts['blocks']} | {mb:.1f} |", flush=True)  # noqa: T201
        grown = Counter({name: held[-1][name] - held[0][name] for name in held[-1] | held[0]}).most_common(MOST_TYPES)
        print(f"\nthe main process, from the first look to the last: {', '.join(f'{name} {by:+d}' for name, by in grown)}")  # noqa: T201
        for name, seen in lines.items():
            if len(seen) > 1:
                print(f"\n{name}, between its last two looks:\n{_more(*seen[-2:])}", end="")  # noqa: T201
        if happened:
            told = ", ".join(f"{name} {count}" for name, count in happened.most_common())
            print(f"\n{happened.total()} faults, seed {given.seed}: {told}")  # noqa: T201
    return 0


def _more(before: tracemalloc.Snapshot, after: tracemalloc.Snapshot) -> str:
    most = sorted(after.compare_to(before, "lineno"), key=lambda line: -line.size_diff)[:MOST_LINES]
    return "".join(f"  {line}\n" for line in most)


def _befall(bench: Bench, names: Sequence[str], until_s: float, every_s: float) -> Counter[str]:
    happened: Counter[str] = Counter()
    while time.monotonic() + every_s < until_s:
        time.sleep(every_s)
        name = bench.chance.choice(names)
        SURVIVED[name](bench)
        happened[name] += 1
    return happened


def _counted(path: Path, pid: int) -> dict[str, Any]:
    path.unlink(missing_ok=True)
    os.kill(pid, SIGNAL)
    until(path.exists, f"process {pid} has counted")
    counts: dict[str, Any] = json.loads(path.read_text())
    return counts


if __name__ == "__main__":
    sys.exit(main())

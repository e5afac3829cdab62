"""Whether a node's memory grows without end: what its processes hold, under load without faults, by objects and not by pages.
`PYTHONPATH=tests python -m reliability.soak.objects --seconds 240`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from counted_app import DIRECTORY, SIGNAL
from polling import until

from reliability.bench import Bench
from reliability.soak.run import ENVIRON
from reliability.soak.sampling import rss_mb

LOOKS: Final = 4


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m reliability.soak.objects", description=__doc__)
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--hits", type=float, default=60.0, help="a second")
    parser.add_argument("--new", type=float, default=6.0, help="new questions a second")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as directory,
        Bench(
            lambda text: print(text, file=sys.stderr),  # noqa: T201
            nodes=1,
            app="counted_app",
            environ={**ENVIRON, DIRECTORY: directory},
            delay_ms=50.0,
            hits_per_s=given.hits,
            slow_per_s=given.new,
        ) as bench,
    ):
        print("| after s | process | objects | blocks | MB |\n|---|---|---|---|---|")  # noqa: T201
        began_s = time.monotonic()
        with bench.callers.load("objects"):
            for look in range(1, LOOKS + 1):
                time.sleep(max(0.0, began_s + look * given.seconds / LOOKS - time.monotonic()))
                main_pid, children = bench.fleet.node.pid, bench.fleet.node.pids
                for pid in (main_pid, *children):
                    counts = _counted(Path(directory) / f"{pid}", pid)
                    name = "main" if pid == main_pid else f"child {pid}"
                    took_s, mb = time.monotonic() - began_s, rss_mb(pid)
                    print(f"| {took_s:.0f} | {name} | {counts['objects']} | {counts['blocks']} | {mb:.1f} |", flush=True)  # noqa: T201
    return 0


def _counted(path: Path, pid: int) -> dict[str, int]:
    path.unlink(missing_ok=True)
    os.kill(pid, SIGNAL)
    until(path.exists, f"process {pid} has counted")
    counts: dict[str, int] = json.loads(path.read_text())
    return counts


if __name__ == "__main__":
    sys.exit(main())

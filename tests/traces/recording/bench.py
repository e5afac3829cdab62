"""The benchmark `coherence` with a recorder in each of its processes: `python -m traces.recording.bench DIRECTORY`. Its figures
are those of processes that write down what they do; what calls cost is not measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

DIRECTORY = "TRACES_DIRECTORY"
TIMEOUT_S = 240
RECORDED = {
    "benchmarks.kit.fleet_app": "traces.recording.fleet_app",
    "benchmarks.kit.installed_app": "traces.recording.installed_app",
}
"""The benchmark's apps, and the same with a recorder."""
_TESTS = Path(__file__).parents[2]


def measured(directory: Path, *, quick: bool) -> dict[str, Any]:
    """Run the benchmark in a process of its own, which leaves the traces in the directory. Returns its figures."""
    command = [sys.executable, "-m", "traces.recording.bench", str(directory), *(["--quick"] if quick else [])]
    path = os.pathsep.join((str(_TESTS.parent), str(_TESTS)))  # the nodes run in a folder of their own
    environ = os.environ | {"PYTHONPATH": path, DIRECTORY: str(directory.absolute())}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise AssertionError(f"the benchmark ended with {done.returncode}:\n{done.stderr[-4000:]}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def main() -> int:
    directory, quick = Path(sys.argv[1]), "--quick" in sys.argv
    from benchmarks.kit.fleet import APP, Fleet
    from benchmarks.measures import coherence
    from traces.recording.recorded import RECORDER  # installs the hooks, and only in this process

    def fleet(*given: Any, app: str = APP, **named: Any) -> Fleet:
        return Fleet(*given, app=RECORDED[app], environ={DIRECTORY: str(directory)}, **named)

    parts: dict[str, Any] = vars(coherence)
    parts["Fleet"] = fleet
    parts["measure_invalidate"] = parts["measure_get"] = lambda *_: {}
    figures = coherence.measure_coherence(lambda _: None, quick=quick)
    RECORDER.flush()
    sys.stdout.write(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())

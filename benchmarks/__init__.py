"""Benchmarks: the costs of this project, beside its peers. Not in the wheel.

Measures by the public faces of `workers` and `pipeline`; neither of them ever imports it.
"""

import os
from pathlib import Path

# It is not installed: programs that a benchmark starts in folders of their own find it by this path.
_ROOT = str(Path(__file__).parents[1])
os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([_ROOT, *os.environ.get("PYTHONPATH", "").split(os.pathsep)])).rstrip(
    os.pathsep
)

"""One process whose calls are broken off: `python -m interruptions.process WAY URL DELAY_S COUNT SEED`. Prints JSON.

It ends by itself when nothing goes on for a minute, which its parent sees as a crash.
"""

from __future__ import annotations

import sys

if sys.argv[1:2] == ["greenlet"]:
    from gevent import monkey

    monkey.patch_all()

import collections
import faulthandler
import json
import os
import random
from collections.abc import Callable
from typing import Any

from interruptions.paths import Paths
from interruptions.ways import WAYS, Task

STUCK_S = 60.0


def main(way: str, url: str, delay_s: float, count: int, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    paths = Paths(url, f"broken-{way.replace(' ', '-')}-{seed}", rng)
    run: Any = WAYS[way](rng, 1e-3 + 3 * delay_s)
    disturbed: dict[str, Callable[[], Any]] = paths.awaited if isinstance(run, Task) else dict(paths.disturbed)
    names = sorted(disturbed)
    broken: collections.Counter[str] = collections.Counter()
    raw: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    tries = 0
    descriptors = None
    if isinstance(run, Task):
        paths.awaits(run.result)
    while broken.total() < count and len(wrong) < 20:
        faulthandler.dump_traceback_later(STUCK_S, exit=True)
        name = names[tries % len(names)]
        tries += 1
        try:
            broken[name] += run(disturbed[name])
        except Exception as error:  # noqa: BLE001 - what a disturbed call may raise besides is told, and no finding
            raw[f"{name}: {type(error).__name__}"] += 1
        wrong += [f"after {name}: {what}" for what in paths.wrong_reads()]
        if tries == 200:
            descriptors = _descriptors()
    grown = _descriptors() - descriptors if descriptors is not None else 0
    paths.close()
    faulthandler.cancel_dump_traceback_later()
    return {
        "tries": tries,
        "broken_off": broken.total(),
        "by_path": dict(broken),
        "wrong": wrong,
        "reads": paths.reads,
        "hits": paths.hits,
        "descriptors_grown": grown,
        "other_errors_of_disturbed_calls": dict(raw),
    }


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a path object for each would be a descriptor's worth of noise


if __name__ == "__main__":
    way, url, delay_s, count, seed = sys.argv[1:]
    sys.stdout.write(json.dumps(main(way, url, float(delay_s), int(count), int(seed))) + "\n")
    sys.stdout.flush()
    os._exit(0)  # a thread that was stopped in the middle may hold what an ordered end waits for

"""Breaks exchanges off in processes of their own, through a network of several latencies, and adds up their observations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from servers import ValkeyServer

from interruptions.ways import WAYS

TESTS = Path(__file__).parents[1]
LATENCIES_S = (0.0, 0.001, 0.01)
LONGEST_S = 1800.0


class Outcome(NamedTuple):
    """One process: how it was disturbed, at which latency, its observations, and its end if it did not end by itself."""

    way: str
    latency_s: float
    seen: dict[str, Any]
    crash: str


@contextmanager
def network(port: int, latency_s: float) -> Iterator[int]:
    """The port of a proxy to that port, which holds replies back."""
    command = [sys.executable, "-m", "interruptions.proxy", str(port), str(latency_s)]
    proxy = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment(), cwd=TESTS)
    assert proxy.stdin is not None
    assert proxy.stdout is not None
    try:
        yield int(proxy.stdout.readline())
    finally:
        proxy.kill()
        proxy.communicate()


def break_off(
    exchanges: int, *, seed: int, ways: Sequence[str] = tuple(WAYS), latencies_s: Sequence[float] = LATENCIES_S
) -> Iterator[Outcome]:
    """At least `exchanges` in all, spread evenly over the ways and latencies."""
    each = -(-exchanges // (len(ways) * len(latencies_s)))
    with ValkeyServer() as server:
        for latency_s in latencies_s:
            with network(server.port, latency_s) as port:
                for way in ways:
                    yield _outcome(way, f"redis://127.0.0.1:{port}/0", latency_s, each, seed)


def _outcome(way: str, url: str, latency_s: float, count: int, seed: int) -> Outcome:
    command = [sys.executable, "-X", "faulthandler", "-m", "interruptions.process", way, url, str(latency_s), str(count)]
    done = subprocess.run(
        [*command, str(seed)], capture_output=True, text=True, timeout=LONGEST_S, check=False, env=_environment(), cwd=TESTS
    )
    if done.returncode != 0 or not done.stdout:
        return Outcome(way, latency_s, {}, f"ended by {done.returncode}: {done.stderr[-3000:]}")
    return Outcome(way, latency_s, json.loads(done.stdout.splitlines()[-1]), "")


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}

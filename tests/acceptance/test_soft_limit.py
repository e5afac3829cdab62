"""Tasks that meet their soft time limit in the middle of an exchange with the cache's server, in a real worker."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from interruptions.run import network
from servers import ValkeyServer

TESTS = Path(__file__).parents[1]
BOUND_S = 60.0
LIMIT_S = 0.05


@pytest.fixture
def worker(valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """One process takes all tasks. The cache is a millisecond away."""
    with network(valkey.port, 0.001) as port:
        monkeypatch.setenv("SOFT_LIMITS_BROKER", valkey.url_of(7))
        monkeypatch.setenv("SOFT_LIMITS_CACHE", f"redis://127.0.0.1:{port}/0")
        command = [sys.executable, "-m", "celery", "-A", "soft_limits", "worker", "-c", "1", "-l", "ERROR", "--without-mingle",
                   "--without-gossip"]  # fmt: skip
        environ = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
        with subprocess.Popen(command, env=environ, cwd=TESTS, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            try:
                yield process
            finally:
                process.terminate()
                process.communicate(timeout=BOUND_S)


def test_the_task_after_one_that_met_its_limit_reads_its_own_answers(worker: subprocess.Popen[bytes]) -> None:
    """The process lives on, and every path to the server was under way when the limit came."""
    import soft_limits

    with soft_limits.app:
        names = soft_limits.names.delay().get(timeout=BOUND_S)
        pids = set()
        for name in names * 2:
            assert soft_limits.use_the_cache.apply_async((name,), soft_time_limit=LIMIT_S).get(timeout=BOUND_S) is True
            seen = soft_limits.read.delay().get(timeout=BOUND_S)
            assert seen["wrong"] == [], f"after {name}"
            pids.add(seen["pid"])
        assert len(pids) == 1
        assert seen["hits"] > seen["reads"] / 2
    assert worker.poll() is None

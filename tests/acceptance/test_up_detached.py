"""The whole stack in the background, by the commands of a user: up, status, ask, logs, down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from polling import until
from supervised import alive, published

from benchmarks.kit.endpoint import ScriptedEndpoint

COMMAND = [sys.executable, "-m", "workers.cli"]
BOUND_S = 120.0

pytestmark = pytest.mark.long


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A place of its own and a scripted model; the stack is stopped, whatever the test does."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PERSONA_")}
    with ScriptedEndpoint() as endpoint:
        environ = {**kept, "PERSONA_LLM_URL": endpoint.url, "PERSONA_LLM_MODEL": "scripted"}
        environ |= {"PERSONA_STACK_DIR": str(tmp_path / ".persona"), "COLUMNS": "80", "NO_COLOR": "1"}
        yield environ
        run(environ, "down")
        run(environ, "down")  # if it took too long: now at once


def run(environ: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_a_newcomer_s_walk(environ: dict[str, str]) -> None:
    """Each command says what it did; every part answers; the followed log ends with the stack; nothing is left."""
    up = run(environ, "up", "--detach", "--concurrency", "2")
    assert up.returncode == 0, up.stderr
    assert "persona down stops everything" in up.stdout
    directory = Path(environ["PERSONA_STACK_DIR"])
    pids = [service.pid for service in published(directory).services]

    status = run(environ, "status")
    assert status.returncode == 0, status.stdout + status.stderr
    for name in ("broker", "cache", "model", "worker", "beat", "flower"):
        assert any(line.split()[:2] == [name, "ready"] for line in status.stdout.splitlines()), status.stdout
    assert max(map(len, status.stdout.splitlines()[1:])) <= 80

    again = run(environ, "up", "--detach")
    assert again.returncode == 1
    assert "a stack is already running" in again.stderr

    answer = run(environ, "ask", "Why?", "--key", "calm-flowing-learning", "--json")
    assert json.loads(answer.stdout)["model"] == "scripted"
    seen: list[str] = []
    with subprocess.Popen([*COMMAND, "logs", "-f", "stack"], env=environ, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        reader = threading.Thread(target=seen.extend, args=(following.stdout,))
        reader.start()
        until(lambda: len(seen) >= 5, "the start is in the log")
        down = run(environ, "down")
        assert (down.returncode, down.stderr) == (0, "")
        assert following.wait(BOUND_S) == 0
        reader.join()
    assert not any(alive(pid) for pid in pids)
    assert not directory.exists()

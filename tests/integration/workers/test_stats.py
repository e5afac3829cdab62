"""`persona stats`: it shows the counted figures, and says so when there are none to be had."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from polling import until
from servers import ValkeyServer, free_port

from pipeline.cache.server.connection import RedisConnection
from pipeline.courier import Courier
from pipeline.figures import FigureKeys, Reporter
from workers.cli import main
from workers.cli.terminal.fleet_view import columns

COMMAND = [sys.executable, "-m", "workers.cli", "stats"]
PASSWORD = "canary-of-a-password"


@pytest.fixture
def reporter(redis_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Reporter]:
    """A process that has answered a hundred requests, one of which failed; the command looks where it reports."""
    for name in [name for name in os.environ if name.startswith("PERSONA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PERSONA_CACHE_URL", redis_url)
    monkeypatch.setenv("PERSONA_CACHE_NAMESPACE", namespace)
    monkeypatch.setenv("PERSONA_STACK_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("COLUMNS", "100")
    keys = FigureKeys(namespace)
    reporter = Reporter(
        Courier(lambda: RedisConnection(redis_url, timeout_s=5)), keys, node="n1@host", role="worker", l1_entries=lambda: 42
    )
    for source, count, ms in (("l1", 79, 0.02), ("l2", 15, 0.9), ("no", 5, 95.0), ("failed", 1, 20.0)):
        for _ in range(count):
            reporter.tally.record(source, ms)
    reporter.invalidated("e:1", time.time(), ("persona:[bold]lua:*",), durable=True)
    assert reporter.courier.deliver()
    yield reporter
    reporter.courier.close()


def test_it_shows_what_the_fleet_counted(reporter: Reporter, capsys: pytest.CaptureFixture[str]) -> None:
    """With the seed's distribution: for each source its count, its times and its share as a bar."""
    assert main(["stats"]) == 0
    shown = capsys.readouterr().out
    assert "├─ L1 (79): p50 0.02 ms, p99 0.02 ms" in shown
    assert "└─ computed (5): p50 92.0 ms" in shown
    assert re.search(r"│  └─ █{19}░{5} 79\.8%", shown), shown
    assert "100, 1 failed" in shown
    assert re.search(r"hit rate +94\.9%", shown)
    assert "5 made, 94 saved" in shown
    assert "0 nodes, 1 worker process, 0 producers" in shown
    assert "42 in L1" in shown
    assert "persona:[bold]lua:*" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_at_80_columns_no_row_is_broken(
    reporter: Reporter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is too long is cut, so that each invalidation, process and key has a line."""
    monkeypatch.setenv("COLUMNS", "80")
    reporter.invalidated("e:2", time.time(), tuple(f"persona:{'x' * 40}:{number}" for number in range(4)), durable=False)
    assert reporter.courier.deliver()
    assert main(["stats"]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = lines.index("The last invalidations")
    assert [" ago" in line for line in lines[at + 1 : at + 3]] == [True, True]
    assert any("…" in line for line in lines[at + 1 : at + 3])
    assert lines[at + 3] == ""
    assert sum("100 requests" in line and "42 in L1" in line for line in lines) == 1
    assert max(map(len, lines)) <= 80


def test_as_json_it_is_one_document(reporter: Reporter, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """With every field, in the words of the read API."""
    assert main(["stats", "--json", "--window", "60"]) == 0
    document = json.loads(capfdbinary.readouterr().out)
    assert document["available"] is True
    assert document["window_s"] == 60
    assert document["requests"] == {"l1": 79, "l2": 15, "joined": 0, "stale": 0, "no": 5, "failed": 1}
    assert document["nodes"][0]["processes"][0]["requests"]["l1"] == 79
    (slot,) = document["slots"]  # the other eleven had no request
    assert slot["requests"] == document["requests"]


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--watch"]], ids=" ".join)
def test_it_says_that_redis_is_away(
    reporter: Reporter, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """One sentence, with the address and without its password; exit 1."""
    monkeypatch.setenv("PERSONA_CACHE_URL", f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0")
    assert main(["stats", *arguments]) == 1
    said = capfdbinary.readouterr()
    assert re.fullmatch(r"error: cache: redis://:\*\*\*@127\.0\.0\.1:\d+/0 is out of reach: is it running\?\n", said.err.decode())
    if arguments == ["--json"]:
        assert json.loads(said.out)["error"]["kind"] == "cache_unavailable"


def test_without_a_cache_there_is_nowhere_to_look(
    reporter: Reporter, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the variable and the way out."""
    monkeypatch.delenv("PERSONA_CACHE_URL")
    assert main(["stats"]) == 1
    assert "PERSONA_CACHE_URL" in capsys.readouterr().err


def test_watch_and_json_do_not_go_together(reporter: Reporter, capfd: pytest.CaptureFixture[str]) -> None:
    """Bad usage: a document has an end."""
    assert main(["stats", "--watch", "--json"]) == 2
    assert "--watch" in capfd.readouterr().err


class Terminal:
    """A command in a terminal of its own, and its output there."""

    def __init__(self, command: list[str]) -> None:
        self.master, side = pty.openpty()
        self.process = subprocess.Popen(command, stdin=side, stdout=side, stderr=side, start_new_session=True)
        os.close(side)
        os.set_blocking(self.master, False)
        self._written = b""

    def written(self) -> str:
        try:
            while chunk := os.read(self.master, 65536):
                self._written += chunk
        except OSError:  # nothing now, or the other side is closed
            pass
        return re.sub(r"\x1b\[[0-9;]*m", "", self._written.decode(errors="replace"))  # without colours

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


def test_live_it_follows_survives_an_outage_and_ends_clean(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows what comes, says when Redis is away, comes back with it, and leaves the terminal as it was."""
    with ValkeyServer() as server:
        monkeypatch.setenv("PERSONA_CACHE_URL", server.url)
        monkeypatch.setenv("PERSONA_CACHE_NAMESPACE", namespace)
        monkeypatch.setenv("TERM", "xterm")
        reporter = Reporter(Courier(lambda: RedisConnection(server.url)), FigureKeys(namespace), node="n", role="worker")
        with closing(reporter.courier), closing(Terminal([*COMMAND, "--watch", "--every", "0.2"])) as terminal:
            shown: Any = terminal.written
            until(lambda: "L1 (0)" in shown(), "it shows nothing yet")
            for _ in range(1234):
                reporter.tally.record("l1", 0.01)
            reporter.courier.deliver()
            until(lambda: "L1 (1234)" in shown(), "it shows what came")
            server.stop()
            until(lambda: "out of reach" in shown(), "it says that Redis is away")
            seen = len(shown())
            server.start()
            until(lambda: "The fleet" in shown()[seen:], "it comes back")
            terminal.process.send_signal(signal.SIGINT)
            assert terminal.process.wait(20) == 130
            assert "Traceback" not in shown()
            assert shown().rindex("\x1b[?25h") > shown().rindex("\x1b[?25l"), "the cursor is back"


@pytest.mark.parametrize(
    ("values", "width", "chart"),
    [
        ([], 10, ""),
        ([0, 0, 0], 10, "   "),
        ([1, 2, 4], 10, "▃▅█"),
        ([0.001, 100], 10, "▁█"),
        ([1, 9, 1, 1, 8, 1], 3, "█▂▇"),
        ([9, 1, 1, 1, 8], 2, "█▇"),
    ],
)
def test_the_chart_shows_the_largest_of_what_a_column_stands_for(values: list[float], width: int, chart: str) -> None:
    """A short peak is not averaged away; any count above 0 shows."""
    assert columns(values, width) == chart

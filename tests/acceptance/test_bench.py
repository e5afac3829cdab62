"""`python -m benchmarks`: it measures on a fleet of its own, leaves nothing behind, and a wrong answer is no figure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from polling import until
from supervised import alive

from benchmarks.command import main as measure
from benchmarks.kit.board import Board
from benchmarks.kit.contract import Benchmark, Figures, Progress
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.reach import Moment, reach_figures
from benchmarks.registry import all_benchmarks

COMMAND = [sys.executable, "-m", "benchmarks"]
COHERENCE_FIGURES = {
    *("children", "reached", "p50_ms", "p99_ms", "max_ms"),
    *("stock_reached", "stock_p50_ms"),
    *("invalidate_1k_ms", "invalidate_1m_ms"),
}
MS = 1_000_000

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (thread / "children").read_text().split()):
            found += [child, *descendants(child)]
    return found


@pytest.mark.long
def test_coherence_reaches_every_child_and_serves_nothing_stale_beyond_the_bound() -> None:
    """The document has every figure that others read, and the answers it was measured on were right. No time is judged."""
    done = subprocess.run([*COMMAND, "coherence", "--quick", "--json"], check=False, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert set(document) == {"bench", "figures", "machine", "versions"}
    figures = document["figures"]
    assert document["bench"] == "coherence"
    assert set(figures) >= COHERENCE_FIGURES
    assert all(isinstance(number, int | float) for number in figures.values())
    assert figures["reached"] == figures["children"] == 6
    assert figures["stale_beyond_bound"] == 0
    assert figures["installed_reached"] == figures["installed_children"] == 6
    assert figures["installed_stale_beyond_bound"] == 0
    assert figures["samples"] > figures["invalidations"]
    assert {"cores", "cpu", "load_1m"} <= set(document["machine"])
    assert {"python", "celery", "kombu", "redis_py", "valkey", "persona_worker"} <= set(document["versions"])


@linux_only
def test_no_process_and_no_file_is_left_after_ctrl_c(tmp_path: Path) -> None:
    """Also in the middle of a measurement, with every slot of the fleet busy."""

    def in_shared_memory() -> list[Path]:
        return [path for name in names for path in Path("/dev/shm").glob(f"{name}-*")]

    environ = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([*COMMAND, "coherence", "--json"], stderr=subprocess.PIPE, text=True, env=environ) as process:
        try:
            assert process.stderr is not None
            said = ""
            for line in process.stderr:
                said += line
                if "slots are busy" in line:
                    break
            pids = descendants(process.pid)
            assert len(pids) >= 2 + 2 + 6, said  # servers, nodes, pool children
            names = [path.name for path in tmp_path.glob("persona-bench-*")]
            assert in_shared_memory()
            process.send_signal(signal.SIGINT)
            said += process.stderr.read()
            assert process.wait(timeout=30) == 130, said
        finally:
            process.kill()
    until(lambda: not any(map(alive, pids)), "every process is gone")
    assert not list(tmp_path.iterdir())
    assert not in_shared_memory()  # other benchmarks of this machine have theirs there


def test_a_benchmark_that_finds_a_wrong_answer_exits_1_and_shows_its_figures(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """A fast wrong one fails; the others still run, and the document says what was wrong."""

    def wrong(progress: Progress, *, quick: bool) -> Figures:
        raise BenchmarkFailedError(["a child served what was stale"], {"p99_ms": 0.1})

    def right(progress: Progress, *, quick: bool) -> Figures:
        return {"p99_ms": 2.0 if quick else 3.0}

    for name in list(all_benchmarks()):
        monkeypatch.delitem(all_benchmarks(), name)
    monkeypatch.setitem(all_benchmarks(), "wrong", Benchmark("wrong", "", 1, wrong))
    monkeypatch.setitem(all_benchmarks(), "right", Benchmark("right", "", 2, right))

    def run(*arguments: str) -> tuple[int, Any]:
        code = measure([*arguments, "--json"])
        return code, json.loads(capfdbinary.readouterr().out)

    code, document = run("wrong")
    assert (code, document["figures"]) == (1, {"p99_ms": 0.1})
    assert "a child served what was stale" in document["error"]["message"]
    code, document = run()
    assert code == 1
    assert [each["bench"] for each in document["benches"]] == ["wrong", "right"]
    monkeypatch.delitem(all_benchmarks(), "wrong")
    code, documents = run("--quick")
    assert (code, [each["figures"] for each in documents]) == (0, [{"p99_ms": 2.0}])


def test_an_unknown_benchmark_is_refused_with_the_names_that_there_are(capfd: pytest.CaptureFixture[str]) -> None:
    """Bad usage, told before anything is started."""
    assert measure(["speed"]) == 2
    said = capfd.readouterr().err
    assert "'speed'" in said
    assert all(name in said for name in all_benchmarks())


class TestFiguresOfReach:
    """The judgement itself: it must see what it is there to see."""

    MOMENTS = (Moment(1_000 * MS, 1_001 * MS), Moment(3_000 * MS, 3_001 * MS))

    @pytest.fixture
    def board(self, tmp_path: Path) -> Any:
        with closing(Board.create(tmp_path / "board", children=2, versions=2)) as board:
            for child in (0, 1):
                board.enter(child, pid=100 + child)
                board.served(child, 0, asked_ns=1_000 * MS, served_ns=1_000 * MS)
            board.served(0, 1, asked_ns=1_004 * MS, served_ns=1_005 * MS)
            board.served(0, 2, asked_ns=3_002 * MS, served_ns=3_003 * MS)
            yield board

    def figures(self, board: Board) -> Figures:
        return reach_figures(board, self.MOMENTS, warm_up=0, bound_s=1.0)

    def test_latency_counts_from_before_the_call(self, board: Board) -> None:
        """So the call itself is part of it."""
        board.served(1, 1, asked_ns=1_006 * MS, served_ns=1_007 * MS)
        board.served(1, 2, asked_ns=3_008 * MS, served_ns=3_009 * MS)
        figures = self.figures(board)
        assert (figures["reached"], figures["stale_beyond_bound"]) == (2, 0)
        assert (figures["p50_ms"], figures["max_ms"]) == (6.0, 9.0)

    def test_a_newer_version_is_fresh_too(self, board: Board) -> None:
        """A child that skipped a version was reached when it served the one after."""
        board.served(1, 2, asked_ns=1_900 * MS, served_ns=1_950 * MS)
        assert self.figures(board)["max_ms"] == 950.0

    def test_a_child_that_never_served_fresh_is_not_reached(self, board: Board) -> None:
        """Though no figure of time would show it."""
        figures = self.figures(board)
        assert (figures["reached"], figures["reached_share"]) == (1, 0.5)

    def test_a_late_old_version_is_stale_beyond_the_bound(self, board: Board) -> None:
        """Also when the child had served fresh in between."""
        board.served(1, 1, asked_ns=1_006 * MS, served_ns=1_007 * MS)
        board.served(1, 0, asked_ns=2_002 * MS, served_ns=2_002 * MS)
        board.served(1, 2, asked_ns=3_008 * MS, served_ns=3_009 * MS)
        figures = self.figures(board)
        assert (figures["reached"], figures["stale_beyond_bound"], figures["most_stale_ms"]) == (2, 1, 1001.0)

    def test_another_process_reads_what_a_child_wrote(self, board: Board) -> None:
        """A second mapping of the same file sees the words of the first."""
        with closing(Board(board.path)) as other:
            assert (other.children, other.versions, other.occupant(0)) == (2, 2, 100)
            other.ran_stock(101, 5)
        assert [board.stock_ns(child) for child in (0, 1)] == [0, 5]

"""The benchmarks `seed`, `queue` and `scale` on real servers and nodes: their figures are there, and a wrong answer is no figure.

No time is judged: these runs are quick, on a machine that others use.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from benchmarks.kit.drain import Drain
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.fleet import Fleet
from benchmarks.kit.model_server import ModelServer, expected_answer
from benchmarks.kit.requests import spread_over
from benchmarks.measures.queued import QUICK_PEERS
from benchmarks.measures.seed import SeedRuns
from benchmarks.peers import PEERS, installed
from pipeline.models import PersonaRequest
from pipeline.optimized import OptimizedPipeline
from pipeline.settings import load_settings
from workers.queue.factory import make_app

COMMAND = [sys.executable, "-m", "benchmarks"]
SEED_FIGURES = {"repeat50_saved_pct", "patterns10_saved_pct", "dashboard20_saved_pct", "simultaneous10_ms", "l1_1000_mb"}


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    with ModelServer(delay_ms=100) as model:
        yield model


@pytest.fixture(scope="module")
def runs() -> Iterator[SeedRuns]:
    with Fleet(print, nodes=0, children=0) as fleet, ModelServer(delay_ms=0) as quick_model:
        yield SeedRuns(load_settings({**fleet.environment, **quick_model.environment}), quick_model)


def measured(name: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [*COMMAND, name, "--quick", "--json", *arguments], check=False, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["bench"] == name
    assert all(isinstance(number, int | float) for number in document["figures"].values())
    return document


@pytest.mark.long
def test_seed_has_the_claim_this_run_and_the_limit_of_each_scenario(tmp_path: Path) -> None:
    """And no run is better than the possible limit."""
    figures = measured("seed", "--out", str(tmp_path))["figures"]
    assert figures.keys() >= SEED_FIGURES | {f"claim_{name}" for name in SEED_FIGURES} | {"model_ms"}
    for name in ("repeat50", "patterns10", "dashboard20"):
        assert 0 < figures[f"{name}_saved_pct"] <= figures[f"limit_{name}_saved_pct"] + 1
    assert figures["repetitive_hit_pct"] == figures["limit_repetitive_hit_pct"] == 90
    assert figures["model_ms"] >= figures["model_delay_ms"]
    assert (tmp_path / "benchmarks.md").exists()
    assert (tmp_path / "benchmarks" / "seed-saved.png").exists()


@pytest.mark.long
def test_queue_compares_hits_with_a_task_that_does_nothing_and_with_others() -> None:
    """The figures that others read are there; a peer that is not installed is a note."""
    document = measured("queue")
    figures = document["figures"]
    assert figures.keys() >= {"hit_per_s", "bare_per_s", "hit_to_bare_ratio", "threads_hit_per_s", "client_hit_p50_ms"}
    for peer in QUICK_PEERS:
        if installed(peer):
            assert figures[f"{peer}_hit_per_s"] > 0
        else:
            assert any(note.startswith(peer) for note in document["notes"])


@pytest.mark.long
def test_scale_has_a_figure_for_each_number_of_processes_and_the_slopes() -> None:
    """Of worker processes and of reading processes."""
    figures = measured("scale")["figures"]
    assert figures["workers1_hit_per_s"] > 0
    assert figures["workers2_miss_per_s"] > 0
    assert figures["readers2_reads_per_s"] > 0
    for way in ("readers", "deaf", "shared"):
        assert (
            0
            < figures[f"{way}2_invalidate_p50_ms"]
            <= figures[f"{way}2_invalidate_p99_ms"]
            <= figures[f"{way}2_invalidate_max_ms"]
        )
    assert figures.keys() >= {"workers_miss_exponent", "workers_idle_cache_commands_per_s_slope"}


@pytest.mark.long
def test_idle_has_what_each_process_sends_and_what_each_server_runs() -> None:
    """A pool child sends nothing to the broker, and no command is without its sender."""
    figures = measured("idle")["figures"]
    assert figures["nodes1_calls_per_s"] >= figures["nodes1_received_per_s"] > 0
    for server in ("cache", "broker"):
        received = {name: number for name, number in figures.items() if name.startswith(f"nodes1_{server}_received_")}
        assert received.pop(f"nodes1_{server}_received_per_s") == pytest.approx(sum(received.values()))
        assert not any("_other_" in name for name in received)
    assert any("broker_received_main" in name for name in figures)
    assert not any("broker_received_children" in name for name in figures)


def test_every_peer_has_its_module_and_one_that_is_missing_is_left_out_with_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never a crash."""
    folder = Path(sys.modules["benchmarks.peers"].__file__ or "").parent
    assert {path.name.removesuffix("_peer.py") for path in folder.glob("*_peer.py")} == set(PEERS)
    monkeypatch.setitem(PEERS, "celery", PEERS["celery"]._replace(module="no_such_module"))
    assert not installed("celery")


class TestTheModelServer:
    def test_it_takes_its_time_counts_its_calls_and_gives_the_expected_answer(self, model: ModelServer) -> None:
        """Equal prompts get equal answers, so that a benchmark can tell a right one."""
        from pipeline.persona_pipeline import PersonaPipeline
        from pipeline.personas import load_catalog
        from pipeline.responders import responder_from

        pipeline = PersonaPipeline(load_catalog(), responder_from(load_settings(model.environment)))
        before = model.calls
        contents = set()
        for text in ("one", "two", "two"):
            request = PersonaRequest.create(text, "calm-flowing-planning", {"history": [{"role": "user", "content": "so"}]})
            began_s = time.perf_counter()
            answer = pipeline.process_request(request)
            assert time.perf_counter() - began_s >= 0.1
            assert answer.content == expected_answer(request)
            contents.add(answer.content)
        assert model.calls - before == 3
        assert len(contents) == 2

    def test_calls_at_the_same_time_do_not_wait_for_each_other(self, model: ModelServer) -> None:
        """Twenty of them take far less than twenty times one."""
        began_s = time.perf_counter()
        with OpenAI(base_url=model.url, api_key="none") as client:

            def ask() -> None:
                client.chat.completions.create(model=model.name, messages=[{"role": "user", "content": "hello"}])

            threads = [threading.Thread(target=ask) for _ in range(20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert time.perf_counter() - began_s < 1.5

    def test_a_delay_that_is_none_is_refused(self) -> None:
        """Before anything is started."""
        with pytest.raises(ValueError, match="delay_ms: -1"):
            ModelServer(delay_ms=-1)


class TestWrongAnswers:
    """Each run checks its answers, so that a fast wrong one fails."""

    def test_right_answers_are_figures(self, runs: SeedRuns) -> None:
        """The control."""
        scenario = runs.run(spread_over(6, 2))
        assert (scenario.requests, scenario.kinds, len(scenario.hits_ms)) == (6, 2, 4)

    def test_an_answer_to_another_request_is_noticed(self, runs: SeedRuns, monkeypatch: pytest.MonkeyPatch) -> None:
        """A cache that mixed up its keys would be very fast."""
        process, mixed_up = OptimizedPipeline.process_request, spread_over(1, 1)[0]
        monkeypatch.setattr(OptimizedPipeline, "process_request", lambda self, _request: process(self, mixed_up))
        with pytest.raises(BenchmarkFailedError, match="a wrong answer"):
            runs.run(spread_over(4, 2))

    def test_what_is_computed_twice_is_noticed(self, runs: SeedRuns, monkeypatch: pytest.MonkeyPatch) -> None:
        """Though every answer is right."""
        process = OptimizedPipeline.process_request
        monkeypatch.setattr(
            OptimizedPipeline, "process_request", lambda self, request: process(self, PersonaRequest.create(
                request.user_input, request.resonance_key, use_cache=False))
        )  # fmt: skip
        with pytest.raises(BenchmarkFailedError, match="4 requests of 2 kinds took 4 calls"):
            runs.run(spread_over(4, 2))


def test_a_drained_task_with_a_wrong_result_fails_the_benchmark() -> None:
    """The results are judged after the time was taken, all of them."""
    wires = [request.to_wire() for request in spread_over(2, 2)]
    with (
        Fleet(print, nodes=1, children=1) as fleet,
        closing(make_app(fleet.settings)) as app,
        closing(Drain(app, fleet.settings)) as drain,
    ):
        assert drain.per_s("persona.process", wires, 10, lambda wire, result: wire["user_input"] in result["content"]) > 0
        with pytest.raises(BenchmarkFailedError, match=r"persona\.process: task .* gave"):
            drain.per_s("persona.process", wires, 10, lambda wire, _result: wire is wires[0])


@pytest.mark.long
def test_tracing_compares_on_with_off_and_with_what_is_not_installed() -> None:
    """Of hits and of misses; and a hit of L1, and a span, by themselves."""
    pytest.importorskip("opentelemetry.proto", reason="the extra `traces` is not installed")
    figures = measured("tracing")["figures"]
    for what in ("hit", "miss"):
        for sides in ("off_to_without", "on_to_off", "traced_on_to_traced_off"):
            for ratio in (f"{sides}_{what}_ratio", f"{sides}_{what}_cpu_ratio"):
                assert 0 < figures[f"{ratio}_low"] <= figures[ratio] <= figures[f"{ratio}_high"]
    assert min(figures["on_l1_ns"], figures["off_l1_ns"], figures["span_ns"]) > 0

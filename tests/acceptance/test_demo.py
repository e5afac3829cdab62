"""The command line on the real thing: the stack, its worker and its model, as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from polling import until

from benchmarks.kit.endpoint import ScriptedEndpoint
from workers.stack.servers.model import find_weights

COMMAND = [sys.executable, "-m", "workers.cli"]
MARK = "DEMO_TEST_MARK"  # every process that a command starts inherits it
LUA = ("I keep failing my exams and feel stuck.", "--key", "frustrated-burst-seek_advice")
BOUND_S = 90.0
DEMO_BOUND_S = 400.0  # usually a fifth of it; the machine may be shared

linux_only = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Without any setting, with a place of its own for temporary files, and marked."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PERSONA_")}
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    return {**kept, "TMPDIR": str(temporary), MARK: uuid.uuid4().hex}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The working directory of the commands."""
    place = tmp_path / "place"
    place.mkdir()
    return place


def marked_processes(environ: dict[str, str]) -> list[str]:
    """The command lines of the running processes that a command of this test has started."""
    mark = f"{MARK}={environ[MARK]}".encode()
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (directory / "environ").read_bytes().split(b"\0"):
                found.append((directory / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has ended meanwhile, or is another user's
            continue
    return found


def assert_nothing_is_left(environ: dict[str, str], place: Path) -> None:
    assert marked_processes(environ) == []
    assert list(place.iterdir()) == []
    assert list(Path(environ["TMPDIR"]).iterdir()) == []


def run(environ: dict[str, str], place: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, the document, and standard error of a command with --json."""
    ended = subprocess.run(
        [*COMMAND, *arguments, "--json"],
        env=environ,
        cwd=place,
        capture_output=True,
        text=True,
        timeout=DEMO_BOUND_S,
        check=False,
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.returncode, json.loads(ended.stdout), ended.stderr


@contextmanager
def up(environ: dict[str, str], place: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A running `persona up --json` and its output."""
    process = subprocess.Popen(
        [*COMMAND, "up", "--json", *options],
        env=environ,
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line == "}\n":
                break
        yield process, json.loads("".join(lines))
    finally:
        process.terminate()
        process.communicate(timeout=BOUND_S)


def assert_consistent(figures: dict[str, Any]) -> None:
    """Each figure follows from the others."""
    counts = {tier["source"]: tier["count"] for tier in figures["tiers"]}
    assert figures["requests"] == figures["answered"] + figures["failed"]
    assert sum(counts.values()) == figures["answered"]
    assert counts["no"] == figures["computed"]
    assert figures["saved"] == figures["answered"] - figures["computed"]
    assert figures["hit_rate"] == pytest.approx(figures["saved"] / figures["answered"])
    assert sum(tier["share"] for tier in figures["tiers"]) == pytest.approx(1)
    assert all(0 < tier["p50_ms"] <= tier["p99_ms"] for tier in figures["tiers"])
    assert figures["estimated_saved_s"] == pytest.approx(figures["saved"] * figures["mean_computed_ms"] / 1000)
    assert figures["throughput_per_s"] == pytest.approx(figures["answered"] / figures["elapsed_s"])


@linux_only
@pytest.mark.long
@pytest.mark.model
@pytest.mark.skipif(find_weights() is None, reason="the local model is not installed")
@pytest.mark.timeout(DEMO_BOUND_S + BOUND_S)
def test_the_demonstration_runs_with_the_real_model_and_leaves_nothing(environ: dict[str, str], place: Path) -> None:
    """A newcomer's first command: every request answered, the figures those of this run, an invalidation seen, all stopped."""
    exit_code, document, stderr = run(environ, place, "demo")
    assert exit_code == 0, stderr
    figures = document["figures"]
    assert_consistent(figures)
    assert figures["failed"] == 0
    assert figures["requests"] >= 60
    assert figures["saved"] > 0
    by_source = {tier["source"]: tier for tier in figures["tiers"]}
    assert by_source["l1"]["p50_ms"] < by_source["no"]["p50_ms"] / 50
    assert document["model"] != "prompt"

    examples = document["examples"]
    assert [each["response"]["language"] for each in examples[:3]] == ["en", "en", "ko"]
    assert examples[3]["response"]["cached"] != "no"
    assert all(each["response"]["content"] for each in examples)

    again = document["invalidation"]
    assert again["pattern"] == "persona:lua:*"
    assert again["durable"]
    assert again["before"]["cached"] != "no"
    assert again["after"]["cached"] == "no"
    assert again["after"]["persona"] == again["before"]["persona"] == "Lua"
    assert 0 <= again["fresh_after_ms"] <= again["bound_ms"] + 1000
    assert again["after"]["execution_time_ms"] > 50 * again["before"]["execution_time_ms"]
    assert_nothing_is_left(environ, place)


@linux_only
@pytest.mark.timeout(DEMO_BOUND_S)
@pytest.mark.long
def test_a_demonstration_without_any_hit_fails_and_keeps_away_from_the_user_s_servers(
    environ: dict[str, str], place: Path, redis_url: str, tmp_path: Path
) -> None:
    """It checks the figures that it shows, and never invalidates a user's cache."""
    file = tmp_path / "once.jsonl"
    file.write_text(json.dumps({"user_input": "Why?", "resonance_key": "calm-burst-learning"}))
    theirs = {
        **environ,
        "PERSONA_BROKER_URL": "amqp://127.0.0.1:1//",
        "PERSONA_CACHE_URL": redis_url,
        "PERSONA_CACHE_NAMESPACE": f"test-{environ[MARK]}",
        "PERSONA_LLM_URL": "",
    }
    exit_code, document, stderr = run(theirs, place, "demo", "--requests", str(file))
    assert exit_code == 1, stderr
    assert document["error"]["kind"] == "demo_failed"
    assert "no request was answered from a cache" in document["error"]["message"]
    assert document["model"] == "prompt"
    assert (document["figures"]["requests"], document["figures"]["hit_rate"]) == (1, 0.0)
    assert document["invalidation"]["pattern"] == f"persona:{document['invalidation']['before']['persona'].lower()}:*"
    assert document["invalidation"]["after"]["cached"] == "no"
    assert_nothing_is_left(environ, place)


@linux_only
@pytest.mark.timeout(DEMO_BOUND_S)
def test_an_interrupted_demonstration_is_exit_130_and_leaves_nothing(environ: dict[str, str], place: Path) -> None:
    """Ctrl-C while requests are on their way: those in the queue are revoked, those at the model may end."""
    with ScriptedEndpoint(delay_ms=1000) as endpoint:
        process = subprocess.Popen(
            [*COMMAND, "demo", "--json"],
            env={**environ, "PERSONA_LLM_URL": endpoint.url, "PERSONA_LLM_MODEL": "scripted"},
            cwd=place,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            until(lambda: endpoint.calls >= 2, "both pool children ask the model", bound_s=BOUND_S)
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=BOUND_S)
        finally:
            process.kill()
        assert endpoint.calls < 10
    assert process.returncode == 130
    assert json.loads(stdout)["error"]["kind"] == "interrupted"
    assert "Traceback" not in stderr
    assert_nothing_is_left(environ, place)


@linux_only
@pytest.mark.timeout(DEMO_BOUND_S)
def test_up_ask_invalidate_as_a_user_does(environ: dict[str, str], place: Path) -> None:
    """The commands find the stack that runs in their directory; a second one is refused; Ctrl-C ends all of it."""
    with up(environ, place, "--no-model", "--no-flower", "--concurrency", "2") as (process, facts):
        assert facts["folder"] == str(place / ".persona")
        assert (facts["pid"], facts["worker"]["concurrency"], facts["flower"]) == (process.pid, 2, None)
        assert facts["broker"]["url"].startswith("redis://:***@")

        _, first, _ = run(environ, place, "ask", *LUA)
        _, second, _ = run(environ, place, "ask", *LUA)
        assert (first["cached"], first["persona"], first["model"]) == ("no", "Lua", "prompt")
        assert second["cached"] in ("l1", "l2")
        assert second["content"] == first["content"]
        assert second["total_ms"] > second["execution_time_ms"] > 0
        _, uncached, _ = run(environ, place, "ask", *LUA, "--no-cache")
        assert uncached["cached"] == "no"
        _, korean, _ = run(environ, place, "ask", *LUA, "--language", "ko", "--user", "u-1", "--name", "민지")
        assert (korean["language"], korean["cached"]) == ("ko", "no")
        assert "민지" in korean["content"]

        exit_code, made, _ = run(environ, place, "invalidate", "persona:lua:*", "user:u-1")
        assert (exit_code, made["patterns"], made["durable"]) == (0, ["persona:lua:*", "user:u-1"], True)
        # Another process's first tier may not have learnt of it yet; each try takes some tenths of a second.
        until(lambda: run(environ, place, "ask", *LUA)[1]["cached"] == "no", "computed again", bound_s=BOUND_S)

        exit_code, refused, _ = run(environ, place, "up")
        assert (exit_code, refused["error"]["kind"]) == (1, "stack_running")
        assert str(process.pid) in refused["error"]["message"]

        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=BOUND_S)
        assert (process.returncode, stdout) == (130, "")
        assert "Traceback" not in stderr
    assert_nothing_is_left(environ, place)

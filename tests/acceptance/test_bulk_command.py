"""`persona bulk` on a real fleet: interrupted for real, resumed, and out of the way of others."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fleet import Fleet
from polling import until

from benchmarks.kit.endpoint import Fault
from pipeline.models import PersonaRequest
from workers.cli import main
from workers.cli.demo.samples import EXAMPLES

COMMAND = [sys.executable, "-m", "workers.cli", "bulk"]
KEY = "calm-flowing-planning"
BOUND_S = 60.0


class Files(NamedTuple):
    requests: Path
    answers: Path

    @property
    def partial(self) -> Path:
        return self.answers.with_name("answers.jsonl.partial")

    def ask(self, count: int, *, each: int = 1) -> list[str]:
        """So many new questions, each asked `each` times; their texts."""
        texts = [f"Question {number} of {uuid.uuid4().hex}" for number in range(count)] * each
        lines = [json.dumps({"user_input": text, "resonance_key": KEY}) for text in texts]
        self.requests.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return texts

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.answers.read_bytes().split(b"\n")[:-1]]

    def kept(self) -> int:
        return self.partial.read_bytes().count(b"\n") if self.partial.exists() else 0


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "requests.jsonl", tmp_path / "answers.jsonl")


def environ_of(fleet: Fleet) -> dict[str, str]:
    foreign = ("PERSONA_", "PYTHON")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | {
        name: value for name, value in fleet.environ.items() if value
    }


def run(fleet: Fleet, files: Files, *options: str) -> tuple[int, dict[str, Any], str]:
    """To its end: the exit code, the document, and its messages."""
    done = subprocess.run(
        [*COMMAND, files.requests, "-o", files.answers, "--json", *options],
        env=environ_of(fleet),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    return done.returncode, json.loads(done.stdout), done.stderr


@contextmanager
def running(fleet: Fleet, files: Files, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [*COMMAND, str(files.requests), "-o", str(files.answers), *options]
    with subprocess.Popen(
        command, env=environ_of(fleet), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_the_examples_are_answered_in_order_and_equal_ones_are_computed_once(fleet: Fleet, files: Files) -> None:
    """The file that the repository ships; half of it repeats."""
    lines = EXAMPLES.read_bytes().splitlines()
    files.requests.write_bytes(EXAMPLES.read_bytes())
    before = fleet.endpoint.calls
    code, document, said = run(fleet, files)
    assert code == 0, said
    assert document["lines"] == document["answered"] == len(lines)
    assert (document["already_answered"], document["failed"], document["failed_lines"]) == (0, [], 0)
    assert fleet.endpoint.calls - before == len({PersonaRequest.from_wire(json.loads(line)) for line in lines})
    records = files.records()
    assert [record["line"] for record in records] == list(range(1, len(lines) + 1))
    for line, record in zip(lines, records, strict=True):
        assert PersonaRequest.from_wire(json.loads(line)).user_input in record["answer"]["content"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_interrupted_and_run_again_it_asks_only_what_was_not_answered(fleet: Fleet, files: Files, number: signal.Signals) -> None:
    """The model is called once for each question, over both runs; answers written before the signal are in the file."""
    texts = files.ask(30)
    fleet.endpoint.script(Fault(delay_ms=50))
    before = fleet.endpoint.calls
    with running(fleet, files, "--in-flight", "4") as process:
        until(lambda: files.kept() >= 5, "some are answered")
        process.send_signal(number)
        _, said = process.communicate(timeout=BOUND_S)
        assert process.returncode == (130 if number is signal.SIGINT else -signal.SIGKILL), said
    kept = files.kept()
    assert 5 <= kept < 30
    assert not files.answers.exists()
    if number is signal.SIGINT:
        assert f"{kept} outcomes are kept" in said
    code, document, said = run(fleet, files)
    assert code == 0, said
    assert (document["answered"], document["already_answered"]) == (30, kept)
    assert fleet.endpoint.calls - before == 30
    assert [record["line"] for record in files.records()] == list(range(1, 31))
    assert all(text in record["answer"]["content"] for text, record in zip(texts, files.records(), strict=True))
    code, document, _ = run(fleet, files)
    assert (code, document["already_answered"]) == (0, 30)
    assert fleet.endpoint.calls - before == 30


def test_what_is_queued_when_it_is_interrupted_is_taken_back(fleet: Fleet, files: Files) -> None:
    """No caller waits for them any more: of 40 that were on their way, the model sees those that had begun."""
    files.ask(40)
    fleet.endpoint.script(Fault(delay_ms=20_000))
    before = fleet.endpoint.calls
    with running(fleet, files, "--in-flight", "40") as process:
        until(lambda: fleet.endpoint.calls - before == 2 and fleet.queued("persona.bulk") >= 30, "all are on their way")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=BOUND_S)
    fleet.endpoint.script(Fault())
    until(lambda: not fleet.queued("persona.bulk") and not fleet.claimed(), "the queue is empty")
    assert fleet.endpoint.calls - before <= 2 + 2  # those that ran, and what their children had already taken


def test_failed_lines_are_named_and_the_others_answered(fleet: Fleet, files: Files) -> None:
    """A line that is not JSON, one with a bad field, one that the model refuses; the next run asks only that one again."""
    files.ask(3)
    lines = files.requests.read_text(encoding="utf-8").splitlines()
    files.requests.write_text("\n".join([lines[0], "{", "", '{"user_input": "Hi"}', lines[1], lines[2]]), encoding="utf-8")
    fleet.endpoint.script(Fault("status", status=401, message="bad key", times=1))
    code, document, said = run(fleet, files, "--in-flight", "1")
    assert code == 1
    assert (document["lines"], document["answered"], document["failed_lines"]) == (6, 2, 3)
    assert [(each["line"], each["error"]) for each in document["failed"]] == [
        (1, "model_refused"),
        (2, "invalid_request"),
        (4, "invalid_request"),
    ]
    assert document["error"] == {"kind": "bulk_failed", "field": None, "message": "3 of 5 requests failed"}
    for line, words in ((1, "the model endpoint "), (2, "line: is not JSON"), (4, "resonance_key: ")):
        assert f"requests.jsonl:{line}: {words}" in said
    before = fleet.endpoint.calls
    code, document, _ = run(fleet, files)
    assert (code, document["answered"], document["already_answered"], document["failed_lines"]) == (1, 3, 2, 2)
    assert fleet.endpoint.calls - before == 1


def test_an_interactive_request_does_not_wait_behind_a_batch(fleet: Fleet, files: Files) -> None:
    """Not even for the very question that the batch has queued: 60 wait in `persona.bulk`, and a user asks the last of them."""
    texts = files.ask(60)
    fleet.endpoint.script(Fault(delay_ms=150))
    with running(fleet, files, "--in-flight", "60") as process:
        until(lambda: fleet.queued("persona.bulk") >= 50, "the batch is queued")
        for text in (texts[-1], f"Another question: {uuid.uuid4().hex}"):
            answer = fleet.client.ask(text, KEY, timeout_s=BOUND_S)
            assert text in answer.content
            assert fleet.queued("persona.bulk") >= 30, "the batch was worked off before"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=BOUND_S)
    until(lambda: not fleet.queued("persona.bulk") and not fleet.claimed(), "the queue is empty")


def test_a_terminal_sees_a_bar_and_the_result(fleet: Fleet, files: Files) -> None:
    """On standard error; standard output has the summary alone."""
    files.ask(6, each=2)
    ours, theirs = pty.openpty()
    environ = {**environ_of(fleet), "TERM": "xterm", "COLUMNS": "80"}
    command = [*COMMAND, str(files.requests), "-o", str(files.answers)]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        shown = b""
        with os.fdopen(ours, "rb", buffering=0) as terminal:
            try:
                while block := terminal.read(4096):
                    shown += block
            except OSError:
                pass  # how Linux tells that the other side has gone
        out = process.stdout.read() if process.stdout else ""
    assert process.returncode == 0
    assert b"12/12" in shown
    assert out.startswith("12 answered, 0 of them by earlier runs; 0 failed")


@pytest.mark.parametrize(
    ("arguments", "field", "problem"),
    [
        (("nowhere.jsonl",), "nowhere.jsonl", "no such file"),
        (("folder",), "folder", "is not a regular file; it is read more than once"),
        (("in.jsonl", "-o", "in.jsonl"), "in.jsonl", "is written by way of in.jsonl"),
        (("in.jsonl", "-o", "link.jsonl"), "link.jsonl", "is written by way of in.jsonl"),
        (("a.partial", "-o", "a"), "a", "is written by way of a.partial"),
        (("in.jsonl", "-o", "folder"), "folder", "is not a regular file"),
        (("in.jsonl", "-o", "none/out.jsonl"), "none/out.jsonl", "its folder does not exist"),
        (("in.jsonl", "-o", "/proc/out.jsonl"), "/proc/out.jsonl", ""),
        (("in.jsonl", "-o", "notes.txt"), "notes.txt", "its line 1 is not an answer of this command; name another file"),
        (("in.jsonl", "--in-flight", "0"), "--in-flight", ""),
        (("in.jsonl", "--timeout", "0"), "--timeout", ""),
        ((), "FILE", "missing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_usage_is_exit_2_and_names_what_is_wrong(
    arguments: tuple[str, ...],
    field: str,
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    """Before anything is sent, and without touching a file."""
    (tmp_path / "folder").mkdir()
    for name in ("in.jsonl", "a.partial"):
        (tmp_path / name).write_text(f'{{"user_input": "Hi", "resonance_key": "{KEY}"}}\n')
    (tmp_path / "notes.txt").write_text("mine\n")
    (tmp_path / "link.jsonl").symlink_to("in.jsonl")
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    monkeypatch.chdir(tmp_path)
    assert main(["bulk", *arguments, "--json"]) == 2
    error = json.loads(capfdbinary.readouterr().out)["error"]
    assert error["kind"] == "usage"
    assert Path(error["field"]).name == Path(field).name
    assert problem in error["message"]
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_without_a_broker_it_fails_and_says_so(
    files: Files, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The lines need no look at the broker: the first request does."""
    files.ask(2)
    monkeypatch.setenv("PERSONA_BROKER_URL", "redis://127.0.0.1:1/0")
    assert main(["bulk", str(files.requests), "-o", str(files.answers), "--json"]) == 1
    assert json.loads(capfdbinary.readouterr().out)["error"]["kind"] == "queue_unavailable"
    assert sorted(path.name for path in files.requests.parent.iterdir()) == ["requests.jsonl"]

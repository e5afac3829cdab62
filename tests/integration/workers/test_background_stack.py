"""A stack in the background: started, asked, read, stopped, and what becomes of it when it dies. With servers alone."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from polling import until
from supervised import alive, found, published

import persona_worker
from workers.cli import main
from workers.stack import StackError, StackOptions, StackRunningError
from workers.stack.folder import StackFolder
from workers.stack.log_files import bound
from workers.stack.running.background import start_in_background
from workers.stack.running.logs import follow, last_lines
from workers.stack.running.place import find_place

SERVERS = ("broker", "cache")


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The commands look there. What a test leaves running is ended."""
    for name in [name for name in os.environ if name.startswith("PERSONA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PERSONA_STACK_DIR", str(tmp_path / ".persona"))
    monkeypatch.setenv("COLUMNS", "100")
    yield tmp_path / ".persona"
    place = find_place()
    if place is not None and place.owner is not None:
        os.kill(place.owner, signal.SIGKILL)


def options_of(directory: Path, **more: Any) -> StackOptions:
    return StackOptions(**{"services": SERVERS, "directory": directory, **more})


Command = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def command(capfdbinary: pytest.CaptureFixture[bytes]) -> Command:
    """A command with --json: exit code, document, and what it said beside."""

    def run(*arguments: str) -> tuple[int, dict[str, Any], str]:
        capfdbinary.readouterr()
        code = main([*arguments, "--json"])
        said = capfdbinary.readouterr()
        return code, json.loads(said.out), said.err.decode()

    return run


def test_without_a_stack_there_is_none_to_ask_and_nothing_to_stop(directory: Path, command: Command) -> None:
    """Exit 1, and how to start one; but to stop none is no failure: a script that cleans up may say it twice."""
    for name in ("status", "logs", "env"):
        code, document, said = command(name)
        assert (code, document["error"]["kind"], document["error"]["field"]) == (1, "no_stack", "PERSONA_STACK_DIR")
        assert "`persona up`" in said
    assert command("down") == (0, {"folder": None, "stopped": False, "cleaned": False}, "")
    for usage in (("down", "--timeout", "0"), ("logs", "redis"), ("logs", "-f")):
        assert command(*usage)[0] == 2


def test_one_that_is_starting_or_stopping_is_told_as_such(directory: Path, command: Command) -> None:
    """Its folder is held and it is not yet, or no longer, to be found: not the same as none, and nothing to be cleaned."""
    folder = StackFolder(directory)
    folder.acquire()
    try:
        code, document, said = command("status")
    finally:
        folder.release()
    assert (code, document["error"]["kind"], document["pid"]) == (1, "not_ready", os.getpid())
    assert "is starting a stack here, or stopping it" in said


def test_up_status_logs_a_second_up_and_down(directory: Path, command: Command) -> None:
    """It lives on when the one that started it has what it asked for; every word of the start is told, and kept in its log."""
    told: list[str] = []
    (directory.parent / "workers").mkdir()
    (directory.parent / "workers" / "__init__.py").write_text("raise ImportError('of another project')")
    search = os.pathsep.join((str(directory.parent), str(Path(persona_worker.__file__).parent)))
    info = start_in_background(options_of(directory, environ={**os.environ, "PYTHONPATH": search}), told.append)
    assert info == published(directory)
    assert info.pid != os.getpid()
    assert os.getsid(info.pid) == info.pid  # no terminal's Ctrl-C or end reaches it
    assert [note.partition(" ")[0] for note in told] == ["broker:", "cache:"]

    code, document, _ = command("status")
    assert (code, document["pid"], document["folder"]) == (0, info.pid, str(directory))
    assert [(part["name"], part["state"], part["pid"]) for part in document["services"]] == [
        (service.name, "ready", service.pid) for service in info.services
    ]

    with pytest.raises(StackRunningError, match=rf"{directory} \(process {info.pid}\).*`persona down`"):
        start_in_background(options_of(directory), told.append)

    code, document, _ = command("logs", "stack")
    assert code == 0
    assert [line.split(" UTC ")[1] for line in document["logs"]["stack"]] == told
    code, document, _ = command("logs", "-n", "1")
    assert set(document["logs"]) == {*SERVERS, "stack"}
    assert "Ready to accept connections" in document["logs"]["broker"][0]
    assert command("logs", "flower")[1]["error"]["kind"] == "no_log"

    code, document, _ = command("down")
    assert (code, document["stopped"], document["cleaned"]) == (0, True, False)
    assert not any(alive(service.pid) for service in info.services)
    until(lambda: not alive(info.pid), "the process that ran it ends with it")
    assert not directory.exists()


def test_a_part_that_does_not_answer_is_named_and_the_exit_code_says_so(directory: Path, command: Command) -> None:
    """For scripts: `persona status && ...`."""
    info = start_in_background(options_of(directory), lambda _: None)
    cache = next(service.pid for service in info.services if service.name == "cache")
    os.kill(cache, signal.SIGSTOP)
    try:
        code, document, said = command("status")
    finally:
        os.kill(cache, signal.SIGCONT)
    assert (code, document["error"]["kind"], document["error"]["field"]) == (1, "not_ready", "cache")
    assert {part["name"]: part["state"] for part in document["services"]} == {"broker": "ready", "cache": "silent"}
    assert "cache is not ready" in said
    assert command("down")[0] == 0


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux ends orphans")
def test_what_a_killed_stack_has_left_is_told_and_removed(directory: Path, command: Command) -> None:
    """As after the machine was started anew: files, and no process. `logs -f` ends with the stack."""
    info = start_in_background(options_of(directory), lambda _: None)
    lines: list[tuple[str, str]] = []
    reader = threading.Thread(
        target=lambda: lines.extend(
            follow({"stack": directory / "logs" / "stack.log"}, 100, lambda: found(directory) is not None, poll_s=0.02)
        )
    )
    reader.start()
    until(lambda: len(lines) == 2, "it follows")
    os.kill(info.pid, signal.SIGKILL)
    until(lambda: not any(alive(service.pid) for service in info.services), "the kernel ends the services")
    reader.join(60)
    assert len(lines) == 2

    code, document, said = command("status")
    assert (code, document["error"]["kind"]) == (1, "stack_gone")
    assert "it was killed, or the machine was started anew" in said
    code, document, _ = command("down")
    assert (code, document["stopped"], document["cleaned"]) == (0, False, True)
    assert not directory.exists()
    assert command("down")[1]["cleaned"] is False


@pytest.mark.long
def test_one_that_ends_by_itself_leaves_the_reason(directory: Path, command: Command) -> None:
    """Nobody watches a stack in the background, and its logs go with it."""
    info = start_in_background(options_of(directory), lambda _: None)
    for _ in range(4):
        state = found(directory)
        if state is None:
            break
        pid = state.services[1].pid
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: (now := found(directory)) is None or now.services[1].pid != pid, "a restart or the end")  # type: ignore[misc]
    until(lambda: not alive(info.pid), "the stack gives up")
    code, document, said = command("status")
    assert (code, document["error"]["kind"]) == (1, "stack_gone")
    assert "cache: ended again after 3 restarts within a minute" in said
    assert command("down")[1]["cleaned"] is True
    assert not directory.exists()


def test_one_that_does_not_start_says_why_as_in_the_foreground(directory: Path) -> None:
    """And leaves nothing: a service that fails, and settings that are wrong."""
    with pytest.raises(StackError, match=r"cache: did not start \(exit code 1\)"):
        start_in_background(options_of(directory, cache_memory="plenty"), lambda _: None)
    with pytest.raises(StackError, match="PERSONA_LLM_TIMEOUT_S"):
        start_in_background(options_of(directory, environ={"PERSONA_LLM_TIMEOUT_S": "soon"}), lambda _: None)
    assert not directory.exists()


def test_one_that_nobody_waits_for_any_more_does_not_begin(directory: Path) -> None:
    """Ctrl-C during `persona up --detach`: what has come up is stopped again."""
    started: list[str] = []

    def interrupted(note: str) -> None:
        started.append(note)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start_in_background(options_of(directory), interrupted)
    assert len(started) == 1
    assert not directory.exists()


def test_the_last_lines_and_then_what_comes(tmp_path: Path) -> None:
    """A line is given once it is whole; a log that is cut since it grew, or that goes away, ends nothing."""
    log = tmp_path / "a.log"
    log.write_bytes(b"".join(b"line %d\n" % number for number in range(20_000)) + b"half")
    assert last_lines(log, 3) == ["line 19997", "line 19998", "line 19999"]
    assert last_lines(log, 0) == last_lines(tmp_path / "none", 3) == []
    assert len(last_lines(log, 100_000)) == 20_000

    def write() -> None:
        with log.open("ab") as file:
            file.write(b" and whole\n\xff\nhal")

    def cut() -> None:
        with log.open("ab") as appending:
            assert bound(log, most_bytes=1000, kept_bytes=100)
            appending.write(b"after the cut\n")
        assert log.stat().st_size < 200
        assert not bound(log, most_bytes=1000, kept_bytes=100)

    steps = iter([write, cut, log.unlink])

    def goes_on() -> bool:
        step = next(steps, None)
        if step is not None:
            step()
        return step is not None

    seen = [line for _, line in follow({"a": log}, 1, goes_on, poll_s=0)]
    assert seen[:3] == ["line 19999", "half and whole", "\ufffd"]
    assert seen[-1] == "halafter the cut"
    assert not bound(log)

"""The command line as a user meets it before anything runs: help, mistakes, and how it fails. In processes of their own."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from servers import free_port
from typer.main import get_command

import workers.cli
from pipeline.models import INTENTS, PACES, TONES, PersonaRequest, PersonaResponse
from workers.cli.demo.scenario import Exchange, Recomputation, Traffic, examples_of, problems_of, to_ask_again
from workers.cli.program import program_for
from workers.cli.terminal.figures import Sample, figures_of
from workers.cli.terminal.screen import printable, shown_ms

COMMAND = [sys.executable, "-m", "workers.cli"]
COMMANDS = (
    "up",
    "down",
    "status",
    "logs",
    "env",
    "demo",
    "ask",
    "bulk",
    "invalidate",
    "stats",
    "preload",
    "dead-letters",
    "failures",
    "explain",
    "doctor",
)
KEY = "calm-flowing-learning"
BOUND_S = 60.0

pytestmark = pytest.mark.slow  # nearly every test here starts the program


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Without any setting, in 80 columns, and where no stack is found."""
    # PYTHON: an unbuffered standard output would hide output that is still to be written when its reader has gone.
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERSONA_", "PYTHON"))}
    return {**kept, "COLUMNS": "80", "NO_COLOR": "1", "PERSONA_STACK_DIR": str(tmp_path / "none")}


def persona(environ: dict[str, str], *arguments: str, stdin: bytes = b"", **settings: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        [*COMMAND, *arguments], env={**environ, **settings}, input=stdin, capture_output=True, timeout=BOUND_S, check=False
    )
    return subprocess.CompletedProcess(ended.args, ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def the_error(ended: subprocess.CompletedProcess[str], exit_code: int) -> dict[str, Any]:
    """The error of a run with --json; it is the sentence on standard error, too."""
    assert ended.returncode == exit_code, ended.stderr
    error: dict[str, Any] = json.loads(ended.stdout)["error"]
    assert set(error) == {"kind", "field", "message"}
    assert error["message"] in ended.stderr
    assert_one_sentence(ended.stderr)
    return error


def assert_one_sentence(stderr: str) -> None:
    assert len(stderr.splitlines()) == 1, stderr
    assert stderr.startswith("error: ")


# -- help


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=lambda command: " ".join(command) or "persona")
def test_help_shows_the_options_and_an_example_in_80_columns(command: tuple[str, ...], environ: dict[str, str]) -> None:
    """A command is learnt from its help."""
    ended = persona(environ, *command, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"Example: {' '.join(('persona', *command))}" in ended.stdout
    assert "--json" in ended.stdout or not command
    lines = ended.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    # No name of a Python type, no notation of a range, and no line that ends early because the source's line did.
    assert not re.search(r"<(bool|str|int|float|path|list)\b|<=x", ended.stdout)
    for line, following in itertools.pairwise(lines):
        if re.match(r" \S", line) and re.match(r" \S", following):
            assert len(f"{line.rstrip()} {following.split()[0]}") > 79, line


def test_one_idea_has_one_name_in_all_commands() -> None:
    """How long a command waits is --timeout everywhere, and what is on its way at once --in-flight; an option says the same kind
    of value everywhere."""
    kinds: dict[str, set[str | None]] = {}
    for command in get_command(program_for(None)).commands.values():  # type: ignore[attr-defined]  # it is a group
        for parameter in command.params:
            for name in parameter.opts:
                if name.startswith("--"):
                    kinds.setdefault(name, set()).add(parameter.metavar)
    assert {name: kind for name, kind in kinds.items() if len(kind) > 1} == {}
    assert kinds["--timeout"] == {"SECONDS"}
    assert not {"--wait", "--timeout-s", "--wait-s", "--retry-failed"} & set(kinds)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("persona sta", {"stats", "status"}), ("persona logs w", {"worker"})],
)
def test_the_shell_completes_commands_and_services(typed: str, offered: set[str], environ: dict[str, str]) -> None:
    """By the script that `persona --show-completion` prints; here, what that asks for."""
    asked = {"_PERSONA_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    ended = persona(environ, **asked)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert set(ended.stdout.split()) == offered


def test_the_help_of_ask_names_every_word_of_a_key(environ: dict[str, str]) -> None:
    """It is written out there, so that help need not load the pipeline; this keeps it true."""
    words = persona(environ, "ask", "--help").stdout.replace(",", " ").split()
    assert {*TONES, *PACES, *INTENTS} <= set(words)


def test_help_names_all_commands_and_loads_nothing_heavy(environ: dict[str, str]) -> None:
    """It must appear at once: each command imports its own needs."""
    program = (
        "import sys; from workers.cli import main; main(['--help']); "
        "print(*{'celery', 'kombu', 'redis', 'openai', 'pydantic', 'pipeline'} & set(sys.modules), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True)
    assert all(f" {name} " in ended.stdout for name in COMMANDS)
    assert ended.stderr.strip() == ""


def test_version_is_that_of_the_package(environ: dict[str, str]) -> None:
    """For a report of a bug."""
    ended = persona(environ, "--version")
    assert (ended.returncode, ended.stdout.split()[0]) == (0, "persona")
    assert ended.stdout.split()[1][0].isdigit()


# -- mistakes


@pytest.mark.parametrize(
    ("arguments", "kind", "field"),
    [
        (("ask", "hi", "--key", "frustrated-burst-eat"), "invalid_request", "resonance_key"),
        (("ask", "hi", "--key", "calm"), "invalid_request", "resonance_key"),
        (("ask", " ", "--key", KEY), "invalid_request", "user_input"),
        (("ask", "x" * 8001, "--key", KEY), "invalid_request", "user_input"),
        (("ask", "hi", "--key", KEY, "--user", " a"), "invalid_request", "context.user_id"),
        (("ask", "hi", "--key", KEY, "--user", ""), "invalid_request", "context.user_id"),
        (("ask", "hi", "--key", KEY, "--name", "n" * 81), "invalid_request", "context.user_name"),
        (("ask", "hi", "--key", KEY, "--language", "fr"), "invalid_request", "context.language"),
        (("ask", "hi", "--key", KEY, "--timeout", "0"), "usage", "--timeout"),
        (("ask", "hi", "--key", KEY, "--timeout", "nan"), "usage", "--timeout"),
        (("ask", "hi", "--key", KEY, "--timeout", "soon"), "usage", "--timeout"),
        (("ask", "hi"), "usage", "--key"),
        (("ask", "--key", KEY), "usage", "TEXT"),
        (("ask", "hi", "--kay", KEY), "usage", "--kay"),
        (("invalidate",), "usage", "PATTERN"),
        (("invalidate", "a[b"), "invalid_pattern", "pattern"),
        (("invalidate", "ok", ""), "invalid_pattern", "pattern"),
        (("invalidate", "user:김민수"), "invalid_pattern", "pattern"),
        (("invalidate", "--user", ""), "invalid_request", "user_id"),
        (("up", "--concurrency", "0"), "usage", "--concurrency"),
        (("up", "--flower-port", "70000"), "usage", "--flower-port"),
        (("up", "--cache-memory", "plenty"), "usage", "--cache-memory"),
        (("up", "--broker-port", "7000", "--cache-port", "7000"), "usage", "--cache-port"),
        (("demo", "--in-flight", "0"), "usage", "--in-flight"),
        (("demo", "--requests", "/nowhere"), "usage", "/nowhere"),
        (("ponder",), "usage", None),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else None,
)
def test_bad_usage_is_exit_2_and_one_sentence_that_names_the_field(
    arguments: tuple[str, ...], kind: str, field: str | None, environ: dict[str, str]
) -> None:
    """On standard error, and as the one document under --json. Nothing is sent or started."""
    error = the_error(persona(environ, *arguments, "--json"), exit_code=2)
    assert (error["kind"], error["field"]) == (kind, field)


def test_without_json_an_error_leaves_standard_output_empty(environ: dict[str, str]) -> None:
    """A user that pipes the answer on must not pipe an error."""
    ended = persona(environ, "ask", "hi", "--key", "calm-burst-eat")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: resonance_key: unknown intent 'eat'; allowed are seek_advice, ")
    assert_one_sentence(ended.stderr)


def test_no_command_is_bad_usage_and_shows_the_help(environ: dict[str, str]) -> None:
    """Nothing was asked for."""
    ended = persona(environ)
    assert ended.returncode == 2
    assert "Commands" in ended.stdout


@pytest.mark.parametrize("command", [("ask", "hi", "--key", KEY), ("invalidate", "a"), ("up",)], ids=lambda c: c[0])
def test_a_bad_setting_is_exit_2_and_names_the_variable(command: tuple[str, ...], environ: dict[str, str]) -> None:
    """One sentence for each, and never the URL itself, which may hold a password."""
    settings = {"PERSONA_BROKER_URL": "http://u:secret@host", "PERSONA_LLM_TIMEOUT_S": "soon"}
    ended = persona({**environ, **settings}, *command, "--json")
    assert ended.returncode == 2
    lines = ended.stderr.splitlines()
    assert sorted(line.split(": ")[1] for line in lines) == sorted(settings)
    assert all(line.startswith("error: ") for line in lines)
    error = json.loads(ended.stdout)["error"]
    assert error["kind"] == "invalid_setting"
    assert error["field"] in settings
    assert "secret" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b'{"user_input": "a", "resonance_key": "calm-burst-nap"}', "mine.jsonl:3: resonance_key"),
        (b'{"user_input": "a", "resonance_key": "calm-burst-learning", "mood": 1}', "mine.jsonl:3: mood"),
        (b'{"user_input": "a"', "mine.jsonl:3"),
        (b'"\xff"', "mine.jsonl:3"),
        (b"[" * 100_000, "mine.jsonl:3"),
    ],
    ids=["word", "field", "cut", "bytes", "deep"],
)
def test_a_bad_line_of_a_file_is_named_by_its_number(line: bytes, field: str, tmp_path: Path, environ: dict[str, str]) -> None:
    """Before anything is started. An empty line is no request, and counted all the same."""
    file = tmp_path / "mine.jsonl"
    file.write_bytes(b'{"user_input": "a", "resonance_key": "calm-burst-learning"}\n\n' + line + b"\n")
    assert the_error(persona(environ, "demo", "--requests", str(file), "--json"), exit_code=2)["field"] == field


def test_a_file_without_requests_is_refused(tmp_path: Path, environ: dict[str, str]) -> None:
    """There would be no figures."""
    file = tmp_path / "mine.jsonl"
    file.write_text("\n\n")
    assert "no request" in the_error(persona(environ, "demo", "--requests", str(file), "--json"), exit_code=2)["message"]


@pytest.mark.parametrize(("stdin", "problem"), [(b"", "empty"), (b"\xff", "UTF-8"), (b"x" * 2**21, "1 MiB")])
def test_bad_standard_input_is_an_invalid_input(stdin: bytes, problem: str, environ: dict[str, str]) -> None:
    """`-` reads it, and no more of it than could ever be an input."""
    error = the_error(persona(environ, "ask", "-", "--key", KEY, "--json", stdin=stdin), exit_code=2)
    assert error["field"] == "user_input"
    assert problem in error["message"]


# -- nothing runs


def test_an_unreachable_broker_is_told_with_what_to_do(environ: dict[str, str]) -> None:
    """Exit 1, no traceback, no password, and the two ways out."""
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    ended = persona(environ, "ask", "hi", "--key", KEY, "--json", PERSONA_BROKER_URL=url)
    error = the_error(ended, exit_code=1)
    assert (error["kind"], error["field"]) == ("queue_unavailable", "broker")
    assert "`persona up`" in error["message"]
    assert "PERSONA_BROKER_URL" in error["message"]
    assert "secret" not in ended.stdout + ended.stderr


def test_without_a_shared_cache_there_is_nothing_to_invalidate(environ: dict[str, str]) -> None:
    """The cache of this process alone would take it, and it would mean nothing."""
    error = the_error(persona(environ, "invalidate", "persona:*", "--json"), exit_code=1)
    assert (error["kind"], error["field"]) == ("no_shared_cache", "PERSONA_CACHE_URL")


def test_an_invalidation_that_is_not_durable_is_a_failure(environ: dict[str, str]) -> None:
    """The document says what there is to say, and the error beside it."""
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    broker = f"redis://127.0.0.1:{free_port()}/0"
    ended = persona(environ, "invalidate", "persona:*", "--json", PERSONA_CACHE_URL=url, PERSONA_BROKER_URL=broker)
    assert (the_error(ended, exit_code=1)["kind"], json.loads(ended.stdout)["durable"]) == ("not_durable", False)
    assert "secret" not in ended.stdout + ended.stderr


# -- how it ends


def test_ctrl_c_is_exit_130_without_a_traceback(environ: dict[str, str]) -> None:
    """While it waits for a server that took the connection and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        silent.settimeout(BOUND_S)
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        process = subprocess.Popen(
            [*COMMAND, "ask", "hi", "--key", KEY, "--json"],
            env={**environ, "PERSONA_BROKER_URL": url},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with process, closing(silent.accept()[0]):
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=BOUND_S)
    assert (process.returncode, stderr) == (130, "")
    assert json.loads(stdout)["error"]["kind"] == "interrupted"


def test_ctrl_c_before_a_command_has_begun_is_no_traceback_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """While modules are being imported, no code but `main` takes it."""

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(workers.cli, "_run", interrupted)
    assert workers.cli.main([]) == 130


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("ask", "hi", "--key", "calm", "--json")], ids=lambda value: value[-1]
)
def test_a_reader_that_has_gone_is_no_traceback(arguments: tuple[str, ...], environ: dict[str, str]) -> None:
    """`persona ... | head -0`."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [*COMMAND, *arguments], env=environ, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=BOUND_S, check=False
        )
    finally:
        os.close(writer)
    assert ended.returncode == 1
    assert all(line.startswith("error: ") for line in ended.stderr.splitlines())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [("--version",), ("ask", "hi", "--key", "calm", "--json")], ids=lambda value: value[-1])
def test_an_output_that_cannot_be_written_is_a_failure_and_no_traceback(
    arguments: tuple[str, ...], environ: dict[str, str]
) -> None:
    """A full disk must not pass for success."""
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*COMMAND, *arguments], env=environ, stdout=full, stderr=subprocess.PIPE, text=True, timeout=BOUND_S, check=False
        )
    assert ended.returncode == 1
    assert "error: standard output: No space left on device" in ended.stderr
    assert all(line.startswith("error: ") for line in ended.stderr.splitlines())


def test_closed_streams_are_no_traceback(environ: dict[str, str]) -> None:
    """As `>&- 2>&-` leaves them."""
    program = "import os, sys; os.close(1); os.execv(sys.executable, sys.argv[1:])"
    command = [sys.executable, "-c", program, *COMMAND, "ask", "hi", "--key", "calm", "--json"]
    ended = subprocess.run(command, env=environ, stderr=subprocess.PIPE, text=True, timeout=BOUND_S, check=False)
    assert ended.returncode == 2
    assert_one_sentence(ended.stderr)


# -- the output


def test_an_answer_cannot_drive_the_terminal() -> None:
    """A model's words are printed as text: no escape sequence, bell or carriage return passes."""
    assert printable("a\x1b[31mb\x07\r\x9b2J\n\tc 가") == "a[31mb2J\n\tc 가"


@pytest.mark.parametrize(
    ("ms", "shown"), [(0.034, "0.03 ms"), (1.26, "1.3 ms"), (99.94, "99.9 ms"), (843.2, "843 ms"), (12_340.0, "12.3 s")]
)
def test_a_duration_is_shown_in_a_unit_that_fits(ms: float, shown: str) -> None:
    """Both a hit and a computation stand in one column."""
    assert shown_ms(ms) == shown


# -- what the demonstration demands


def exchange(text: str, persona: str, cached: str, **context: Any) -> Exchange:
    request = PersonaRequest.create(text, KEY, context or None)
    response = PersonaResponse(
        content="Yes.",
        persona=persona,
        confidence=0.8,
        reason="",
        resonance_key=KEY,
        scores=(),
        language="ko" if "가" in text else "en",
        model="m",
        cached=cached,  # type: ignore[arg-type]  # one of the sources
        execution_time_ms=1.0,
    )
    return Exchange(request, response)


def traffic(exchanges: list[Exchange], *errors: str) -> Traffic:
    samples = [Sample(each.response.cached, each.response.execution_time_ms) for each in exchanges]
    return Traffic(tuple(exchanges), errors, figures_of(samples, failed=len(errors), elapsed_s=1.0))


HIT, COMPUTED = exchange("a", "Lua", "l1"), exchange("a", "Lua", "no")
AGAIN = Recomputation(
    pattern="persona:lua:*",
    request=HIT.request,
    before=HIT.response,
    durable=True,
    invalidate_ms=1.0,
    bound_ms=1000.0,
    old_answers=0,
    fresh_after_ms=1.0,
    after=COMPUTED.response,
)


def test_a_good_run_has_no_problems() -> None:
    """Hits, no failure, and the invalidated answer computed again."""
    assert problems_of(traffic([COMPUTED, HIT]), AGAIN) == []


@pytest.mark.parametrize(
    ("run", "again", "problem"),
    [
        (traffic([COMPUTED, HIT], "broken"), AGAIN, "1 of 3 requests failed, the first with: broken"),
        (traffic([COMPUTED]), AGAIN, "no request was answered from a cache"),
        (traffic([COMPUTED, HIT]), None, "no answer could be invalidated"),
        (traffic([COMPUTED, HIT]), msgspec.structs.replace(AGAIN, before=COMPUTED.response), "was not cached before"),
        (traffic([COMPUTED, HIT]), msgspec.structs.replace(AGAIN, durable=False), "was not durable"),
        (traffic([COMPUTED, HIT]), msgspec.structs.replace(AGAIN, after=None), "no answer was computed again within 2 s"),
    ],
    ids=["failed", "no hit", "nothing to invalidate", "not cached", "not durable", "never fresh"],
)
def test_the_demonstration_fails_when_what_it_shows_is_not_so(run: Traffic, again: Recomputation | None, problem: str) -> None:
    """It is a check, and not a show."""
    (only,) = problems_of(run, again)
    assert problem in only


def test_what_is_asked_again_is_lua_s_and_anybody_s() -> None:
    """A personal answer may have expired by then; without one of Lua's, another persona's will do."""
    riri, personal = exchange("b", "Riri", "no"), exchange("c", "Lua", "no", user_id="u")
    assert to_ask_again([personal, riri, COMPUTED]) == COMPUTED
    assert to_ask_again([personal, riri]) == riri
    assert to_ask_again([personal]) is None


def test_the_examples_are_two_english_ones_of_two_personas_a_korean_one_and_a_hit() -> None:
    """Of a run that had all of them; fewer, where it had not."""
    again, other, korean = exchange("b", "Lua", "no"), exchange("c", "Riri", "no"), exchange("가", "Elro", "no")
    assert examples_of([COMPUTED, again, HIT, other, korean, HIT]) == [COMPUTED, other, korean, HIT]
    assert examples_of([COMPUTED, again]) == [COMPUTED, again]
    assert examples_of([]) == []

"""The README's snippets, run as a reader would run them, and its tables, held against the code."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from endpoints import ScriptedEndpoint
from pydantic import SecretStr
from servers import ValkeyServer
from supervised import eventually, found

from pipeline import keys
from pipeline.models import INTENTS, PACES, TONES
from pipeline.settings import Settings, load_settings
from workers.client import PersonaClient
from workers.stack.processes import ChildProcess

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
PYTHON = [block for language, block in BLOCKS if language == "python"]
SHELL = [block for language, block in BLOCKS if language == "bash"]
BOUND_S = 100


def _environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PERSONA_", "CELERY_", "FLOWER_"))}
    return kept | {"PYTHONWARNINGS": "error::SyntaxWarning"} | more


def _shell(script: str, directory: Path, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=directory,
        env=dict(environ or _environment()),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )


def _of(word: str) -> str:
    """The one shell snippet with this word."""
    (block,) = [block for block in SHELL if word in block]
    return block


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place that looks like the repository to a snippet, and is not: what a snippet makes goes with the test."""
    path = tmp_path_factory.mktemp("reader")
    (path / ".venv").symlink_to(sys.prefix)
    return path


@pytest.fixture(scope="module")
def stack(directory: Path) -> Iterator[Path]:
    """The snippet that starts a stack, running."""
    command = _of("persona up").strip().split()
    child = ChildProcess(command, log=directory / "up.log", directory=directory, environ=_environment())
    try:
        eventually(lambda: found(directory / ".persona") is not None or child.exit_code is not None, "persona up is ready")
        assert child.exit_code is None, (directory / "up.log").read_text()
        yield directory
    finally:
        child.send_signal(signal.SIGINT)
        child.stop(grace_s=30)


def test_every_snippet_is_run_by_a_test_here() -> None:
    """A new kind of snippet needs a test that runs it."""
    assert {language for language, _ in BLOCKS} == {"bash", "python", ""}
    words = ("make demo", "persona up", "persona ask", "PERSONA_LLM_URL", "celery -A workers")
    assert sorted(SHELL) == sorted(_of(word) for word in words)


def test_the_targets_exist() -> None:
    """`make demo` and `make test` are run as a whole elsewhere; here, that they are targets."""
    for line in _of("make demo").splitlines():
        done = _shell(f"{line} --dry-run", ROOT)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_a_program_runs(number: int, stack: Path) -> None:
    """Each program stands alone, finds the stack that runs, and ends without a word on standard error."""
    program = stack / f"program_{number}.py"
    program.write_text(PYTHON[number], encoding="utf-8")
    done = _shell(f".venv/bin/python {program.name}", stack)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout


def test_the_first_program_prints_what_it_says(stack: Path) -> None:
    """The comments beside the prints are true."""
    program = stack / "first.py"
    program.write_text(PYTHON[0], encoding="utf-8")
    lines = _shell(f".venv/bin/python {program.name}", stack).stdout.splitlines()
    assert lines[0] == "Lua 0.823"
    assert lines[1].split()[0] in ("no", "l2")


def test_the_asyncio_program_prints_what_it_says(stack: Path) -> None:
    """One of ten asks the model, if that; the ticket after them is a hit."""
    (program,) = (text for text in PYTHON if "asyncio" in text)
    (stack / "asyncio_program.py").write_text(program, encoding="utf-8")
    sources, ticket = _shell(".venv/bin/python asyncio_program.py", stack).stdout.splitlines()
    assert sources.count("'no'") <= 1
    assert "'stale'" not in sources
    assert ticket == "l1 True Elro"


def test_the_commands_run(stack: Path) -> None:
    """Each line of the tour of the command line succeeds."""
    done = _shell(_of("persona ask"), stack)
    assert done.returncode == 0, done.stdout + done.stderr


def test_another_models_endpoint_is_used(directory: Path) -> None:
    """The two variables are all that it takes."""
    endpoint = ScriptedEndpoint()
    try:
        script, replaced = re.subn(r"(?<=PERSONA_LLM_URL=)\S+", endpoint.url, _of("PERSONA_LLM_URL"))
        assert replaced == 1
        done = _shell(script, directory)
        assert done.returncode == 0, done.stdout + done.stderr
        assert endpoint.calls > 0
    finally:
        endpoint.close()


def test_a_worker_on_other_servers_answers(directory: Path) -> None:
    """With a reader's own servers, the command is complete."""
    with ValkeyServer() as broker, ValkeyServer() as cache:
        script = _of("celery -A workers")
        for variable, url in (("PERSONA_BROKER_URL", broker.url), ("PERSONA_CACHE_URL", cache.url)):
            script, replaced = re.subn(rf"(?<={variable}=)\S+", url, script)
            assert replaced == 1
        script = script.replace(".venv/bin/celery", "exec .venv/bin/celery")
        child = ChildProcess(["bash", "-c", script], log=directory / "worker.log", directory=directory, environ=_environment())
        try:
            settings = load_settings({"PERSONA_BROKER_URL": broker.url, "PERSONA_CACHE_URL": cache.url})
            with PersonaClient(settings) as client:
                response = client.ask("Plan my week.", "urgent-medium-planning", timeout_s=30)
            assert response.persona == "Nana"
            assert response.degraded is False
        finally:
            child.stop(grace_s=30)


def test_the_table_of_settings_is_the_settings() -> None:
    """Each variable with its default and its meaning, and none that is not there."""
    rows = re.findall(r"^\| `(PERSONA_\w+)` \| (.*?) \| (.*) \|$", TEXT, re.MULTILINE)
    expected = []
    for name, field in Settings.model_fields.items():
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        expected.append((f"PERSONA_{name.upper()}", "" if default == "" else f"`{default}`", field.description))
    assert rows == expected


def test_the_words_and_times_are_those_of_the_code() -> None:
    """The words that a reader may write in a key, and how long an entry lives."""
    for words in (TONES, PACES, INTENTS):
        for word in words:
            assert word in TEXT
    for ttl_s in (keys.ROUTING_TTL_S, keys.INFO_TTL_S, keys.TEMPLATE_TTL_S, keys.RESPONSE_TTL_S, keys.PERSONAL_TTL_S):
        assert f"{ttl_s} s" in TEXT

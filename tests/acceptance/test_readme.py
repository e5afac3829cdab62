"""The snippets of README and of the pages it leads to, run as a reader would run them; its tables, held against the code."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest
from fleet import bare_app
from polling import until
from pydantic import SecretStr
from servers import ValkeyServer
from supervised import found

from benchmarks.kit.endpoint import ScriptedEndpoint
from benchmarks.kit.nodes import own_environment
from pipeline import keys
from pipeline.models import INTENTS, PACES, TONES
from pipeline.settings import Settings, load_settings
from workers.client import PersonaClient
from workers.stack.processes import ChildProcess

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/reference.md", "docs/integrations.md", "docs/migration.md", "docs/faq.md")
TEXTS = {page: (ROOT / page).read_text(encoding="utf-8") for page in PAGES}
REFERENCE = TEXTS["docs/reference.md"]
BLOCKS = [
    (page, *found)
    for page, text in TEXTS.items()
    for found in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
]
SHELL = [block for _, language, block in BLOCKS if language == "bash"]
PYTHON = [(page, block) for page, language, block in BLOCKS if language == "python"]
BOUND_S = 100

FRAMEWORKS = ("fastapi", "django", "sentry_sdk")
"""Of other projects, which this one does not need: the extra `dev` has them. Their programs are skipped where they are absent."""
VISITORS = {
    "fastapi": """
from fastapi.testclient import TestClient

with TestClient(app) as web:
    print(web.get("/ask", params={"text": "Why?", "key": "curious-medium-learning", "user": "u-1"}).json()["persona"])
    print(web.get("/ask", params={"text": "Why?", "key": "loud"}).status_code)
    print(web.post("/users/u-1/profile").json())
""",
    "django": """
import django
from django.test import Client

django.setup()
web = Client()
print(web.get("/ask", {"text": "Why?", "key": "curious-medium-learning"}).json()["persona"])
print(web.get("/ask", {"text": "Why?", "key": "loud"}).status_code)
profile_changed("u-1")
client().close()
""",
}
"""A browser's part, for a program that only serves."""
VISITED = {"fastapi": ["Elro", "422", "{'durable': True}"], "django": ["Elro", "422"], "sentry_sdk": ["persona True"]}


def _environment(**more: str) -> dict[str, str]:
    return own_environment() | {"PYTHONWARNINGS": "error::SyntaxWarning"} | more


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
    """A place that looks like the repository to a snippet, and is not: a snippet's files go with the test."""
    path = tmp_path_factory.mktemp("reader")
    (path / ".venv").symlink_to(sys.prefix)
    return path


@pytest.fixture(scope="module")
def stack(directory: Path) -> Iterator[Path]:
    """The snippet that starts a stack, running. Its model is scripted: a small one takes a minute where other tests run; that it
    comes along is shown by the demonstration's tests."""
    command = _of("persona up").strip().split()
    with ScriptedEndpoint(delay_ms=100) as endpoint:
        environ = _environment(PERSONA_LLM_URL=endpoint.url, PERSONA_LLM_MODEL="scripted")
        child = ChildProcess(command, log=directory / "up.log", directory=directory, environ=environ)
        yield from _while_it_runs(child, directory)


def _while_it_runs(child: ChildProcess, directory: Path) -> Iterator[Path]:
    try:
        until(lambda: found(directory / ".persona") is not None or child.exit_code is not None, "persona up is ready")
        assert child.exit_code is None, (directory / "up.log").read_text()
        yield directory
    finally:
        child.send_signal(signal.SIGINT)
        child.stop(grace_s=30)


def test_every_snippet_is_run_by_a_test_here() -> None:
    """A new kind of snippet needs a test that runs it. Nothing is run of a diagram, which README has."""
    assert {language for _, language, _ in BLOCKS} == {"bash", "python", ""}
    assert [page for page, language, _ in BLOCKS if not language] == ["README.md"]
    words = ("make demo", "persona up", "persona ask", "PERSONA_LLM_URL", "celery -A workers")
    assert sorted(SHELL) == sorted(_of(word) for word in words)


def test_the_targets_exist() -> None:
    """`make demo` and `make test` are run as a whole elsewhere; here, that they are targets."""
    for line in _of("make demo").splitlines():
        done = _shell(f"{line} --dry-run", ROOT)
        assert done.returncode == 0, done.stderr


def _run(program: str, stack: Path) -> list[str]:
    """The lines that it prints. It must end, and without a word on standard error."""
    path = stack / f"program_{uuid.uuid4().hex}.py"
    path.write_text(program, encoding="utf-8")
    done = _shell(f".venv/bin/python {path.name}", stack)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout
    return done.stdout.splitlines()


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_a_program_prints_what_it_says(number: int, stack: Path) -> None:
    """Each program stands alone and finds the stack that runs. A comment beside a print is the line that it prints at the first
    run, maybe with a colon and the reason; it may not be true only of a second one."""
    page, program = PYTHON[number]
    needed = [name for name in FRAMEWORKS if f"import {name}\n" in program or f"from {name}" in program]
    absent = [name for name in needed if find_spec(name) is None]
    if absent:
        pytest.skip(f"{page}: {', '.join(absent)} is not installed")
    # Words and a function that were never used before: a first run, whatever ran before.
    fresh = re.sub(r"(stuck\.|blue\?)", rf"\1 {uuid.uuid4().hex}", program)
    lines = _run(fresh + "".join(VISITORS.get(name, "") for name in needed), stack)
    for name in needed:
        assert lines == VISITED[name]
    said = [
        comment for comment in re.findall(r"^ *print\(.*\)  # (.*)$", program, re.MULTILINE) if not comment.startswith("one ")
    ]
    printed = iter(lines)
    for comment in [] if needed else said:
        assert any(comment == line or comment.startswith(f"{line}: ") for line in printed), (comment, lines)


def test_of_ten_that_ask_at_once_one_asks_the_model(stack: Path) -> None:
    """As the comment says; what the other nine do is told by their sources."""
    (program,) = (block for _, block in PYTHON if "ask_ten_times" in block)
    first, *_ = _run(program.replace("blue?", f"blue? {uuid.uuid4().hex}"), stack)
    sources = re.findall(r"'(\w+)'", first)
    assert len(sources) == 10
    assert sources.count("no") == 1
    assert "stale" not in sources


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


@pytest.mark.parametrize(
    ("module", "task", "argument", "answered"),
    [
        ("shop", "shop.price", "tea", "3"),
        ("observed", "persona.process", {"user_input": "Why?", "resonance_key": "curious-medium-learning"}, "Elro"),
    ],
)
def test_a_workers_module_of_a_readers_own_answers(
    module: str, task: str, argument: object, answered: str, tmp_path: Path
) -> None:
    """The module that a page has its reader save, started as that page says. It is a node, which hears of invalidations."""
    (command,) = re.findall(rf"`(celery -A {module} worker[^`]*)`", "".join(TEXTS.values()))
    (program,) = (block for _, block in PYTHON if "workers.app" in block and ("sentry" in block) == (module == "observed"))
    if module == "observed" and find_spec("sentry_sdk") is None:
        pytest.skip("sentry_sdk is not installed")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / f"{module}.py").write_text(program, encoding="utf-8")
    with ValkeyServer() as broker, ValkeyServer() as cache:
        environ = _environment(PERSONA_BROKER_URL=broker.url, PERSONA_CACHE_URL=cache.url)
        line = ["bash", "-c", f"exec .venv/bin/{command}"]
        child = ChildProcess(line, log=tmp_path / "worker.log", directory=tmp_path, environ=environ)
        try:
            with bare_app(broker.url, broker.url_of(1)) as app:
                result = app.send_task(task, args=[argument], queue="persona").get(timeout=60)
            assert (result["persona"] if isinstance(result, dict) else str(result)) == answered
            settings = load_settings({"PERSONA_BROKER_URL": broker.url, "PERSONA_CACHE_URL": cache.url})
            with PersonaClient(settings) as client:
                done = client.invalidate("shop.price:*", wait_s=10)
            assert len(done.applied) == 1
            assert done.silent == ()
        finally:
            child.stop(grace_s=30)


def test_the_table_of_settings_is_the_settings() -> None:
    """Each variable with its default and its meaning, and none that is not there."""
    rows = re.findall(r"^\| `(PERSONA_\w+)` \| (.*?) \| (.*) \|$", REFERENCE, re.MULTILINE)
    expected = []
    for name, field in Settings.model_fields.items():
        default = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
        expected.append((f"PERSONA_{name.upper()}", "" if default == "" else f"`{default}`", field.description))
    assert rows == expected


def test_the_words_and_times_are_those_of_the_code() -> None:
    """The words that a reader may write in a key, and how long an entry lives."""
    for words in (TONES, PACES, INTENTS):
        for word in words:
            assert word in REFERENCE
    for ttl_s in (keys.ROUTING_TTL_S, keys.INFO_TTL_S, keys.TEMPLATE_TTL_S, keys.RESPONSE_TTL_S, keys.PERSONAL_TTL_S):
        assert f"{ttl_s} s" in REFERENCE

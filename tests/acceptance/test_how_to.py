"""The programs and the message of docs/how-to.md, run as a reader would run them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import redis
from catalogue import FOLDER, NAMES
from fleet import ROOT, Fleet
from polling import until
from servers import ValkeyServer

from pipeline.models import PersonaResponse, ResonanceKey
from pipeline.personas import load_catalog
from pipeline.routing import Router
from pipeline.settings import load_settings

TEXT = (ROOT / "docs" / "how-to.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
PYTHON = [block for language, block in BLOCKS if language == "python"]


def only(language: str) -> str:
    (block,) = [str(block) for found, block in BLOCKS if found == language]
    return block


def test_every_snippet_is_held_by_a_test_here() -> None:
    """A snippet of a new kind needs a test."""
    assert sorted(language for language, _ in BLOCKS) == ["", "bash", "javascript", "json", *["python"] * 5, "toml"]


def test_the_persona_is_one(tmp_path: Path) -> None:
    """It loads beside the others, and answers the keys that the how-to names."""
    folder = tmp_path / "personas"
    shutil.copytree(FOLDER, folder)
    (folder / "nova.toml").write_text(only("toml"), encoding="utf-8")
    catalog = load_catalog(folder)
    assert [persona.name for persona in catalog] == [*NAMES, "Nova"]
    (key,) = re.findall(r'ResonanceKey\.parse\("([\w-]+)"\)', TEXT)
    assert Router(catalog).route(ResonanceKey.parse(key)).persona == "Nova"


@pytest.mark.timeout(300)
@pytest.mark.long
def test_the_persona_turns_no_unit_test_red(tmp_path: Path) -> None:
    """Dropped into a copy of the package, it is found there, and every unit test that reads the catalogue passes."""
    for package in ("pipeline", "workers"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "persona_worker.py", tmp_path)
    (tmp_path / "pipeline" / "personas" / "nova.toml").write_text(only("toml"), encoding="utf-8")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    seen = run("-c", "from pipeline.personas import load_catalog as load; print(*(persona.name for persona in load()))")
    assert "Nova" in seen.stdout.split(), seen.stderr
    reading = [
        str(file)
        for file in sorted((ROOT / "tests" / "unit").rglob("test_*.py"))
        if re.search(r"load_catalog|from catalogue", file.read_text(encoding="utf-8"))
    ]
    assert len(reading) >= 5
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", *reading)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_a_program_prints_what_it_says(number: int, tmp_path: Path) -> None:
    """Without any server. A comment beside a print is the line that it prints."""
    program = tmp_path / "program.py"
    program.write_text(PYTHON[number], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program)],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    prints = re.findall(r"^print\(.*?\)(?:  # (.*))?$", PYTHON[number], re.MULTILINE)
    assert len(lines) == len(prints) > 0
    for line, said in zip(lines, prints, strict=True):
        assert said in ("", line)


def test_workers_take_the_persona_and_the_responder_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page says: a folder with the persona, a module with the responder, and the two variables for both sides."""
    folder, modules = tmp_path / "personas", tmp_path / "modules"
    folder.mkdir()
    modules.mkdir()
    (folder / "nova.toml").write_text(only("toml"), encoding="utf-8")
    (program,) = [block for block in PYTHON if "class Shouting" in block]
    (responder,) = re.findall(r"^class Shouting:.*?(?=^\S|\Z)", program, re.MULTILINE | re.DOTALL)
    imports = "".join(f"{line}\n" for line in program.splitlines() if line.startswith(("from", "import")))
    assert "`PERSONA_RESPONDER=loud:shouting`" in TEXT
    (modules / "loud.py").write_text(f"{imports}{responder}shouting = Shouting()\n", encoding="utf-8")
    monkeypatch.syspath_prepend(modules)
    environ = {
        "PERSONA_PERSONAS_DIR": str(folder),
        "PERSONA_RESPONDER": "loud:shouting",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{modules}",
    }
    with Fleet(environ=environ) as fleet:
        response = fleet.client.ask("Plan my week.", "urgent-medium-planning")
        assert (response.persona, response.content, response.source) == ("Nova", "PLAN MY WEEK.", "no")
        assert fleet.client.ask("Plan my week.", "urgent-medium-planning").hit
        assert fleet.endpoint.calls == 0


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PERSONA_RESPONDER", "no_such_module:thing", "cannot be imported"),
        ("PERSONA_PERSONAS_DIR", "/no/such/folder", "cannot be read"),
    ],
)
def test_a_worker_that_is_given_a_wrong_one_ends_with_a_sentence(variable: str, value: str, said: str, tmp_path: Path) -> None:
    """Before it forks: else each child would find out, and be replaced for ever."""
    with ValkeyServer() as broker:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "celery",
                "-A",
                "workers",
                "worker",
                "--concurrency=1",
                "--without-gossip",
                "--without-mingle",
            ],
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "PERSONA_BROKER_URL": broker.url, variable: value},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert f"error: {variable}: {value}: {said}" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_variables_of_the_model_are_settings() -> None:
    """All three, together."""
    environ = dict(re.findall(r"^export (\w+)=(\S+)$", only("bash"), re.MULTILINE))
    settings = load_settings(environ)
    assert len(environ) == 3
    assert settings.llm_model == environ["PERSONA_LLM_MODEL"]


def message(**changes: Any) -> tuple[str, str]:
    """The document's message under an id of its own: (id, as it goes over the wire)."""
    task_id = str(uuid.uuid4())
    text = re.sub(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", task_id, only("json"))
    assert text.count(task_id) == 3
    return task_id, json.dumps({**json.loads(text), **changes})


def answer(results: redis.Redis, task_id: str) -> dict[str, Any]:
    key = f"celery-task-meta-{task_id}"
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(json.loads(results.get(key) or "{}"))
        return found.get("status") in ("SUCCESS", "FAILURE", "REVOKED")

    until(ended, "the answer is there")
    return found


def test_the_message_is_answered_for_one_who_may_do_no_more(fleet: Fleet) -> None:
    """By two commands of Redis, under the user that the page recommends; and that user may do nothing else."""
    fleet.queue.execute_command(*only("").split())
    url = f"redis://asker:password@127.0.0.1:{fleet.broker.port}"
    with redis.Redis.from_url(f"{url}/0") as broker, redis.Redis.from_url(f"{url}/1") as results:
        task_id, wire = message()
        broker.lpush("persona", wire)
        found = answer(results, task_id)
        assert found["status"] == "SUCCESS"
        assert PersonaResponse.from_wire(found["result"]).persona == "Nana"
        with pytest.raises(redis.exceptions.NoPermissionError):
            broker.rpop("persona")
        with pytest.raises(redis.exceptions.NoPermissionError):
            broker.lpush("maintenance", wire)
    fleet.queue.execute_command("ACL", "DELUSER", "asker")


def test_a_wrong_request_is_answered_with_the_reason(fleet: Fleet) -> None:
    """As the page says: FAILURE, the error's name and its words."""
    task_id, wire = message(body='[[{"user_input": "Hi", "resonance_key": "loud"}], {}, {}]')
    fleet.queue.lpush("persona", wire)
    with redis.Redis.from_url(fleet.broker.url_of(1)) as results:
        found = answer(results, task_id)
    assert found["status"] == "FAILURE"
    assert found["result"]["exc_type"] == "InvalidRequestError"
    assert "loud" in str(found["result"]["exc_message"])


def test_an_invalidation_is_a_message_as_well(fleet: Fleet) -> None:
    """The task that the page names takes the arguments that it shows."""
    (body,) = re.findall(r"`(\[\[\"persona:lua:\*\"\], \{\}, \{\}\])`", TEXT)
    task_id, wire = message(body=body)
    changed = json.loads(wire)
    changed["headers"]["task"] = "cache.invalidate"
    fleet.queue.lpush("persona", json.dumps(changed))
    with redis.Redis.from_url(fleet.broker.url_of(1)) as results:
        assert answer(results, task_id)["result"]["patterns"] == ["persona:lua:*"]


def test_the_program_in_the_other_language_sends_that_message() -> None:
    """Node and its package are not at hand here: that it names the same fields is what can be held."""
    sent = json.loads(only("json"))
    program = only("javascript")
    for name in (*sent, *sent["headers"], *sent["properties"], *sent["properties"]["delivery_info"]):
        assert re.search(rf'(?<![\w-])"?{name}"?[:,]|\b{name}\b }}', program), name
    assert 'lPush("persona"' in program
    assert "celery-task-meta-" in program

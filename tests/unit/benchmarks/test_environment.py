"""How the programs that a benchmark starts find it: by an environment that they are given, not by one that an import changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks
from benchmarks.kit.nodes import own_environment

ROOT = Path(benchmarks.__file__).parents[1]
IMPORTS = """
import os, sys
before = dict(os.environ), list(sys.path)
import benchmarks.command
import benchmarks.kit.fleet, benchmarks.kit.model_server
assert (dict(os.environ), list(sys.path)) == before
"""
FOUND = "import json, sys, benchmarks.kit; json.dump([benchmarks.__file__, sys.path], sys.stdout)"


def test_an_import_changes_no_variable() -> None:
    """Whatever else the importing program starts would inherit it."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", IMPORTS]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_program_in_another_folder_finds_the_benchmarks_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the user's own search path names another package of that name; what else it names stays."""
    other = tmp_path / "other"
    (other / "benchmarks").mkdir(parents=True)
    (other / "benchmarks" / "__init__.py").touch()
    for given in (None, str(other)):
        if given is None:
            monkeypatch.delenv("PYTHONPATH", raising=False)
        else:
            monkeypatch.setenv("PYTHONPATH", given)
        command = [sys.executable, "-c", FOUND]
        said = subprocess.run(command, cwd=tmp_path, env=own_environment(), capture_output=True, timeout=60, check=True).stdout
        where, path = json.loads(said)
        assert where == benchmarks.__file__
        assert (str(other) in path) == (given is not None)


def test_settings_of_the_user_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may name a real broker."""
    for name in ("PERSONA_BROKER_URL", "CELERY_BROKER_URL", "FLOWER_PORT"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("ELSE", "kept")
    environ = own_environment()
    assert not {"PERSONA_BROKER_URL", "CELERY_BROKER_URL", "FLOWER_PORT"} & environ.keys()
    assert environ["ELSE"] == "kept"

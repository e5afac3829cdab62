"""Which interpreters `make test-pythons` finds, and when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest
from pythons import VERSIONS, Outcome, failed, find, run, table


def interpreter(path: Path, says: str, code: int = 0) -> Path:
    """A program that answers as an interpreter does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {code}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}


def test_one_on_path_comes_before_one_of_pyenv(environ: dict[str, str], tmp_path: Path) -> None:
    """As a shell finds them."""
    interpreter(tmp_path / ".pyenv/versions/3.12.9/bin/python3.12", "3.12.9")
    there = interpreter(tmp_path / "bin/python3.12", "3.12.1")
    assert find("3.12", environ) == (there, "3.12.1")


def test_a_program_that_stands_in_for_none_is_passed_over(environ: dict[str, str], tmp_path: Path) -> None:
    """pyenv's own answer with an error where no version is chosen; of pyenv's the newest counts, by number."""
    interpreter(tmp_path / "bin/python3.13", "pyenv: python3.13: command not found", 127)
    for patch in ("3.13.9", "3.13.10"):
        interpreter(tmp_path / f".pyenv/versions/{patch}/bin/python3.13", patch)
    found = find("3.13", environ)
    assert found is not None
    assert found[1] == "3.13.10"


def test_what_is_absent_is_told_as_not_run(environ: dict[str, str]) -> None:
    """And a run of nothing is a failure, not a success."""
    outcomes = [run(version, environ, ()) for version in VERSIONS]
    assert {outcome.result for outcome in outcomes} == {"not run"}
    assert failed(outcomes)
    assert all(version in table(outcomes) for version in VERSIONS)


def test_one_failure_fails_the_whole() -> None:
    """Those that passed do not make up for it; those that are absent do no harm."""
    passed, absent = Outcome("3.11.7", "passed", "3 passed", 4.0), Outcome("3.14", "not run", "no such interpreter", 0)
    assert not failed([passed, absent])
    assert failed([passed, Outcome("3.12.1", "failed", "1 failed, 2 passed", 4.0), absent])
    assert table([passed, absent]).splitlines()[1:] == [
        "3.11.7  passed   4 s   3 passed",
        "3.14    not run        no such interpreter",
    ]

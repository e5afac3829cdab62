"""Unit and integration tests on each interpreter that this machine has, from 3.11 to 3.14: `make test-pythons`.

An environment each, in build/pythons/, made anew when the locked packages change. Needs nothing but the standard library itself.
Exit 1 if any of them failed, or none was found; an interpreter that is absent is listed as not run.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
ENVIRONMENTS = ROOT / "build" / "pythons"
LOCK = ROOT / "requirements" / "dev.lock"
TESTS = ("tests/unit", "tests/integration", "--numprocesses=2", "--dist=loadfile", "-p", "no:cacheprovider")
ASK = "import platform; print(platform.python_version())"


class Outcome(NamedTuple):
    """`tests`: the last line of the run, or why there was none."""

    version: str
    result: str
    tests: str
    took_s: float


def candidates(version: str, environ: Mapping[str, str]) -> Iterator[Path]:
    """Where an interpreter of that version may be: on PATH, then under pyenv, the newest first."""
    for folder in environ.get("PATH", "").split(os.pathsep):
        yield Path(folder) / f"python{version}"
    pyenv = Path(environ.get("PYENV_ROOT") or Path(environ.get("HOME", "/")) / ".pyenv")
    found = [path for path in pyenv.glob(f"versions/{version}.*") if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    for path in sorted(found, key=lambda path: int(path.name.rpartition(".")[2]), reverse=True):
        yield path / "bin" / f"python{version}"


def find(version: str, environ: Mapping[str, str]) -> tuple[Path, str] | None:
    """An interpreter of that version that runs, and its full version. pyenv puts programs on PATH that run only if chosen."""
    for path in candidates(version, environ):
        if path.is_file():
            asked = subprocess.run([str(path), "-c", ASK], capture_output=True, text=True, check=False)
            if asked.returncode == 0 and asked.stdout.startswith(f"{version}."):
                return path, asked.stdout.strip()
    return None


def prepare(interpreter: Path, folder: Path) -> Path:
    """The interpreter of an environment with the locked packages and this project. Raises CalledProcessError."""
    python, stamp = folder / "bin" / "python", folder / "locked"
    locked = hashlib.sha256(LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes()).hexdigest()
    if not (stamp.exists() and stamp.read_text(encoding="utf-8") == locked):
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([str(interpreter), "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-deps"]
        subprocess.run([*pip, "--require-hashes", "-r", str(LOCK)], check=True)
        subprocess.run([*pip, "--no-build-isolation", "--editable", str(ROOT)], check=True)
        stamp.write_text(locked, encoding="utf-8")
    return python


def run(version: str, environ: Mapping[str, str], tests: Sequence[str]) -> Outcome:
    """Run the tests on that version, if there is an interpreter of it."""
    found = find(version, environ)
    if found is None:
        return Outcome(version, "not run", "no such interpreter on PATH or under pyenv", 0)
    interpreter, full = found
    print(f"== Python {full} ({interpreter})", flush=True)
    began_s = time.monotonic()
    try:
        python = prepare(interpreter, ENVIRONMENTS / version)
    except subprocess.CalledProcessError as error:
        return Outcome(full, "failed", f"no environment: exit {error.returncode}", time.monotonic() - began_s)
    command = [str(python), "-m", "pytest", "-q", *tests]
    last = ""
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            last = line.strip() or last
    return Outcome(full, "passed" if process.returncode == 0 else "failed", last, time.monotonic() - began_s)


def table(outcomes: Sequence[Outcome]) -> str:
    rows = [("Python", "result", "took", "tests")]
    rows += [(each.version, each.result, f"{each.took_s:.0f} s" if each.took_s else "", each.tests) for each in outcomes]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def failed(outcomes: Sequence[Outcome]) -> bool:
    """Whether any of them failed, or nothing was run at all."""
    results = {each.result for each in outcomes}
    return "failed" in results or "passed" not in results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=f"which; else {', '.join(VERSIONS)}")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="arguments of pytest, in the place of the usual ones")
    arguments = parser.parse_args()
    outcomes = [run(version, os.environ, arguments.tests) for version in arguments.versions or VERSIONS]
    print(f"\n{table(outcomes)}")
    return int(failed(outcomes))


if __name__ == "__main__":
    sys.exit(main())

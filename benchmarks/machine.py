"""The machine of a measurement: figures without it mean little."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from workers.stack.servers.valkey_server import server_command

_DISTRIBUTIONS: Final = {
    "persona_worker": "persona-worker",
    "celery": "celery",
    "kombu": "kombu",
    "redis_py": "redis",
    "hiredis": "hiredis",
    "msgspec": "msgspec",
}
# The peers of the measurements, where they are installed.
_PEERS: Final = (
    *("aiocache", "arq", "cachebox", "cachetools", "cashews", "dogpile.cache", "dramatiq", "huey", "moka-py", "rq"),
    *("taskiq", "taskiq-redis", "theine"),
)


def describe_machine() -> dict[str, str | int | float]:
    """`cores` are those that this process may use; `load_1m` is the load average at this moment: above 0 before a benchmark
    has begun, other programs were busy. `date` is today's, in UTC. Nothing identifies the machine."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "cpu": _cpu_model(),
        "system": f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        "date": datetime.now(UTC).date().isoformat(),
        "load_1m": round(os.getloadavg()[0], 2),
    }


def describe_versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "valkey": _server_version()}
    for name, distribution in {**_DISTRIBUTIONS, **{peer: peer for peer in _PEERS}}.items():
        with suppress(PackageNotFoundError):  # hiredis is optional to redis-py, and so is every peer
            versions[name] = version(distribution)
    return versions


def _cpu_model() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            field, _, value = line.partition(":")
            if field.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _server_version() -> str:
    """As the program reports it: `Server v=9.1.0 sha=...`. Raises StackError if there is no program for this machine."""
    program = server_command()[0]
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout  # noqa: S603 - the wheel's own program
    return next((word.removeprefix("v=") for word in said.split() if word.startswith("v=")), said.strip())

"""The whole stack as `persona up` runs it: worker, beat and Flower on its servers."""

from __future__ import annotations

import base64
import http.client
import os
import signal
import sys
from contextlib import closing
from pathlib import Path

import pytest
from polling import BOUND_S, until
from supervised import alive, found, supervisor

from workers.stack import StackInfo

SERVICES = ("broker", "cache", "worker", "beat", "flower")

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and only Linux ends orphans")


def processes_of(info: StackInfo) -> list[int]:
    """Every process of the stack, pool children included."""
    pids: list[int] = []
    for service in info.services:
        children = Path(f"/proc/{service.pid}/task/{service.pid}/children").read_text().split()
        pids += [service.pid, *map(int, children)]
    return pids


def status(info: StackInfo, path: str, password: str = "") -> int:
    assert info.flower is not None
    login = base64.b64encode(f"{info.flower.user}:{password}".encode()).decode()
    headers = {"Authorization": f"Basic {login}"} if password else {}
    with closing(http.client.HTTPConnection(info.flower.url.removeprefix("http://"), timeout=BOUND_S)) as connection:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status


@linux_only
def test_flower_asks_for_the_login_and_no_command_line_shows_a_password(tmp_path: Path) -> None:
    """Flower shows who works on what; `ps` shows command lines to every user of the machine."""
    with supervisor(tmp_path / ".persona", SERVICES) as (_process, info):
        assert [service.name for service in info.services] == list(SERVICES)
        assert info.flower is not None
        for path in ("/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks"):
            assert status(info, path) == http.client.UNAUTHORIZED, path
            assert status(info, path, "wrong") == http.client.UNAUTHORIZED, path
        assert status(info, "/workers", info.flower.password) == http.client.OK
        secrets = [info.flower.password]
        secrets += [
            info.environment[name].partition("://:")[2].partition("@")[0] for name in ("PERSONA_BROKER_URL", "PERSONA_CACHE_URL")
        ]
        assert all(secrets)
        pids = processes_of(info)
        assert len(pids) >= len(SERVICES) + 2  # the worker has two pool children at least
        for pid in pids:
            command = Path(f"/proc/{pid}/cmdline").read_text()
            assert not any(secret in command for secret in secrets), command


@linux_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_no_process_of_the_whole_stack_is_left(number: signal.Signals, tmp_path: Path) -> None:
    """In order after Ctrl-C, worker first; by the kernel after KILL; pool children are gone in both cases."""
    directory = tmp_path / ".persona"
    with supervisor(directory, SERVICES) as (process, info):
        pids = processes_of(info)
        os.killpg(process.pid, number)
        output, errors = process.communicate(timeout=BOUND_S)
        until(lambda: not any(alive(pid) for pid in pids), "every process is gone")
        if number is signal.SIGINT:
            assert process.returncode == 0, errors
            stopped = [line for line in output.splitlines() if line.endswith(": stopped")]
            assert stopped == [f"{name}: stopped" for name in ("worker", "beat", "flower", "broker", "cache")]
            assert not directory.exists()
        else:
            assert found(directory) is None

"""The commands and the checks of docker-compose.yml, run without an engine: real processes, on servers with its configuration."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from deployment import FILLED, ROOT, compose, environment
from polling import until
from servers import free_port

from benchmarks.kit.nodes import own_environment
from workers.stack.processes import ChildProcess
from workers.stack.servers.valkey_server import server_command

SERVICES = compose()["services"]
APP = ("worker", "beat", "flower")


class Server:
    """The compose file's command for `name`, on loopback: its shell command, with the wheel's program in the image's place."""

    def __init__(self, name: str, directory: Path) -> None:
        self.port = free_port()
        text = (ROOT / "deploy" / "valkey" / f"{name}.conf").read_text(encoding="utf-8")
        there = {"port 6379": f"port {self.port}", "bind * -::*": "bind 127.0.0.1", "dir /data": f"dir {directory}"}
        for line, here in there.items():
            assert line in text
            text = text.replace(line, here)
        (directory / "valkey.conf").write_text(text, encoding="utf-8")
        service = SERVICES[name]
        self.password = environment(service)["REDISCLI_AUTH"]
        self.url = f"redis://:{self.password}@127.0.0.1:{self.port}/0"
        program = service["command"][-1].replace("valkey-server", server_command()[0]).replace("/etc/valkey.conf", "valkey.conf")
        self._child = ChildProcess(
            [*service["command"][:-1], program],
            log=directory / "log",
            directory=directory,
            environ={**os.environ, **environment(service)},
        )

    def stop(self) -> bool:
        return self._child.stop(grace_s=10)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    with ExitStack() as stack:
        found = {}
        for name in ("broker", "cache"):
            found[name] = Server(name, tmp_path_factory.mktemp(name))
            stack.callback(found[name].stop)
        for server in found.values():
            with redis.Redis.from_url(server.url, retry=None) as client:
                until(partial(_answers, client), "the server answers")
        yield found


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture(scope="module")
def running(
    servers: dict[str, Server], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[ChildProcess, dict[str, str]]]]:
    """Worker, beat and Flower, each as its service has it, but for the servers' addresses and Flower's port."""
    kept = own_environment()
    port = str(free_port())
    addresses = {"PERSONA_BROKER_URL": servers["broker"].url, "PERSONA_CACHE_URL": servers["cache"].url}
    started = {}
    try:
        for name in APP:
            given = environment(SERVICES[name], {**FILLED, **addresses})
            environ = {**kept, **given, **addresses, "HOSTNAME": os.uname().nodename, "FLOWER_PORT_HERE": port}
            environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
            command = [here(argument, port) for argument in SERVICES[name]["command"]]
            log = tmp_path_factory.mktemp(name) / "log"
            started[name] = (ChildProcess(command, log=log, directory=ROOT, environ=environ), environ)
        yield started
    finally:
        for child, _ in started.values():
            child.kill()


def here(argument: str, port: str) -> str:
    return argument.replace("5555", port)


def check(name: str, environ: Mapping[str, str]) -> int:
    """The exit code of the service's health check, as the engine would run it."""
    test: list[Any] = SERVICES[name]["healthcheck"]["test"]
    command = ["sh", "-c", test[1]] if test[0] == "CMD-SHELL" else test[1:]
    # Loopback answers at once; of a worker that has ended there is nothing to wait for.
    command = [here(argument, environ["FLOWER_PORT_HERE"]).replace("--timeout 5", "--timeout 2") for argument in command]
    return subprocess.run(command, cwd=ROOT, env=dict(environ), capture_output=True, timeout=30, check=False).returncode


def _is_well(name: str, environ: Mapping[str, str]) -> bool:
    return check(name, environ) == 0


def test_the_servers_are_what_their_names_promise(servers: dict[str, Server]) -> None:
    """The program reads the whole of the configuration, and the password from standard input."""
    expected = {
        "broker": {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"},
        "cache": {"appendonly": "no", "save": "", "maxmemory-policy": "allkeys-lfu"},
    }
    for name, server in servers.items():
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            for option, value in expected[name].items():
                assert client.config_get(option)[option] == value
            assert int(client.config_get("maxmemory")["maxmemory"]) > 0
        with (
            redis.Redis.from_url(f"redis://127.0.0.1:{server.port}/0", retry=None) as nobody,
            pytest.raises(redis.AuthenticationError),
        ):
            nobody.ping()


def test_each_service_is_well_when_it_runs_and_not_when_it_has_ended(
    running: dict[str, tuple[ChildProcess, dict[str, str]]],
) -> None:
    """The checks are commands that exist, that say yes of what works, and no of what does not."""
    for name, (child, environ) in running.items():
        until(partial(_is_well, name, environ), f"{name} is well", bound_s=60)
        assert child.exit_code is None
    for name, (child, environ) in running.items():
        child.send_signal(signal.SIGKILL if name == "worker" else signal.SIGTERM)
        until(partial(child.wait, 0), f"{name} has ended")
        assert check(name, environ) != 0

"""docker-compose.secure.yml, run without an engine: deploy/secure.sh makes its folder, and servers and parts run by it.

A server program with TLS (`valkey-server` or `redis-server` on the PATH) runs the file's command as it is. Without one, the
wheel's program runs it without TLS, behind an address with the made certificates that lets nobody in without one.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import redis
from deployment import ROOT, environment, secure_compose
from front import Front
from polling import until
from servers import NO_STACK, free_port

from benchmarks.kit.nodes import own_environment
from pipeline.discovery import STACK_DIR
from pipeline.settings import load_settings
from workers.client import PersonaClient
from workers.queue.tls.refusals import check_certificates
from workers.stack.processes import ChildProcess
from workers.stack.servers.valkey_server import server_command

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

SERVICES = secure_compose()["services"]
FILES = "/run/secrets/persona"
KEY = "calm-medium-learning"


def program_with_tls() -> str:
    """The path of a server program that is built with TLS; empty if there is none."""
    for name in ("valkey-server", "redis-server"):
        if (path := shutil.which(name)) is not None:
            tried = subprocess.run(
                [path, "--port", "0", "--tls-port", "1", "--tls-cert-file", "/none"], capture_output=True, timeout=10, check=False
            )
            if b"load certificate" in tried.stdout.lower() or b"configure tls" in tried.stdout.lower():
                return path
    return ""


class Server:
    """A server of the file, by its own command, on loopback."""

    def __init__(self, name: str, made: Path, directory: Path, stack: ExitStack) -> None:
        self.name, self.made = name, made / name
        self.port = free_port()
        program = program_with_tls()
        text = (ROOT / "deploy" / "valkey" / f"{name}.conf").read_text(encoding="utf-8")
        for line, here in {"bind * -::*": "bind 127.0.0.1", "dir /data": f"dir {directory}"}.items():
            assert line in text
            text = text.replace(line, here)
        (directory / "valkey.conf").write_text(text, encoding="utf-8")
        command = self.here(SERVICES[name]["command"][-1]).replace("/etc/valkey.conf", "valkey.conf")
        if program:
            command = command.replace("valkey-server", program).replace("tls-port 6379", f"tls-port {self.port}")
            self._leave_out_what_is_newer(program)
        else:
            behind = free_port()
            command = re.sub(r"\ntls-.*", "", command).replace("port 0", f"port {behind}")
            command = command.replace("valkey-server", server_command()[0])
            self.port = stack.enter_context(Mutual(behind, self.made)).port
        child = ChildProcess(
            [*SERVICES[name]["command"][:-1], command], log=directory / "log", directory=directory, environ={**os.environ}
        )
        stack.callback(child.stop, grace_s=10)
        self.child, self.log = child, directory / "log"

    def here(self, text: str) -> str:
        return text.replace("/tls/", f"{self.made}/")

    def is_well(self) -> bool:
        """As the file's own check asks, but that the image's client may not be here."""
        options = {"ssl_ca_certs": "ca.pem", "ssl_certfile": "server.pem", "ssl_keyfile": "server.key"}
        paths = {option: str(self.made / file) for option, file in options.items()}
        try:
            with redis.Redis(port=self.port, ssl=True, username="health", password="health", retry=None, **paths) as client:
                return bool(client.ping())
        except redis.ConnectionError:
            assert self.child.exit_code is None, self.log.read_text()
            return False

    def _leave_out_what_is_newer(self, program: str) -> None:
        """Redis before 7.2 has no CLIENT SETINFO to give a right to."""
        told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
        version = re.search(r"v=(\d+)\.(\d+)", told)
        if version is not None and (int(version[1]), int(version[2])) < (7, 2):
            users = self.made / "users.conf"
            users.write_text(users.read_text().replace(" +client|setinfo", ""))


class Mutual(Front):
    """The made certificates, in front of a server that speaks no TLS."""

    def __init__(self, target_port: int, made: Path) -> None:
        super().__init__(target_port)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(made / "ca.pem"))
        self._context.load_cert_chain(made / "server.pem", made / "server.key")
        self._context.verify_mode = ssl.CERT_REQUIRED


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Server]]]:
    """What the script made, with the servers' addresses here; and the servers."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    made = tmp_path_factory.mktemp("made") / "secure"
    subprocess.run(["sh", str(ROOT / "deploy" / "secure.sh"), str(made)], check=True, timeout=60)
    with ExitStack() as stack:
        servers = {name: Server(name, made, tmp_path_factory.mktemp(name), stack) for name in ("broker", "cache")}
        for server in servers.values():
            until(server.is_well, f"{server.name} is well")
        for path in made.glob("*/*-url"):
            text = path.read_text().replace(FILES, str(path.parent))
            for name, server in servers.items():
                text = text.replace(f"@{name}:6379/", f"@127.0.0.1:{server.port}/")
            path.write_text(text)
        yield made, servers


def environ_of(part: str, made: Path) -> dict[str, str]:
    """The part's variables, with the folder that its container would have."""
    # A caller is a program of one's own: as the operator, with the folder of its name.
    given = environment(SERVICES["operator" if part == "caller" else part])
    given = {name: value.replace(FILES, str(made / part)) for name, value in given.items()}
    return {**own_environment(), STACK_DIR: NO_STACK, **given, "HOSTNAME": os.uname().nodename}


def run(command: list[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)


def is_well(part: str, environ: dict[str, str], port: str) -> bool:
    test = SERVICES[part]["healthcheck"]["test"]
    command = ["sh", "-c", test[1]] if test[0] == "CMD-SHELL" else test[1:]
    return run([word.replace("5555", port) for word in command], environ).returncode == 0


def test_every_part_works_by_its_own_files(deployed: tuple[Path, dict[str, Server]], tmp_path: Path) -> None:
    """Worker, beat and Flower are well by the file's checks; a caller is answered, an operator's commands run."""
    made, _ = deployed
    port = str(free_port())
    started = []
    try:
        for part in ("worker", "beat", "flower"):
            environ = environ_of(part, made)
            environ["PATH"] = f"{Path(sys.executable).parent}:{environ['PATH']}"
            command = [word.replace("5555", port) for word in SERVICES[part]["command"]]
            started.append((part, environ, ChildProcess(command, log=tmp_path / part, directory=ROOT, environ=environ)))
        for part, environ, child in started:
            until(partial(is_well, part, environ, port), f"{part} is well:\n{(tmp_path / part).read_text()}", bound_s=90)
            assert child.exit_code is None
        caller = environ_of("caller", made)
        settings = load_settings({name: value for name, value in caller.items() if name.startswith("PERSONA_")})
        check_certificates(settings)
        with PersonaClient(settings) as client:
            assert client.submit("Who is there?", KEY).result(30).persona
            assert client.invalidate("persona:*", wait_s=5).applied
        for words in (["dead-letters"], ["stats"], ["preload"]):
            done = run([sys.executable, "-m", "workers.cli", *words], environ_of("operator", made))
            assert done.returncode == 0, (words, done.stderr)
        done = run([sys.executable, "-m", "workers.cli", "dead-letters"], caller)
        assert done.returncode == 1
        assert "is it running" not in done.stderr, "it was reached: what is missing is a right"
        assert "NOPERM" in done.stderr or "permissions" in done.stderr
    finally:
        for _, _, child in started:
            child.kill()
    for part, _, _ in started:
        log = (tmp_path / part).read_text()
        assert "NOPERM" not in log, log
        assert "No permissions" not in log, log


def test_nobody_comes_in_without_a_certificate_or_a_name(deployed: tuple[Path, dict[str, Server]]) -> None:
    """TLS alone is no login, and no login is heard without TLS."""
    made, servers = deployed
    paths = {"ssl_ca_certs": str(made / "ca.pem")}
    own = {"ssl_certfile": str(made / "caller" / "client.pem"), "ssl_keyfile": str(made / "caller" / "client.key")}
    for server in servers.values():
        for options in ({"ssl": True, **paths}, {}):
            with (
                redis.Redis(port=server.port, socket_timeout=2, retry=None, **options) as client,
                pytest.raises(redis.RedisError),
            ):
                client.ping()
        with (
            redis.Redis(port=server.port, ssl=True, retry=None, **paths, **own) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()

"""A real RabbitMQ for tests: of its own, on loopback, gone with the test process whatever happens to it.

with RabbitServer() as rabbit:
    Celery("shop", broker=rabbit.url)
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import amqp
from servers import free_port

from workers.stack.processes import ChildProcess
from workers.stack.servers.valkey_server import HOST

START_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 30.0
ANSWER_S: Final = 5.0
_DEBIAN: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""The program itself. What Debian has in the PATH runs it as another user, on the machine's own directories."""
_SETTINGS: Final = """\
loopback_users.guest = true
vm_memory_high_watermark.absolute = 512MB
disk_free_limit.absolute = 10MB
log.file = false
log.console = true
log.console.level = warning
"""


def missing() -> str:
    """What must be installed for a RabbitMQ; empty if all is there."""
    absent = [name for name in ("rabbitmq-server", "epmd", "erl") if _program(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


def _program(name: str) -> str | None:
    if name == "rabbitmq-server" and _DEBIAN.exists():
        return str(_DEBIAN)
    return shutil.which(name)


class RabbitServer:
    """A broker with a node name, ports, a cookie and directories of its own. Any thread may use it, one at a time.

    It needs a registry of names, `epmd`, which a RabbitMQ starts for the whole machine and leaves running: here it is a child
    like the server, on a port of its own.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="rabbit-"))
        self.port = free_port()
        self._registry_port, self._distribution_port = free_port(), free_port()
        self._registry: ChildProcess | None = None
        self._server: ChildProcess | None = None

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@{HOST}:{self.port}//"

    def start(self) -> Self:
        """Start it, on the same port as before and with its durable queues, and return when it takes a connection."""
        (self.directory / "rabbitmq.conf").write_text(_SETTINGS)
        (self.directory / "plugins").write_text("[].\n")
        try:
            if self._registry is None:
                self._registry = self._child("epmd", "-address", HOST, "-port", str(self._registry_port))
            self._server = self._child("rabbitmq-server")
            deadline_s = time.monotonic() + START_TIMEOUT_S
            while not self._answers():
                ended = self._server.exit_code is not None or self._registry.exit_code is not None
                assert not ended, f"RabbitMQ ended:\n{self.log()}"
                assert time.monotonic() < deadline_s, f"RabbitMQ did not start:\n{self.log()}"
                time.sleep(0.1)
        except BaseException:
            self.close()
            raise
        return self

    def stop(self) -> None:
        """In order (TERM), also when frozen: what is durable is there again after `start`."""
        if self._server is not None:
            self._server.send_signal(signal.SIGCONT)
            self._server.stop(STOP_TIMEOUT_S)
            self._server = None

    def kill(self) -> None:
        """At once: what is durable, and was confirmed to its sender, is there again after `start`."""
        if self._server is not None:
            self._server.kill()
            self._server = None

    def freeze(self) -> None:
        """Connections stay open and take bytes, but nothing is answered until `thaw`."""
        assert self._server is not None, "the server is not started"
        self._server.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._server is not None, "the server is not started"
        self._server.send_signal(signal.SIGCONT)

    def _child(self, name: str, *arguments: str) -> ChildProcess:
        program = _program(name)
        assert program is not None, missing()
        command = [program, *arguments]
        return ChildProcess(command, log=self.directory / "log", environ=self._environ(), directory=self.directory)

    def version(self) -> str:
        """As the server says it."""
        with amqp.Connection(f"{HOST}:{self.port}", connect_timeout=ANSWER_S) as connection:
            return str(connection.server_properties["version"])

    def log(self) -> str:
        path = self.directory / "log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def close(self) -> None:
        """End it at once, and remove its files."""
        for child in (self._server, self._registry):
            if child is not None:
                child.kill()
        self._server = self._registry = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            return bool(self.version())
        except (OSError, amqp.AMQPError):
            return False

    def _environ(self) -> dict[str, str]:
        """Nothing of another RabbitMQ of this machine, nor of the caller's."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
        here = self.directory
        return kept | {
            "HOME": str(here),  # where the cookie is
            "ERL_EPMD_PORT": str(self._registry_port),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_CRASH_DUMP": "/dev/null",
            "RABBITMQ_NODENAME": f"test-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 2:2",
            "RABBITMQ_CONFIG_FILE": str(here / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(here / "none"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(here / "none.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(here / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(here / "data"),
            "RABBITMQ_FEATURE_FLAGS_FILE": str(here / "flags"),
            "RABBITMQ_PID_FILE": str(here / "pid"),
            "RABBITMQ_LOG_BASE": str(here / "logs"),
            "RABBITMQ_LOGS": "-",
            # The program becomes the server, and is no shell that waits for it: so its end is the server's end.
            "RUNNING_UNDER_SYSTEMD": "true",
        }

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

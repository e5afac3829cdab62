"""Real Flower processes for tests: `celery -A workers flower`, gone with the test process."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from fleet import ROOT, persona_environ
from forked import Program, start_celery
from polling import until
from servers import free_port

from benchmarks.kit.nodes import own_environment

USER: Final = "reader"
PASSWORD: Final = "canary-of-the-password"
BOUND_S: Final = 20.0


class Answer(NamedTuple):
    """The response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


class FlowerServer:
    """One Flower on a free port of 127.0.0.1, behind USER and PASSWORD unless `environ` or `arguments` say otherwise."""

    def __init__(
        self,
        *,
        broker_url: str,
        cache_url: str = "",
        environ: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        prefix: str = "",
    ) -> None:
        self.port = free_port()
        self.prefix = prefix
        self.login = f"{USER}:{PASSWORD}"
        self.directory = Path(tempfile.mkdtemp(prefix="flower-"))
        self._environ = {**own_environment(), **persona_environ(broker_url=broker_url, cache_url=cache_url)}
        self._environ |= {"FLOWER_BASIC_AUTH": self.login} if environ is None else environ
        self._command = [sys.executable, "-m", "celery", "-A", "workers", "flower", f"--port={self.port}", *arguments]
        self.process: Program | None = None

    @property
    def url(self) -> str:
        """With the login in it, as a user may paste it."""
        return f"http://{self.login}@127.0.0.1:{self.port}{self.prefix}"

    def start(self, *, wait: bool = True) -> Self:
        self.process = start_celery(self._command, log=self.directory / "log", environ=self._environ, directory=ROOT)
        if wait:
            until(lambda: self.ended or self._is_up(), "Flower answers")
            assert not self.ended, self.log()
        return self

    @property
    def ended(self) -> bool:
        return self.process is not None and self.process.exit_code is not None

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        login: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """`login`: `user:password`, or "" for none; else the right one. `headers` win."""
        login = self.login if login is None else login
        sent = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()} if login else {}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=BOUND_S)) as connection:
            connection.request(method, self.prefix + path, headers={**sent, **(headers or {})}, body=body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())

    def log(self) -> str:
        path = self.directory / "log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            sys.stdout.write(self.log())  # shown beside the failure
        self.close()

    def _is_up(self) -> bool:
        try:
            return self.ask("/healthcheck", login="").status == http.client.OK
        except OSError:
            return False

"""Addresses in front of a server of the tests: one that can lead elsewhere, and one with TLS."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
import tempfile
import threading
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from workers.stack.servers.valkey_server import HOST

START_TIMEOUT_S = 10.0


class Certificates:
    """Made for the run, and thrown away with it; all are paths of PEM files. `authority`: the signer's; `certificate` and `key`:
    of a server on loopback; `stranger`: of an authority that signed nothing."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl, which makes the certificates, is not installed")
        self.authority, self._authority_key = directory / "authority.pem", directory / "authority.key"
        self.stranger = directory / "stranger.pem"
        self.certificate, self.key = directory / "server.pem", directory / "server.key"
        self._make(self.authority, self._authority_key, "/CN=tests")
        self._make(self.stranger, directory / "stranger.key", "/CN=stranger")
        signed = ["-CA", str(self.authority), "-CAkey", str(self._authority_key)]
        named = ["-addext", f"subjectAltName=IP:{HOST},DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"]
        self._make(self.certificate, self.key, "/CN=server", *signed, *named)

    @staticmethod
    def _make(certificate: Path, key: Path, subject: str, *more: str) -> None:
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        done = subprocess.run(
            [*command, "-subj", subject, "-out", str(certificate), "-keyout", str(key), *more],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


class Front:
    """An address in front of a server: a free port of loopback. `target_port` may change: new connections then lead elsewhere,
    and those that there are stay where they are, as behind an address that follows a master."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self._context: ssl.SSLContext | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="front", daemon=True)
        self._listening: Future[int] = Future()
        self._stopping: asyncio.Event | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = self._listening.result(START_TIMEOUT_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._stopping is not None
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(START_TIMEOUT_S)

    @property
    def url(self) -> str:
        """Database 0."""
        return f"redis://{HOST}:{self.port}/0"

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._pass_on, HOST, 0, ssl=self._context)
        self._listening.set_result(server.sockets[0].getsockname()[1])
        await self._stopping.wait()
        server.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(HOST, self.target_port)
        await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))


class TlsFront(Front):
    """TLS in front of a server that speaks none."""

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self.directory = Path(tempfile.mkdtemp(prefix="tls-"))
        self.certificates = Certificates(self.directory)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(self.certificates.certificate, self.certificates.key)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def url(self) -> str:
        """Database 0, checked by the authority's certificate."""
        return f"rediss://{HOST}:{self.port}/0?ssl_ca_certs={self.certificates.authority}"


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass  # either end may be gone at any moment
    finally:
        writer.close()

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
KEY_PASSWORD = "of-the-key"


class Certificates:
    """Of the run's own, made and thrown away with it; all are paths of PEM files. `authority` signed them; `certificate` and
    `key`: of a server on loopback; `client` and `client_key`, under KEY_PASSWORD: of a client; `stranger`: an authority that
    signed nothing. `by_hash`: a folder with the authority as OpenSSL looks it up."""

    def __init__(self, directory: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl, which makes the certificates, is not installed")
        self.authority, self._authority_key = directory / "authority.pem", directory / "authority.key"
        self.stranger = directory / "stranger.pem"
        self.certificate, self.key = directory / "server.pem", directory / "server.key"
        signs = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]  # from Python 3.13 on nothing else is an authority
        self._make(self.authority, self._authority_key, "/CN=tests", "-nodes", *signs)
        self._make(self.stranger, directory / "stranger.key", "/CN=stranger", "-nodes", *signs)
        signed = ["-CA", str(self.authority), "-CAkey", str(self._authority_key), "-addext", "basicConstraints=critical,CA:FALSE"]
        named = ["-addext", f"subjectAltName=IP:{HOST},DNS:localhost"]
        self._make(self.certificate, self.key, "/CN=server", "-nodes", *signed, *named)
        self.client, self.client_key = directory / "client.pem", directory / "client.key"
        self._make(self.client, self.client_key, "/CN=client", "-passout", f"pass:{KEY_PASSWORD}", *signed)
        self.by_hash = directory / "authorities"
        self.by_hash.mkdir()
        name = self._openssl("x509", "-noout", "-hash", "-in", str(self.authority)).strip()
        (self.by_hash / f"{name}.0").symlink_to(self.authority)

    @classmethod
    def _make(cls, certificate: Path, key: Path, subject: str, *more: str) -> None:
        command = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-days", "2"]
        cls._openssl(*command, "-subj", subject, "-out", str(certificate), "-keyout", str(key), *more)

    @staticmethod
    def _openssl(*arguments: str) -> str:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


class Front:
    """An address in front of a server: a free port of loopback, or of another address of the machine. `target_port` may change:
    new connections then lead elsewhere, and those that there are stay where they are, as behind an address that follows a
    master."""

    def __init__(self, target_port: int, *, host: str = HOST) -> None:
        self.target_port = target_port
        self.host = host
        """An address of this machine."""
        self._context: ssl.SSLContext | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="front", daemon=True)
        self._listening: Future[int] = Future()
        self._stopping: asyncio.Event | None = None
        self._connections: dict[asyncio.Task[None], tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = {}

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
        return f"redis://{self.host}:{self.port}/0"

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._pass_on, self.host, 0, ssl=self._context)
        self._listening.set_result(server.sockets[0].getsockname()[1])
        await self._stopping.wait()
        server.close()
        passing = list(self._connections)
        for writers in self._connections.values():
            for writer in writers:
                writer.transport.abort()
        await asyncio.gather(*passing)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(HOST, self.target_port)
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer, there_writer
        try:
            await asyncio.gather(_pump(reader, there_writer), _pump(there_reader, writer))
        finally:
            del self._connections[task]


class TlsFront(Front):
    """TLS in front of a server that speaks none, as the one that tests start is built. `mutual`: a client needs a certificate,
    too."""

    def __init__(self, target_port: int, *, mutual: bool = False) -> None:
        super().__init__(target_port)
        self.directory = Path(tempfile.mkdtemp(prefix="tls-"))
        self.certificates = Certificates(self.directory)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(self.certificates.certificate, self.certificates.key)
        if mutual:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(self.certificates.authority)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        super().__exit__(kind, error, trace)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def url(self) -> str:
        """Database 0, checked by the authority's certificate."""
        return self.url_of(0)

    def url_of(self, database: int, password: str = "", *, authority: Path | None = None, client: bool = False) -> str:
        """`client`: with the client's certificate."""
        login = f":{password}@" if password else ""
        made = self.certificates
        own = f"&ssl_certfile={made.client}&ssl_keyfile={made.client_key}&ssl_password={KEY_PASSWORD}" if client else ""
        return f"rediss://{login}{HOST}:{self.port}/{database}?ssl_ca_certs={authority or made.authority}{own}"


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    except OSError:
        pass  # either end may be gone at any moment
    finally:
        writer.close()

"""A place for spans to go: it takes OTLP over HTTP and counts it. And a package path on which OpenTelemetry is not installed."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Final, Self

HIDING: Final = "raise ModuleNotFoundError(f'No module named {__name__!r}', name=__name__)\n"


class SpanSink:
    """`with SpanSink() as sink:`, on loopback; nodes are given its `environ`."""

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self._server.serve_forever, name="span-sink", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def environ(self) -> dict[str, str]:
        return {"PERSONA_TRACES": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._server.server_address[1]}"}

    @property
    def bytes(self) -> int:
        """How many have come."""
        return self._server.bytes


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    bytes = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        self.server.bytes += len(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Nothing."""


def hide_opentelemetry(folder: Path) -> Path:
    """A folder for PYTHONPATH, by which there is no OpenTelemetry."""
    package = folder / "without" / "opentelemetry"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(HIDING, encoding="utf-8")
    return package.parent

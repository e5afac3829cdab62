"""A collector for tests, in a process of its own: it takes OTLP over HTTP, decodes it with the protocol's own classes, and
refuses what they cannot read. `otelcol` itself is in no package registry that this project installs from."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

START_S: Final = 20.0


class Span(NamedTuple):
    """As it was received. Ids in hexadecimal; `parent` is empty for a root."""

    trace: str
    id: str
    parent: str
    name: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    links: list[list[str]]
    error: bool
    service: str


class Collector:
    """`with Collector() as collector:`; nodes and clients are given its `environ`."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self._read = 0
        self._spans: dict[tuple[str, str], Span] = {}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        return {"PERSONA_TRACES": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": self.url}

    def spans(self) -> list[Span]:
        """All that it has, each once however often it came."""
        for each in json.loads(self._get(f"/spans/{self._read}")):  # tests ask again and again: only what has come since
            self._read += 1
            for span in each:
                self._spans[span[0], span[1]] = Span(*span)
        return list(self._spans.values())

    def traces(self) -> dict[str, list[Span]]:
        found: dict[str, list[Span]] = defaultdict(list)
        for span in self.spans():
            found[span.trace].append(span)
        return found

    def raw(self) -> bytes:
        """All bodies as they came, unpacked, one after another."""
        return self._get("/raw")

    def requests(self) -> int:
        return int(self._get("/requests"))

    def behave(self, how: str) -> None:
        """`well`, `slow` (it answers after 3 s), `busy` (503), `refuse` (400)."""
        urllib.request.urlopen(f"{self.url}/behave", data=how.encode(), timeout=10).close()

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            body: bytes = response.read()
            return body


def broken(spans: Sequence[Span]) -> str:
    """What is wrong with a trace; empty if it is whole: one root, every parent there, and every time in order."""
    ids = {span.id for span in spans}
    roots = [span.name for span in spans if not span.parent]
    orphans = [span.name for span in spans if span.parent and span.parent not in ids]
    backward = [span.name for span in spans if not 0 < span.start_ns <= span.end_ns]
    wrong = [] if len(roots) == 1 else [f"roots: {roots}"]
    wrong += [f"without parent: {orphans}"] if orphans else []
    wrong += [f"ended before they began: {backward}"] if backward else []
    return "; ".join(wrong)


# -- the process


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.bodies: list[bytes] = []
        self.how = "well"
        self.came = 0


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        with self.server.lock:
            bodies = list(self.server.bodies)
        if self.path.startswith("/spans/"):
            self._answer(200, json.dumps([_decoded(body) for body in bodies[int(self.path[7:]) :]]).encode())
        elif self.path == "/requests":
            self._answer(200, str(self.server.came).encode())
        else:
            self._answer(200, b"".join(bodies))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/behave":
            self.server.how = body.decode()
            self._answer(200, b"")
            return
        self.server.came += 1
        if self.server.how == "slow":
            time.sleep(3)
        if self.server.how in ("busy", "refuse"):
            self._answer(503 if self.server.how == "busy" else 400, b"")
            return
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path != "/v1/traces" or self.headers["Content-Type"] != "application/x-protobuf":
            self._answer(404, b"")
            return
        try:
            _decoded(body)
        except Exception:  # as a collector does
            self._answer(400, b"")
            raise
        with self.server.lock:
            self.server.bodies.append(body)
        self._answer(200, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Nothing."""


def _decoded(body: bytes) -> list[tuple[Any, ...]]:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans = []
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = next(each.value.string_value for each in resource.resource.attributes if each.key == "service.name")
        for span in [span for scope in resource.scope_spans for span in scope.spans]:
            assert (len(span.trace_id), len(span.span_id), len(span.parent_span_id) in (0, 8)) == (16, 8, True)
            spans.append(
                (
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.name,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes},
                    [[link.trace_id.hex(), link.span_id.hex()] for link in span.links],
                    span.status.code == 2,
                    service,
                )
            )
    return spans


if __name__ == "__main__":
    listening = _Server()
    sys.stdout.write(f"{listening.server_address[1]}\n")
    sys.stdout.flush()
    listening.serve_forever()

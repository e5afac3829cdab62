"""A scripted model endpoint: OpenAI-compatible, quick, deterministic, and faulty on demand.

In a test: `with ScriptedEndpoint() as endpoint: endpoint.script(Fault("status", status=503, times=2))`.
As a process, for workers of their own: `python tests/endpoints.py --port 0 --delay-ms 95` prints `{"url": ...}` once it
listens; `GET /calls` answers `{"calls": n}`, and `POST /script` takes a fault as JSON, such as
`{"fault": "status", "status": 500, "times": 3}`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import socket
import sys
import threading
from collections import deque
from dataclasses import dataclass, fields, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import FrameType
from typing import Any, Final, Literal, Self, get_args

FaultName = Literal["answer", "hang", "status", "body", "drip", "drip_headers", "close", "cut"]

CLOSE_S: Final = 5.0


@dataclass(frozen=True)
class Fault:
    """How the next chat completions are answered.

    `answer`: as asked. `hang`: nothing, until `release` or the next `script`; then the connection is closed.
    `status`: an error object under that status, 200 too. `body`: `body`, as `content_type`, under `status`.
    `drip`: the body byte by byte, one each `interval_ms`; `drip_headers`: the head too. `close`: closed without a word.
    `cut`: closed half way through the body.
    """

    fault: FaultName = "answer"
    times: int | None = None
    """How many calls it meets; then answers are as asked again. None: all of them."""
    delay_ms: float = 0.0
    status: int = 200
    code: str | None = None
    message: str = "scripted"
    retry_after: str | None = None
    body: str = ""
    content_type: str = "application/json"
    content_length: bool = True
    interval_ms: float = 50.0

    @classmethod
    def from_json(cls, wire: object) -> Self:
        """Raises ValueError naming the field and what is allowed."""
        known = {field.name for field in fields(cls)}
        if not isinstance(wire, dict) or not wire.keys() <= known:
            raise ValueError(f"expected an object with some of {', '.join(sorted(known))}")
        if wire.get("fault") not in get_args(FaultName):
            raise ValueError(f"fault: expected one of {', '.join(get_args(FaultName))}")
        return cls(**wire)


@dataclass(frozen=True)
class Asked:
    """One chat completion request as it came."""

    body: dict[str, Any]
    headers: dict[str, str]
    """Their names are lower case."""
    peer: tuple[str, int]
    """The client's address: equal for requests over one connection."""


def answer_to(messages: list[dict[str, str]]) -> str:
    """The content that the endpoint gives: the last message, marked with a digest over all of them."""
    digest = hashlib.blake2b(json.dumps(messages, sort_keys=True).encode(), digest_size=6).hexdigest()
    return f"echo {digest}: {messages[-1]['content']}"


class ScriptedEndpoint:
    """Listens on 127.0.0.1 from its making until `close`. Its methods may be called from any thread."""

    def __init__(self, *, port: int = 0, delay_ms: float = 0.0) -> None:
        """Answers take `delay_ms` at least, also after a script has run out."""
        self._usual = Fault(delay_ms=delay_ms)
        self._lock = threading.Lock()
        self._fault = self._usual
        self._left: int | None = None
        self._calls = 0
        self._asked: deque[Asked] = deque(maxlen=1000)
        self._released = threading.Event()
        self._server = _Server(self, port)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="scripted-endpoint", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        """The base of the API, as PERSONA_LLM_URL takes it."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def calls(self) -> int:
        """How many chat completions were asked for, whatever came of them."""
        with self._lock:
            return self._calls

    @property
    def asked(self) -> list[Asked]:
        """The last 1000 of them, oldest first."""
        with self._lock:
            return list(self._asked)

    def script(self, fault: Fault) -> None:
        """Behave so from now on, and release what hangs. A fault without a delay of its own has the endpoint's."""
        with self._lock:
            self._fault = replace(fault, delay_ms=fault.delay_ms or self._usual.delay_ms)
            self._left = fault.times
            self._release()

    def release(self) -> None:
        """End what hangs, drips or is delayed at this moment."""
        with self._lock:
            self._release()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(CLOSE_S)
        self._server.closing = True
        self.release()
        self._server.drop_connections()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self, asked: Asked) -> tuple[Fault, threading.Event]:
        """Count a call: the fault that meets it, and the event that releases it."""
        with self._lock:
            self._calls += 1
            self._asked.append(asked)
            fault = self._fault
            if self._left is not None:
                self._left -= 1
                if self._left <= 0:
                    self._fault, self._left = self._usual, None
            return fault, self._released

    def _release(self) -> None:
        self._released.set()
        self._released = threading.Event()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, endpoint: ScriptedEndpoint, port: int) -> None:
        self.endpoint = endpoint
        self.closing = False
        self._open: dict[socket.socket, threading.Thread] = {}
        self._open_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own asks the DNS for this machine's name

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open[request] = threading.current_thread()
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._open_lock:
                del self._open[request]

    def drop_connections(self) -> None:
        """End the idle connections too, and their threads, so that nothing is left open behind a test."""
        with self._open_lock:
            threads = list(self._open.values())
            for connection in self._open:
                _shut(connection)
        for thread in threads:
            thread.join(CLOSE_S)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that went away is what these tests are about
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's own signature
        """Nothing: the requests are kept in `asked`."""

    def do_GET(self) -> None:
        if self.path == "/calls":
            self._send(200, {"calls": self.server.endpoint.calls})
        elif self.path == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": "echo", "object": "model", "owned_by": "tests"}]})
        else:
            self._send(404, _error("no such path", "not_found_error"))

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(raw)
            if self.path == "/script":
                self.server.endpoint.script(Fault.from_json(body))
                self._send(200, {"ok": True})
            elif self.path == "/v1/chat/completions":
                headers = {name.lower(): value for name, value in self.headers.items()}
                self._complete(Asked(body, headers, self.client_address))
            else:
                self._send(404, _error("no such path", "not_found_error"))
        except ValueError as error:
            self._send(400, _error(str(error), "invalid_request_error"))

    def _complete(self, asked: Asked) -> None:
        fault, released = self.server.endpoint.take(asked)
        if fault.delay_ms:
            released.wait(fault.delay_ms / 1000)
        completion = _completion(asked.body)
        match fault.fault:
            case "answer":
                self._send(200, completion)
            case "status":
                self._send(fault.status, _error(fault.message, fault.code), fault)
            case "body":
                self._write(_response(fault.status, fault.body.encode(), fault))
                self.close_connection = not fault.content_length
            case "hang":
                released.wait()
                self._drop()
            case "close":
                self._drop()
            case "cut":
                response = _response(200, json.dumps(completion).encode(), fault)
                self._write(response[: -len(json.dumps(completion)) // 2])
                self._drop()
            case "drip" | "drip_headers":
                response = _response(200, json.dumps(completion).encode(), fault)
                at_once = response.index(b"\r\n\r\n") + 4 if fault.fault == "drip" else 0
                self._write(response[:at_once])
                for byte in response[at_once:]:
                    self._write(bytes([byte]))
                    if released.wait(fault.interval_ms / 1000):
                        break
                self._drop()

    def _send(self, status: int, body: object, fault: Fault | None = None) -> None:
        self._write(_response(status, json.dumps(body).encode(), fault or Fault()))

    def _write(self, response: bytes) -> None:
        if self.server.closing:
            raise ConnectionAbortedError
        self.wfile.write(response)

    def _drop(self) -> None:
        self.close_connection = True
        _shut(self.connection)


def _response(status: int, body: bytes, fault: Fault) -> bytes:
    """Head and body in one piece: two writes could be two packets."""
    head = [f"HTTP/1.1 {status} -", f"Content-Type: {fault.content_type}"]
    head.append(f"Content-Length: {len(body)}" if fault.content_length else "Connection: close")
    if fault.retry_after is not None:
        head.append(f"Retry-After: {fault.retry_after}")
    return "\r\n".join([*head, "", ""]).encode() + body


def _completion(asked: dict[str, Any]) -> dict[str, Any]:
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages or asked.get("stream"):
        raise ValueError("expected messages, and no stream")
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 0,
        "model": asked.get("model"),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": answer_to(messages)}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }


def _error(message: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "scripted", "code": code}}


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other side was quicker


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="A scripted OpenAI-compatible endpoint for tests and benchmarks.")
    parser.add_argument("--port", type=int, default=0, help="0: any free one (default)")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="how long each answer takes (default 0)")
    options = parser.parse_args()
    stopped = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopped.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    with ScriptedEndpoint(port=options.port, delay_ms=options.delay_ms) as endpoint:
        sys.stdout.write(json.dumps({"url": endpoint.url}) + "\n")
        sys.stdout.flush()
        stopped.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())

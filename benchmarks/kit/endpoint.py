"""A model's endpoint for tests and benchmarks: OpenAI-compatible, quick, deterministic, and faulty on demand.

In a test: `with ScriptedEndpoint() as endpoint: endpoint.script(Fault("status", status=503, times=2))`. Benchmarks run it in a
process of its own: see benchmarks/kit/model_server.py.
"""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Final, Literal, Self

FaultName = Literal["answer", "hang", "status", "body", "drip", "drip_headers", "close", "cut"]

Messages = Sequence[Mapping[str, Any]]
"""Of a chat completion request, each with `role` and `content`."""

CLOSE_S: Final = 5.0
MAX_CONNECTIONS: Final = 512
"""Each costs a thread; beyond it the endpoint says so at once."""


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


@dataclass(frozen=True)
class Asked:
    """One chat completion request as it came."""

    body: dict[str, Any]
    headers: dict[str, str]
    """Their names are lower case."""
    peer: tuple[str, int]
    """The client's address: equal for requests over one connection."""


def echo(messages: Messages) -> str:
    """The content that the endpoint gives unless told: the last message, marked with a digest over all of them."""
    digest = hashlib.blake2b(json.dumps(messages, sort_keys=True).encode(), digest_size=6).hexdigest()
    return f"echo {digest}: {messages[-1]['content']}"


class ScriptedEndpoint:
    """Listens on 127.0.0.1 from its making until `close`. Its methods may be called from any thread."""

    def __init__(self, *, delay_ms: float = 0.0, answer: Callable[[Messages], str] = echo, port: int = 0) -> None:
        """Answers take `delay_ms`, however many are asked for at once, and what the machine adds; also after a script has run
        out. `answer` makes the content; what it raises of ValueError, KeyError or TypeError is a bad request. `port` 0: any."""
        self._usual = Fault(delay_ms=delay_ms)
        self._lock = threading.Lock()
        self._fault = self._usual
        self._left: int | None = None
        self._calls = 0
        self._asked: deque[Asked] = deque(maxlen=1000)
        self._released = threading.Event()
        self.answer = answer
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
        """How many chat completions were asked for, whatever came of them. `GET /calls` tells other processes."""
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
        self._free = threading.Semaphore(MAX_CONNECTIONS)
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own asks the DNS for this machine's name

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            request.sendall(b"HTTP/1.1 503 too many connections\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open[request] = threading.current_thread()
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._open_lock:
                del self._open[request]
            self._free.release()

    def drop_connections(self) -> None:
        """End the idle connections too, and their threads, so that nothing is left open behind a test."""
        with self._open_lock:
            threads = list(self._open.values())
            for connection in self._open:
                _shut(connection)
        for thread in threads:
            thread.join(CLOSE_S)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that went away
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
        else:
            self._send(404, _error("no such path", "not_found_error"))

    def do_POST(self) -> None:
        come_s = time.monotonic()
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/v1/chat/completions":
            self._send(404, _error("no such path", "not_found_error"))
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            self._complete(Asked(json.loads(raw), headers, self.client_address), come_s)
        except (ValueError, KeyError, TypeError) as error:
            self._send(400, _error(f"not a chat completion: {error}", "invalid_request_error"))

    def _complete(self, asked: Asked, come_s: float) -> None:
        fault, released = self.server.endpoint.take(asked)
        completion = _completion(asked.body, self.server.endpoint.answer)
        if fault.delay_ms:
            released.wait(max(0.0, come_s + fault.delay_ms / 1000 - time.monotonic()))
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


def _completion(asked: dict[str, Any], answer: Callable[[Messages], str]) -> dict[str, Any]:
    messages = asked.get("messages")
    if not isinstance(messages, list) or not messages or asked.get("stream"):
        raise ValueError("expected messages, and no stream")
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 0,
        "model": asked.get("model"),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": answer(messages)}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }


def _error(message: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "scripted", "code": code}}


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other side was quicker

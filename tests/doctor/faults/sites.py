"""Faults of beat, of Flower, of the model's endpoint, and of the settings."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from polling import until
from servers import free_port

from benchmarks.kit.nodes import own_environment
from doctor.faults.planted import Fault, Given, Plant, added, asked_with
from doctor.stacks import Stack
from workers.doctor.looks.beat import PREFIX, SCHEDULE
from workers.stack.processes import ChildProcess
from workers.stack.servers.valkey_server import HOST


@contextmanager
def closed_port(_: Stack) -> Iterator[Given]:
    yield {"PERSONA_LLM_URL": f"http://{HOST}:{free_port()}/v1"}


@contextmanager
def mute_model(_: Stack) -> Iterator[Given]:
    """It takes connections, and says nothing."""
    with closing(socket.create_server((HOST, 0))) as listening:
        yield {"PERSONA_LLM_URL": f"http://{HOST}:{listening.getsockname()[1]}/v1"}


def answering(status: int, body: bytes = b"") -> Plant:
    """An endpoint that says that."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return

    @contextmanager
    def plant(_: Stack) -> Iterator[Given]:
        with ThreadingHTTPServer((HOST, 0), Answers) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield {"PERSONA_LLM_URL": f"http://{HOST}:{server.server_address[1]}/v1"}
            finally:
                server.shutdown()
                thread.join()

    return plant


@contextmanager
def stock_flower(stack: Stack) -> Iterator[Given]:
    port = free_port()
    url = f"http://{HOST}:{port}"
    with tempfile.TemporaryDirectory() as directory:
        command = [
            sys.executable,
            "-m",
            "celery",
            f"--broker={stack.broker.url}",
            "flower",
            f"--port={port}",
            f"--address={HOST}",
        ]
        process = ChildProcess(command, log=f"{directory}/log", environ=own_environment(), directory=directory)  # type: ignore[arg-type]
        try:
            until(lambda: _connects(port), "Flower listens")
            yield {"flower": url}
        finally:
            process.kill()


def _connects(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def second_beat(stack: Stack) -> Iterator[Given]:
    with (
        tempfile.TemporaryDirectory() as directory,
        stack.beat("--scheduler=celery.beat.PersistentScheduler", f"--schedule={directory}/schedule"),
    ):
        yield {}


@contextmanager
def stuck_beat(stack: Stack) -> Iterator[Given]:
    """As the schedule looks when its beat has stood still for ten minutes."""
    name = f"{PREFIX}cache.preload"
    due_s = stack.queue.zscore(SCHEDULE, name)
    stack.queue.zadd(SCHEDULE, {name: time.time() - 600})
    stack.queue.zadd(SCHEDULE, {f"{PREFIX}cache.maintain": time.time() - 600})
    try:
        yield {}
    finally:
        stack.queue.zadd(SCHEDULE, {name: due_s})


@contextmanager
def foreign_variable(_: Stack) -> Iterator[Given]:
    os.environ["CELERY_BROKER_URL"] = "redis://elsewhere:6379/0"
    try:
        yield {}
    finally:
        del os.environ["CELERY_BROKER_URL"]


FAULTS: Final = (
    Fault("a second beat, without the lock", ("beat: unlocked",), second_beat),
    Fault("a beat that stands still", ("beat: overdue",), stuck_beat),
    Fault(
        "another app's schedule",
        ("beat: foreign",),
        added(
            lambda stack: stack.queue.zadd(SCHEDULE, {f"{PREFIX}shop.report": time.time() + 9000}),
            lambda stack: stack.queue.zrem(SCHEDULE, f"{PREFIX}shop.report"),
        ),
    ),
    Fault("Flower without a login", ("flower: open",), stock_flower),
    Fault("the model's endpoint is away", ("model: away",), closed_port),
    Fault("the model's endpoint is mute", ("model: away",), mute_model),
    Fault("the model's endpoint fails", ("model: fails",), answering(503)),
    Fault("the model's endpoint wants a key", ("model: refuses-key",), answering(401)),
    Fault("the endpoint has other models", ("model: unknown",), answering(200, b'{"data": [{"id": "gpt"}]}')),
    Fault("Celery's variable names another broker", ("settings: foreign-variables",), foreign_variable),
    Fault(
        "results that end early",
        ("settings: results-end-early",),
        asked_with(PERSONA_RESULT_TTL_S="30", PERSONA_STALE_GRACE_S="0"),
    ),
    Fault(
        "a bound below a call's time-out",
        ("settings: bound-below-timeout",),
        asked_with(PERSONA_STALENESS_BOUND_S="0.2"),
    ),
    Fault(
        "answers that end before they are renewed", ("settings: renewed-too-late",), asked_with(PERSONA_PRELOAD_INTERVAL_S="3600")
    ),
    Fault("nobody audits", ("settings: unaudited",), asked_with(PERSONA_AUDIT_PER_S="0")),
)

"""A model's endpoint is asked before a stack begins: one that cannot answer is an error at once, not sixty failed requests."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from servers import free_port

from benchmarks.kit.endpoint import ScriptedEndpoint
from workers.stack import Stack, StackError, StackOptions
from workers.stack.endpoint import PATIENCE_S, answers, check_endpoint


@contextmanager
def answering(status: int) -> Iterator[str]:
    """An endpoint that answers every question so, and the address of its API."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            thread.join()


def test_one_that_answers_is_worth_no_word() -> None:
    """The usual case, and one that has no list of its models."""
    with ScriptedEndpoint() as endpoint:
        assert check_endpoint(endpoint.url, "") == ""
        assert endpoint.calls == 0
    with answering(404) as url:
        assert check_endpoint(url, "") == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_one_where_nobody_is_is_named_with_what_to_do(host: str) -> None:
    """A wrong port, or a wrong name."""
    url = f"http://{host}:{free_port()}/v1"
    with pytest.raises(StackError, match=rf"PERSONA_LLM_URL: {url} does not answer \(.+\)\. Start the model there"):
        check_endpoint(url, "")
    assert not answers(url, "")


def test_a_refused_key_is_the_key_s_fault() -> None:
    """Every request would fail by it; the key itself is not shown."""
    with answering(401) as url, pytest.raises(StackError) as refused:
        check_endpoint(url, "canary")
    assert str(refused.value).startswith("PERSONA_LLM_API_KEY: ")
    assert "canary" not in str(refused.value)


def test_one_that_may_yet_answer_is_told_and_used() -> None:
    """It loads, or it is busy: the stack need not wait for that."""
    with answering(503) as url:
        assert "not ready" in check_endpoint(url, "")
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        began_s = time.monotonic()
        said = check_endpoint(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", "", patience_s=0.2)
    assert "did not answer within 0.2 s" in said
    assert time.monotonic() - began_s < 30
    assert PATIENCE_S == 1.0


def test_a_stack_does_not_begin_with_a_dead_one(tmp_path: Path) -> None:
    """No server is started for it; with a responder of one's own no endpoint is needed."""
    dead = {"PERSONA_LLM_URL": f"http://127.0.0.1:{free_port()}/v1", "PERSONA_LLM_MODEL": "m"}
    notes: list[str] = []
    options = StackOptions(services=("broker", "worker"), directory=tmp_path / "stack", environ=dead)
    with pytest.raises(StackError, match="PERSONA_LLM_URL"):
        Stack(options, notes.append).start()
    assert notes == []
    assert not (tmp_path / "stack").exists()

"""A model's endpoint that takes a fixed time: OpenAI-compatible, deterministic, and it counts its calls.

with ModelServer(delay_ms=95) as model:
    settings = load_settings({**environ, **model.environment})
    ...
    assert model.calls == 10
    assert response.content == expected_answer(request)

It runs in a process of its own, so that it takes no turn of the interpreter from the measured program.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from benchmarks.kit.endpoint import Messages, ScriptedEndpoint
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.nodes import own_environment
from pipeline.models import PersonaRequest, PersonaResponse
from pipeline.persona_pipeline import PersonaPipeline
from pipeline.personas import load_catalog
from pipeline.prompts import Prompt
from pipeline.responders import Responder
from workers.stack.processes import ChildProcess

MODEL_NAME: Final = "bench-model"
ANSWER_CHARS: Final = 700  # some 150 words: a model's text of 256 tokens, the default bound of an answer
START_TIMEOUT_S: Final = 20.0
QUESTION_TIMEOUT_S: Final = 5.0
_TEXT: Final = (
    "a small step that ends today tells more than plan for whole year first write down what you know then ask one person "
    "who has done it and listen the rest can wait until morning when both of us look again with fresh eyes"
)


def answer_to(messages: Messages) -> str:
    """The endpoint's answer to these messages: a digest over all of them, and ANSWER_CHARS characters of text that follow
    from it. Equal prompts get equal answers, different ones different answers."""
    digest = hashlib.blake2b(digest_size=16)
    for message in messages:
        digest.update(f"{message['role']}\0{message['content']}\0".encode())
    words = random.Random(digest.digest()).choices(_TEXT.split(), k=ANSWER_CHARS)  # noqa: S311 - text, no secret
    text = f"{digest.hexdigest()}: {' '.join(words)}"
    return text[:ANSWER_CHARS].rstrip()


def reference_responder() -> Responder:
    """A responder that answers as the endpoint does, at once and without it."""
    return _Reference()


def expected_response(request: PersonaRequest) -> PersonaResponse:
    """The right response to this request, computed without a cache, a queue or a server."""
    return _reference_pipeline().process_request(request)


def expected_answer(request: PersonaRequest) -> str:
    """The content of the right response."""
    return expected_response(request).content


class ModelServer:
    """Serves from `__enter__` to `__exit__` on 127.0.0.1, in a process that ends with this one. Any thread may read its
    attributes meanwhile."""

    name: Final = MODEL_NAME

    def __init__(self, *, delay_ms: float) -> None:
        """Each answer takes `delay_ms`, however many are asked for at once, and whatever the machine adds."""
        if not 0 <= delay_ms <= 60_000:
            raise ValueError(f"delay_ms: {delay_ms}; expected 0 to 60000")
        self.delay_ms = delay_ms
        self.url = ""
        self._starts = 0

    @property
    def calls(self) -> int:
        """How many completions were requested since it began. Asks the process."""
        with closing(self._connect()) as connection:
            connection.request("GET", "/calls")
            return int(json.loads(connection.getresponse().read())["calls"])

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a node or a client uses it."""
        return {"PERSONA_LLM_URL": self.url, "PERSONA_LLM_MODEL": self.name, "PERSONA_LLM_API_KEY": "none"}

    def kill(self) -> None:
        """End the process at once, with all that it was asked: its port refuses connections."""
        self._process.kill()

    def come_back(self) -> None:
        """Begin anew at the same port, after `kill`. Its calls are counted from 0."""
        self._start(urlsplit(self.url).port or 0)

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="persona-bench-"))
        try:
            self._start(0)
        except BaseException:
            self._end()
            raise
        return self

    def _start(self, port: int) -> None:
        self._starts += 1
        self._process = ChildProcess(
            [sys.executable, "-m", "benchmarks.kit.model_server", "--delay-ms", str(self.delay_ms), "--port", str(port)],
            log=self._folder / f"log{self._starts}",
            environ=own_environment(),
            directory=self._folder,  # no file of the user's directory is imported
        )
        self.url = self._await_url()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def _await_url(self) -> str:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while True:
            ended = self._process.exit_code
            said = self._process.log.read_text(encoding="utf-8", errors="replace")
            for line in said.splitlines(keepends=True):
                if line.startswith("http://") and line.endswith("\n"):
                    return line.strip()
            if ended is not None or time.monotonic() > deadline_s:
                what = "did not answer in time" if ended is None else f"ended with {ended}"
                raise BenchmarkFailedError([f"the model's endpoint {what}", *said.splitlines()[-5:]])
            time.sleep(0.01)

    def _connect(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=QUESTION_TIMEOUT_S)

    def _end(self) -> None:
        self._process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class _Reference:
    model = fingerprint = MODEL_NAME

    def respond(self, prompt: Prompt) -> str:
        turns = [{"role": turn.role, "content": turn.content} for turn in prompt.history]
        return answer_to(
            [{"role": "system", "content": prompt.system}, *turns, {"role": "user", "content": prompt.user}],
        )


@lru_cache(maxsize=1)
def _reference_pipeline() -> PersonaPipeline:
    return PersonaPipeline(load_catalog(), reference_responder())


# -- the process


def main() -> None:
    """Serve until TERM; the first line on standard output is the URL."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kit.model_server", description=__doc__)
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--port", type=int, default=0)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    given = parser.parse_args()
    with ScriptedEndpoint(delay_ms=given.delay_ms, answer=answer_to, port=given.port) as endpoint:
        sys.stdout.write(f"{endpoint.url}\n")
        sys.stdout.flush()
        stopped.wait()


if __name__ == "__main__":
    main()

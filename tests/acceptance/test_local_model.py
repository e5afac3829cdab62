"""The whole way with a real model: what a scripted endpoint cannot show is that a real one understands the prompt."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import API_KEY, Fleet
from polling import until
from servers import free_port

from workers.stack.processes import ChildProcess
from workers.stack.readiness import http_is_ready
from workers.stack.servers.model import MODEL_ID, find_weights

pytestmark = [pytest.mark.model, pytest.mark.long]


@pytest.fixture(scope="module")
def model_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("xllamacpp")
    if find_weights() is None:
        pytest.skip("the model's weights are not installed")
    port = free_port()
    log = tmp_path_factory.mktemp("model") / "log"
    server = ChildProcess(
        [sys.executable, "-m", "workers.stack.servers.model_server", "--port", str(port)],
        log=log,
        environ={"PERSONA_LLM_API_KEY": API_KEY, "PATH": ""},
        directory=Path(__file__).parents[2],
    )
    try:
        until(
            lambda: server.exit_code is not None or http_is_ready(port, "/v1/models", API_KEY),
            "the model is loaded",
            bound_s=60,
        )
        assert server.exit_code is None, log.read_text()
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()


def test_a_real_model_answers_through_the_whole_fleet(model_url: str) -> None:
    """In two languages, by the persona that the key asks for, and once: the second answer is the cache's."""
    environ = {"PERSONA_LLM_URL": model_url, "PERSONA_LLM_MODEL": MODEL_ID, "PERSONA_LLM_TEMPERATURE": "0"}
    with Fleet(environ=environ | {"PERSONA_LLM_MAX_TOKENS": "24"}) as fleet:
        key = "frustrated-burst-seek_advice"
        for question, language in (("I keep failing my exams and feel stuck.", "en"), ("시험에 자꾸 떨어져요.", "ko")):
            first = fleet.ask_plain(question, key)
            second = fleet.ask_plain(question, key)
            assert (first.cached, first.persona, first.model, first.language) == ("no", "Lua", MODEL_ID, language)
            assert first.content
            assert second.cached in ("l1", "l2")
            assert second.content == first.content
            assert first.execution_time_ms >= 50 * second.execution_time_ms
        assert fleet.endpoint.calls == 0

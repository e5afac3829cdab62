"""The pipeline without a cache: every stage in its order, and nothing kept between calls."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pipeline import persona_pipeline
from pipeline.errors import InvalidRequestError, TransientModelError
from pipeline.models import PersonaRequest, PersonaResponse, ResonanceKey
from pipeline.persona_pipeline import PersonaPipeline, get_pipeline
from pipeline.personas import load_catalog
from pipeline.prompts import Prompt
from pipeline.responders import PromptResponder
from pipeline.settings import load_settings

KEY = "frustrated-burst-seek_advice"


class CountingResponder:
    """Answers with a number of its own for each call, and keeps the prompts."""

    model = "counting"
    fingerprint = "counting"

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []

    def respond(self, prompt: Prompt) -> str:
        self.prompts.append(prompt)
        return f"answer {len(self.prompts)} to {prompt.user}"


class UnreachableResponder(CountingResponder):
    def respond(self, prompt: Prompt) -> str:
        raise TransientModelError(f"no answer to {prompt.user}")


def ticking(*readings: float) -> Iterator[float]:
    return iter(readings)


def test_a_request_is_routed_prompted_and_answered() -> None:
    """The response tells the answer, its persona, the reason and the model."""
    responder = CountingResponder()
    clock = ticking(10.0, 10.25)
    pipeline = PersonaPipeline(load_catalog(), responder, clock=lambda: next(clock))
    response = pipeline.process("Too many meetings.", KEY, {"user_name": "Min"})
    (prompt,) = responder.prompts
    assert prompt.user == "Too many meetings."
    assert prompt.system.startswith(load_catalog().get("Lua").info.prompts.en)
    assert '"Min"' in prompt.system
    routing = pipeline.route(ResonanceKey.parse(KEY))
    assert response == PersonaResponse(
        content="answer 1 to Too many meetings.",
        persona="Lua",
        confidence=0.823,
        reason=routing.reason,
        resonance_key=KEY,
        scores=routing.scores,
        language="en",
        model="counting",
        cached="no",
        execution_time_ms=250.0,
        degraded=False,
    )


def test_every_call_computes_anew_whatever_use_cache_says() -> None:
    """There is no cache: `use_cache` is taken and makes no difference."""
    responder = CountingResponder()
    pipeline = PersonaPipeline(load_catalog(), responder)
    contents = [pipeline.process("hello", KEY, use_cache=flag).content for flag in (True, True, False)]
    assert contents == ["answer 1 to hello", "answer 2 to hello", "answer 3 to hello"]


def test_a_korean_input_is_answered_in_korean() -> None:
    """The response names the language in which the model was told to answer."""
    responder = CountingResponder()
    response = PersonaPipeline(load_catalog(), responder).process("회의가 너무 많아요.", KEY)
    assert response.language == responder.prompts[0].language == "ko"


def test_a_bad_request_reaches_no_model() -> None:
    """Validation comes first: a bad request costs nothing."""
    responder = CountingResponder()
    pipeline = PersonaPipeline(load_catalog(), responder)
    with pytest.raises(InvalidRequestError, match=r"^user_input: is empty"):
        pipeline.process(" ", KEY)
    with pytest.raises(InvalidRequestError, match=r"^resonance_key: unknown tone 'bored'"):
        pipeline.process("hello", "bored-medium-learning")
    with pytest.raises(InvalidRequestError, match=r"^context\.history\[0\]\.role"):
        pipeline.process("hello", KEY, {"history": [{"role": "system", "content": "x"}]})
    assert responder.prompts == []


def test_the_stages_in_a_row_are_the_pipeline() -> None:
    """A pipeline with a cache stands on the stages, and must come to the same answer."""
    pipeline = PersonaPipeline(load_catalog(), PromptResponder(), clock=lambda: 0.0)
    request = PersonaRequest.create("hello", KEY, {"user_id": "u1", "history": [{"role": "user", "content": "hi"}]})
    routing = pipeline.route(request.resonance)
    template = pipeline.template(pipeline.info(routing.slug), request.resonance)
    assert pipeline.answer(request, routing, template) == pipeline.process_request(request)


def test_an_info_of_nobody_is_refused() -> None:
    """The message names the personas there are."""
    with pytest.raises(InvalidRequestError, match="unknown persona 'zoe'; known are Lua"):
        PersonaPipeline(load_catalog(), PromptResponder()).info("zoe")


def test_an_error_of_the_model_reaches_the_caller_as_it_is() -> None:
    """The caller decides whether it is worth another try."""
    with pytest.raises(TransientModelError, match="no answer to hello"):
        PersonaPipeline(load_catalog(), UnreachableResponder()).process("hello", KEY)


def test_without_a_model_the_answer_is_the_composed_prompt() -> None:
    """All that a model would have been told, and the model's name is `prompt`."""
    response = PersonaPipeline(load_catalog(), PromptResponder()).process("{system} 100%", KEY)
    assert response.model == "prompt"
    assert "{system} 100%" in response.content
    assert load_catalog().get("lua").info.prompts.en in response.content


def test_threads_share_a_pipeline() -> None:
    """Answers do not mix: each thread gets the one to its own input."""
    pipeline = PersonaPipeline(load_catalog(), PromptResponder())
    wrong: list[str] = []
    start = threading.Barrier(4)

    def ask(name: str) -> None:
        start.wait(timeout=30)
        for number in range(50):
            text = f"{name} asks {number}"
            if not pipeline.process(text, KEY).content.endswith(text):
                wrong.append(text)

    threads = [threading.Thread(target=ask, args=(f"thread {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def test_the_process_has_one_pipeline_made_from_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Built at the first call, from the settings then, and the same ever after."""
    monkeypatch.setattr(persona_pipeline, "get_settings", lambda: load_settings({}))
    get_pipeline.cache_clear()
    try:
        pipeline = get_pipeline()
        assert get_pipeline() is pipeline
        assert pipeline.process("hello", KEY).model == "prompt"
    finally:
        get_pipeline.cache_clear()

"""The responders without a network: the prompt as text, the choice of one, and the judging of what an endpoint sent."""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import closing
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigurationError
from pipeline.models import Message
from pipeline.prompts import Prompt
from pipeline.responders import ChatResponder, PromptResponder, Responder, responder_from
from pipeline.responders.connection import Answer, log_type_of
from pipeline.responders.failures import CutShort, Failure, failure_of, judge, retry_after_s
from pipeline.settings import load_settings

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CANARY = "canary-of-the-user"


def completion(**message: object) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": "stop"}]}


def answer(body: object, status: int = 200, **headers: str) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, {"content-length": str(len(raw)), **headers}, raw)


def failure(body: object, status: int = 200, **headers: str) -> Failure:
    judged = judge(answer(body, status, **headers), "some-model")
    assert isinstance(judged, Failure), judged
    return judged


def chat(**changes: Any) -> ChatResponder:
    return ChatResponder(**{"base_url": "http://127.0.0.1:1/v1", "model": "some-model", **changes})


def test_without_a_model_the_answer_is_the_prompt_as_text() -> None:
    """All of the prompt shows, in the order in which a model would be told."""
    history = (Message(role="user", content="first"), Message(role="assistant", content="second"))
    prompt = Prompt(system="Be kind.\n\nBe brief.", history=history, user="{third} %s", language="en")
    responder: Responder = PromptResponder()
    expected = "[system]\nBe kind.\n\nBe brief.\n\n[user]\nfirst\n\n[assistant]\nsecond\n\n[user]\n{third} %s"
    assert responder.respond(prompt) == expected
    assert responder.model == "prompt"


def test_the_settings_choose_the_responder() -> None:
    """A model is asked exactly when an endpoint is configured, and every setting reaches it."""
    assert isinstance(responder_from(load_settings({})), PromptResponder)
    environ = {
        "PERSONA_LLM_URL": "http://127.0.0.1:1/v1",
        "PERSONA_LLM_MODEL": "some-model",
        "PERSONA_LLM_MAX_TOKENS": "17",
        "PERSONA_LLM_TEMPERATURE": "0.25",
    }
    responder = responder_from(load_settings(environ))
    assert isinstance(responder, ChatResponder)
    assert responder.model == "some-model"
    assert responder.fingerprint == chat(max_tokens=17, temperature=0.25).fingerprint


@pytest.mark.parametrize(
    "changes",
    [{"model": "other"}, {"base_url": "http://127.0.0.1:2/v1"}, {"max_tokens": 1}, {"temperature": 0.1}],
    ids=lambda changes: next(iter(changes)),
)
def test_what_shapes_an_answer_changes_the_fingerprint(changes: dict[str, Any]) -> None:
    """Else the cache would serve one model's answer for another model's."""
    assert chat(**changes).fingerprint != chat().fingerprint
    assert chat(**changes).fingerprint == chat(**changes).fingerprint


def test_what_does_not_shape_an_answer_leaves_the_fingerprint_alone() -> None:
    """A new key or deadline must not empty the cache, and a secret must not get into its keys."""
    secret = chat(base_url="http://me:secret@127.0.0.1:1/v1", api_key="sk-secret", deadline_s=1.0, attempts=5)
    assert secret.fingerprint == chat().fingerprint
    assert chat(temperature=1).fingerprint == chat(temperature=1.0).fingerprint


def test_the_prompt_and_a_model_never_share_a_fingerprint() -> None:
    """Not even a model that is called `prompt`."""
    assert chat(model="prompt").fingerprint != PromptResponder().fingerprint


@pytest.mark.parametrize("key", ["sk-secret\n", " sk-secret", "sk-secrét", "sk\r\nHost: secret"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(key: str) -> None:
    """A line end at the end of a key is a common slip; the client's own error would print the key."""
    with pytest.raises(ConfigurationError, match="PERSONA_LLM_API_KEY") as caught:
        chat(api_key=key)
    assert "sec" not in str(caught.value)


def test_the_first_choice_is_the_answer_without_outer_white_space() -> None:
    """Fields that we do not know are no fault: every endpoint adds its own."""
    body = completion(content="\n  안녕하세요 \n", reasoning="x") | {"usage": None, "timings": {"n": 1}}
    assert judge(answer(body), "some-model") == "안녕하세요"


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_a_status_that_may_pass_is_transient(status: int) -> None:
    """These are worth another try."""
    assert failure({"error": {"message": CANARY}}, status).transient


@pytest.mark.parametrize("status", [304, 400, 401, 403, 404, 405, 413, 422, 451])
def test_a_status_that_will_not_pass_is_permanent(status: int) -> None:
    """Another try would end the same and cost the caller time."""
    assert not failure({"error": {"message": CANARY}}, status).transient


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"\xff\xfe",
        b"<!doctype html><title>Welcome</title>",
        b"[" * 100_000,
        b'{"choices": [{"message": {"content": "\\ud800 alone"}}]}',
        {},
        {"choices": None},
        {"choices": []},
        {"choices": [{}]},
        {"choices": [{"message": None}]},
        completion(),
        completion(content=None),
        completion(content=" \n"),
        completion(content=5),
        completion(content=[{"type": "text", "text": "parts"}]),
        [completion(content="in a list")],
        {"error": "a text"},
        {"error": {"message": "an object"}},
        {"error": {"code": ["no hash"], "type": {}}},
        {"error": {"code": 404}},
    ],
    ids=lambda body: repr(body)[:40],
)
def test_an_answer_that_is_not_of_the_form_is_permanent(body: object) -> None:
    """It is never returned as text, and never asked for again: the endpoint is at fault."""
    judged = failure(body)
    assert not judged.transient
    assert judged.advice


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_gateways_error_in_the_body_counts_as_its_status(code: int) -> None:
    """Some gateways answer 200 and tell of the overload behind them in the body."""
    assert failure({"error": {"code": code, "message": CANARY}}).transient


def test_a_body_that_ends_with_its_connection_may_have_been_cut() -> None:
    """Without a length nothing tells half an answer from a wrong one, so it is worth another try."""
    assert judge(Answer(200, {}, b'{"choices": [{"mess'), "some-model") == failure_with(transient=True)
    assert failure(b'{"choices": [{"mess') == failure_with(transient=False)
    assert judge(Answer(200, {"transfer-encoding": "chunked"}, b'{"cho'), "m") == failure_with(transient=False)


def failure_with(*, transient: bool) -> Any:
    class Like:
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Failure) and other.transient is transient

        __hash__ = None  # type: ignore[assignment]  # compared only

    return Like()


def test_advice_names_the_variable_to_check() -> None:
    """An operator should not have to read the endpoint's manual first."""
    assert "PERSONA_LLM_API_KEY" in failure({}, 401).advice
    assert "PERSONA_LLM_MODEL is 'some-model'" in failure({}, 404).advice
    assert "PERSONA_LLM_URL" in failure({}, 404).advice
    assert "fit" in failure({"error": {"code": "context_length_exceeded"}}, 400).advice
    assert "PERSONA_LLM_URL" in failure(b"<html>").advice
    used_up = {"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}
    assert "PERSONA_LLM_MAX_TOKENS" in failure(used_up).advice
    assert "withheld" in failure(completion(content=None, refusal="no")).what


@pytest.mark.parametrize("reason", [None, "", "stop", "length", "STOP", "eos_token", "tool_calls"])
def test_an_answer_that_the_model_ended_is_whole(reason: str | None) -> None:
    """Or as long as it may be."""
    body = {"choices": [{"message": {"content": " text "}, "finish_reason": reason}]}
    assert type(judge(answer(body), "some-model")) is str


@pytest.mark.parametrize("reason", ["content_filter", "CONTENT_FILTER", "safety", "recitation", "unheard_of"])
def test_an_answer_that_something_else_ended_is_cut_short(reason: str) -> None:
    """It is given, and says that it is not to be kept; so does one beside a refusal."""
    body = {"choices": [{"message": {"content": " text "}, "finish_reason": reason}]}
    for each in (body, completion(content=" text ", refusal="no")):
        judged = judge(answer(each), "some-model")
        assert isinstance(judged, CutShort)
        assert judged == "text"


@pytest.mark.parametrize("reason", ["error", "abort", "timeout"])
def test_an_answer_that_a_fault_ended_is_none(reason: str) -> None:
    """Another try may bring the whole."""
    for text in ("", "half a"):
        assert failure({"choices": [{"message": {"content": text}, "finish_reason": reason}]}).transient


@pytest.mark.parametrize("status", [200, 400, 404, 500])
def test_a_failure_never_quotes_the_endpoint(status: int) -> None:
    """An endpoint may echo what the user wrote, anywhere in its answer."""
    echoes: list[object] = [
        {"error": {"message": CANARY, "code": CANARY, "type": CANARY, "param": CANARY}},
        {"error": CANARY},
        completion(content=None, refusal=CANARY),
        {"choices": CANARY},
        CANARY.encode(),
    ]
    for echo in echoes:
        judged = failure(echo, status)
        assert CANARY not in judged.what + judged.advice
    assert "(invalid_api_key)" in failure({"error": {"message": CANARY, "code": "invalid_api_key"}}, 401).what


@pytest.mark.parametrize(
    ("headers", "expected_s"),
    [
        ({}, 0.0),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3.0),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=20), usegmt=True)}, 20.0),
        ({"retry-after": format_datetime(NOW - timedelta(seconds=20), usegmt=True)}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "inf"}, 0.0),
        ({"retry-after": "nan"}, 0.0),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after": "Fri, 99 Foo 2026 99:99:99 GMT"}, 0.0),
    ],
)
def test_the_pause_that_an_endpoint_asks_for_is_read(headers: dict[str, str], expected_s: float) -> None:
    """In seconds or as a date; a value that cannot be understood counts as missing."""
    assert retry_after_s(headers, NOW) == expected_s


def test_an_error_that_no_endpoint_made_names_its_type_only() -> None:
    """Even a fault of the program must not carry the user's words into a log."""
    judged = failure_of(TypeError(f"cannot send {CANARY}"))
    assert not judged.transient
    assert "TypeError" in judged.what
    assert CANARY not in judged.what + judged.advice


def test_a_failure_behind_a_caller_that_gave_up_is_logged_by_its_type(caplog: pytest.LogCaptureFixture) -> None:
    """An event loop logs such an error in full by default, and its text may hold the prompt."""
    with closing(asyncio.new_event_loop()) as loop:
        log_type_of(loop, {"message": "never retrieved", "exception": ValueError(CANARY)})
    assert "ValueError" in caplog.text
    assert CANARY not in caplog.text


def test_an_error_of_the_operating_system_is_transient() -> None:
    """Whichever layer lets it through."""
    assert failure_of(ConnectionResetError(104, "Connection reset by peer")).transient
    assert failure_of(TimeoutError()).transient


# -- one from outside the package

FOREIGN = """
class Shouting:
    model = "shouting"
    fingerprint = "shouting/1"

    def respond(self, prompt):
        return prompt.user.upper()


class Configured(Shouting):
    def __init__(self, settings):
        self.model = settings.llm_model or "nameless"


class Forgetful:
    model = "forgetful"


shouting = Shouting()
number = 3


def broken(settings):
    raise OSError("no such device")


def particular(settings):
    from pipeline.errors import ConfigurationError

    raise ConfigurationError("THEIR_VARIABLE: missing")
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that can be imported, and of which nobody has heard."""
    name = f"foreign_{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(FOREIGN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def named(name: str, **more: str) -> Responder:
    return responder_from(load_settings({"PERSONA_RESPONDER": name, **more}))


@pytest.mark.parametrize("path", ["shouting", "Configured"])
def test_a_responder_is_found_by_its_name(path: str, foreign: str) -> None:
    """An object that is one, or a callable that makes one; it comes before a model that is configured as well."""
    model = {"PERSONA_LLM_URL": "http://127.0.0.1:1/v1", "PERSONA_LLM_MODEL": "theirs"}
    responder = named(f"{foreign}:{path}", **model)
    assert responder.respond(Prompt(system="", history=(), user="plan", language="en")) == "PLAN"
    assert responder.fingerprint == "shouting/1"
    assert responder.model == ("theirs" if path == "Configured" else "shouting")


def refused(name: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        named(name)
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nothing", "cannot be imported: AttributeError"),
        ("number", "gives int, whose `model` and `fingerprint` and `respond` are missing"),
        ("Forgetful", "failed with TypeError"),
        ("broken", "failed with OSError: no such device"),
    ],
)
def test_what_is_no_responder_is_refused(path: str, said: str, foreign: str) -> None:
    """The message names the variable, its value, what is wrong and what is allowed."""
    message = refused(f"{foreign}:{path}")
    assert message.startswith(f"PERSONA_RESPONDER: {foreign}:{path}: {said}")
    assert "; allowed is package.module:object" in message


def test_a_module_that_cannot_be_imported_is_told_like_a_wrong_value() -> None:
    """And a name of another form is refused with the settings, before anything is imported."""
    assert "ModuleNotFoundError: No module named 'no_such_module'" in refused("no_such_module:Responder")
    assert refused("no_such_module") == "PERSONA_RESPONDER: 'no_such_module'; expected package.module:object"


def test_what_a_responder_itself_refuses_is_told_in_its_own_words(foreign: str) -> None:
    """It may have variables of its own."""
    assert refused(f"{foreign}:particular") == "THEIR_VARIABLE: missing"

"""Requests that no retry can mend: refused before they are sent, and failed at once where they arrive all the same."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
import redis
from celery.result import AsyncResult
from fleet import Fleet, captured_events, persona_environ
from polling import until
from servers import ValkeyServer

from pipeline.errors import InvalidRequestError
from pipeline.models import MAX_INPUT_CHARS
from pipeline.settings import load_settings
from workers.client import PersonaClient

KEY = "calm-flowing-planning"

# Name: the request, and what the error must say: the field, the value where it can be shown, and what is allowed.
BAD_FIELDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown tone": ({"resonance_key": "angry-burst-planning"}, ["resonance_key", "tone 'angry'", "frustrated, playful"]),
    "unknown pace": ({"resonance_key": "calm-slow-planning"}, ["resonance_key", "pace 'slow'", "burst, flowing"]),
    "unknown intent": ({"resonance_key": "calm-burst-sleep"}, ["resonance_key", "intent 'sleep'", "seek_advice"]),
    "two parts": ({"resonance_key": "calm-burst"}, ["resonance_key", "'calm-burst'", "'tone-pace-intent'"]),
    "four parts": ({"resonance_key": "calm-burst-planning-now"}, ["resonance_key", "4 parts", "seek_advice"]),
    "key of a wrong type": ({"resonance_key": 5}, ["resonance_key", "a number", "'tone-pace-intent'"]),
    "empty input": ({"user_input": " \n"}, ["user_input", "is empty", f"1 to {MAX_INPUT_CHARS}"]),
    "over-long input": ({"user_input": "x" * (MAX_INPUT_CHARS + 1)}, ["user_input", "8001 characters", "1 to 8000"]),
    "input of a wrong type": ({"user_input": ["x"]}, ["user_input", "expected text", "a list"]),
    "flag of a wrong type": ({"use_cache": "yes"}, ["use_cache", "expected true or false", "text"]),
    "context of a wrong type": ({"context": "Mina"}, ["context", "expected an object with user_id", "text"]),
    "unknown field of a context": ({"context": {"age": 5}}, ["context.age", "unknown field", "user_id, user_name"]),
    "unknown language": ({"context": {"language": "fr"}}, ["context.language", "'fr'", "'en' and 'ko'"]),
    "unknown role": ({"context": {"history": [{"role": "system", "content": "x"}]}}, ["history[0].role", "'system'", "'user'"]),
}

# Requests that only a program without our client can send.
BAD_ARGUMENTS: dict[str, tuple[list[Any], list[str]]] = {
    "unknown field": ([{"user_input": "x", "resonance_key": KEY, "pirority": 1}], ["pirority", "unknown field", "use_cache"]),
    "missing field": ([{"user_input": "x"}], ["resonance_key", "missing", "user_input"]),
    "null": ([None], ["request", "expected an object with user_input", "null"]),
    "a list": ([["x", KEY]], ["request", "expected an object with user_input", "a list"]),
    "text": (["x"], ["request", "expected an object with user_input", "text"]),
    "a number": ([5], ["request", "expected an object with user_input", "a number"]),
    "nothing": ([], ["request", "expected an object with user_input"]),
}


def request_with(fields: dict[str, Any]) -> dict[str, Any]:
    return {"user_input": "How do I begin?", "resonance_key": KEY, **fields}


def test_bad_input_fails_at_once_at_the_worker_and_the_caller_is_told_why(fleet: Fleet) -> None:
    """Terminal: no retry, no call of the model; the error names the field, the value and what is allowed."""
    cases = {name: ([request_with(fields)], said) for name, (fields, said) in BAD_FIELDS.items()} | BAD_ARGUMENTS
    calls = fleet.endpoint.calls
    with captured_events(fleet.app) as events:
        sent = {name: fleet.app.send_task("persona.process", args=args) for name, (args, _) in cases.items()}
        for name, (_, said) in cases.items():
            assert_refused(sent[name], name, said)
        failed = {result.id for result in sent.values()}
        until(lambda: {e["uuid"] for e in events if e["type"] == "task-failed"} == failed, "each has failed")
    started = [event["uuid"] for event in events if event["type"] == "task-started"]
    assert sorted(started) == sorted(failed), "each was tried once"
    assert not [event for event in events if event["type"] == "task-retried"]
    assert fleet.endpoint.calls == calls
    until(lambda: fleet.claimed() == 0, "no message is left")


def assert_refused(result: AsyncResult, name: str, said: list[str]) -> None:
    with pytest.raises(Exception, match=r": ") as refused:
        result.get(timeout=20)
    assert type(refused.value).__name__ == "InvalidRequestError", (name, refused.value)
    for words in said:
        assert words in str(refused.value), name
    assert result.state == "FAILURE"


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_the_client_refuses_bad_input_before_anything_is_queued(name: str, valkey: ValkeyServer) -> None:
    """The caller learns at once, without a worker and without a queue that fills up."""
    fields, said = BAD_FIELDS[name]
    environ = persona_environ(broker_url=valkey.url_of(9))
    with PersonaClient(load_settings(environ)) as client, closing(redis.Redis.from_url(valkey.url_of(9))) as queue:
        with pytest.raises(InvalidRequestError) as refused:
            client.ask(**request_with(fields), timeout_s=1)
        assert queue.keys() == []
    for words in said:
        assert words in str(refused.value)

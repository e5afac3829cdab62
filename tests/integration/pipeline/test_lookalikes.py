"""Users whose ids look alike, or are written like patterns: each has answers of its own, and ends them alone."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec
import pytest
import redis
from catalogue import FOUR
from lookalikes import lookalikes

from pipeline import keys
from pipeline.cache import LocalCache, RedisCache, TwoTierCache
from pipeline.models import PersonaRequest
from pipeline.optimized import OptimizedPipeline
from pipeline.persona_pipeline import PersonaPipeline
from pipeline.prompts import Prompt

KEY = "frustrated-burst-seek_advice"
ROOT = "ab12cd34"
TEXT = "How do I go on?"


class EchoingResponder:
    model = "echo"
    fingerprint = "echo-1"

    def respond(self, prompt: Prompt) -> str:
        return json.dumps(msgspec.to_builtins(prompt))


@pytest.fixture
def pipelines(redis_url: str, namespace: str) -> Iterator[list[OptimizedPipeline]]:
    made = [
        OptimizedPipeline(
            PersonaPipeline(FOUR, EchoingResponder()),
            TwoTierCache(
                LocalCache(1000), RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0), max_ttl_s=keys.LONGEST_TTL_S
            ),
        )
        for _ in range(2)
    ]
    yield made
    made[0].clear_cache()
    for pipeline in made:
        pipeline.close()


def requests(ids: list[str]) -> list[PersonaRequest]:
    return [PersonaRequest.create(TEXT, KEY, {"user_id": user_id}) for user_id in ids]


def sources(pipeline: OptimizedPipeline, asked: list[PersonaRequest]) -> list[str]:
    return [pipeline.process_request(each).cached for each in asked]


def names(client: redis.Redis, namespace: str) -> list[str]:
    return [name.decode(errors="replace") for name in client.scan_iter(f"*{namespace}*", count=1000)]


def test_each_has_answers_of_its_own_and_ends_them_alone(pipelines: list[OptimizedPipeline]) -> None:
    here, there = pipelines
    ids = lookalikes(ROOT)
    asked = requests(ids)
    assert len(ids) > 35
    assert sources(here, asked) == ["no"] * len(ids), "no one is served another's"
    assert set(sources(there, asked)) == {"l2"}
    for number, user_id in enumerate(ids):
        here.invalidate_user(user_id)
        there.cache.refresh()
        found = [here.seek(each).response is not None for each in asked]
        assert found == [other != number for other in range(len(ids))], f"after {user_id!r} was forgotten"
        assert sources(there, [asked[number]]) == ["no"]
        assert sources(here, [asked[number]]) == ["l2"]


def test_no_key_shows_an_id_or_a_word_of_a_user(pipelines: list[OptimizedPipeline], client: redis.Redis, namespace: str) -> None:
    context = {"user_id": f"{ROOT}-id", "user_name": f"{ROOT}-name", "history": [{"role": "user", "content": f"{ROOT}-history"}]}
    answer = pipelines[0].process(f"{ROOT}-text", KEY, context)
    pipelines[0].invalidate_user(f"{ROOT}-id")
    assert ROOT in answer.content, "the answer itself is the user's"
    kept = names(client, namespace)
    assert len(kept) > 3
    assert not [name for name in kept if ROOT in name]

"""The hot set over a real server: keys that are asked for much are at its top, others go, and so do their requests' words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import msgspec
import pytest
import redis
from faults import Clock
from servers import ValkeyServer, free_port

from pipeline.assembly import build_optimized_pipeline
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.server.connection import RedisConnection
from pipeline.figures import FigureKeys, read_figures
from pipeline.hot import Asked, HotKeys, HotSet, Recent, Teller
from pipeline.hot.hot_set import COUNTED_AT_ONCE, HALF_LIFE_S, HOT_SCORE, IDLE_S, REQUEST_BYTES, REQUEST_S, TRACKED
from pipeline.hot.teller import EVERY_S
from pipeline.models import PersonaRequest
from pipeline.persona_pipeline import PersonaPipeline
from pipeline.personas import load_catalog
from pipeline.responders import responder_from
from pipeline.settings import load_settings

KEY = "calm-flowing-planning"
REQUEST = PersonaRequest.create("What shall I do?", KEY)


@pytest.fixture
def connection(redis_url: str) -> Iterator[RedisConnection]:
    with closing(RedisConnection(redis_url, timeout_s=5)) as connection:
        yield connection


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def keys(namespace: str) -> HotKeys:
    return HotKeys(namespace)


@pytest.fixture
def hot(connection: RedisConnection, keys: HotKeys) -> HotSet:
    return HotSet(connection, keys)


def asked(**times: int) -> dict[str, Asked]:
    return {key: Asked(count, msgspec.structs.replace(REQUEST, user_input=f"of {key}")) for key, count in times.items()}


def pass_time(client: redis.Redis, keys: HotKeys, seconds: float) -> None:
    """As if the scores had last decayed so much earlier."""
    at_ms = client.get(keys.decayed)
    assert isinstance(at_ms, bytes)
    client.set(keys.decayed, int(at_ms) - round(seconds * 1000))


def test_what_all_processes_are_asked_for_adds_up(hot: HotSet) -> None:
    """The highest score first; a key that was asked for once is not hot."""
    hot.count(asked(a=3, b=1, c=5))
    hot.count(asked(a=4, d=1))
    assert hot.top() == [("a", 7), ("c", 5)]
    assert hot.top(1) == [("a", 7)]
    assert hot.top(0) == []


def test_a_score_halves_in_a_half_life_and_then_goes(hot: HotSet, client: redis.Redis, keys: HotKeys) -> None:
    """Whether counted on or not: by the next count, and by maintenance."""
    hot.count(asked(a=128, b=2))
    pass_time(client, keys, HALF_LIFE_S)
    hot.count(asked(c=2))
    assert dict(hot.top()) == pytest.approx({"a": 64, "c": 2}, rel=0.01)
    pass_time(client, keys, 4 * HALF_LIFE_S)
    assert hot.decay() == 1
    assert dict(hot.top()) == pytest.approx({"a": 4}, rel=0.01)
    assert hot.request("a") is not None
    assert hot.request("c") is None, "its words went with it"


def test_a_second_decay_at_once_changes_nothing(hot: HotSet) -> None:
    """However many maintain it: by the time that has passed, not by the number of runs."""
    hot.count(asked(a=64))
    for _ in range(5):
        hot.decay()
    assert dict(hot.top()) == pytest.approx({"a": 64}, rel=0.01)


def test_it_is_bounded_and_keeps_what_is_asked_for_most(hot: HotSet, client: redis.Redis, keys: HotKeys) -> None:
    """A flood of keys that are asked for once does not push out the hot ones."""
    hot.count(asked(hot=9, warm=3))
    for first in range(0, TRACKED + 500, COUNTED_AT_ONCE):
        hot.count(asked(**{f"once{number}": 1 for number in range(first, first + COUNTED_AT_ONCE)}))
    assert client.zcard(keys.scores) == TRACKED
    assert [key for key, _ in hot.top()] == ["hot", "warm"]
    assert 0 < client.pttl(keys.scores) <= IDLE_S * 1000


def test_a_process_counts_what_it_was_asked_for_most_first(hot: HotSet) -> None:
    """One report is of bounded size."""
    hot.count(asked(**{f"key{number}": number + 2 for number in range(COUNTED_AT_ONCE + 10)}))
    assert len(hot.top()) == COUNTED_AT_ONCE
    assert hot.top()[0] == (f"key{COUNTED_AT_ONCE + 9}", COUNTED_AT_ONCE + 11)


# -- requests


def test_a_hot_key_has_its_request_for_a_time(hot: HotSet, client: redis.Redis, keys: HotKeys) -> None:
    """Without what concerned one call alone. A user's words live no longer than they are asked again."""
    request = PersonaRequest.create("Was soll ich tun? 무엇을?", KEY, {"language": "ko"}, max_age_s=3)
    hot.count({"a": Asked(2, request)} | asked(once=1))
    assert hot.request("a") == msgspec.structs.replace(request, max_age_s=None)
    assert hot.request("once") is None
    assert 0 < client.pttl(keys.request("a")) <= REQUEST_S * 1000


def test_a_long_request_is_not_kept(hot: HotSet) -> None:
    """The whole is bounded in bytes, too. Its key counts."""
    hot.count({"long": Asked(5, PersonaRequest.create("x" * REQUEST_BYTES, KEY))})
    assert hot.top() == [("long", 5)]
    assert hot.request("long") is None


def test_with_no_budget_no_request_is_kept(connection: RedisConnection, keys: HotKeys, client: redis.Redis) -> None:
    """No renewal would follow: then no user's words are needed."""
    hot = HotSet(connection, keys, keeps_requests=False)
    hot.count(asked(a=9))
    assert hot.top() == [("a", 9)]
    assert not client.exists(keys.request("a"))


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"5", b'{"user_input": "x"}', b'{"user_input": "x", "resonance_key": "calm-flowing-planning", "of_tomorrow": 1}',
     b'{"user_input": "x", "resonance_key": "calm-flowing-planning", "context": {"user_id": "u"}}'],
)  # fmt: skip
def test_what_is_no_request_here_is_none(hot: HotSet, client: redis.Redis, keys: HotKeys, raw: bytes) -> None:
    """Another release wrote it, or another program. A personal one is never to be renewed."""
    client.set(keys.request("a"), raw)
    assert hot.request("a") is None


def test_a_forgotten_key_leaves_nothing(hot: HotSet, client: redis.Redis, keys: HotKeys) -> None:
    """Neither score nor words."""
    hot.count(asked(a=9, b=9))
    hot.forget("a")
    assert [key for key, _ in hot.top()] == ["b"]
    assert not client.exists(keys.request("a"))


# -- telling


def test_a_process_tells_every_few_seconds_and_at_once_at_its_end(
    connection: RedisConnection, keys: HotKeys, hot: HotSet
) -> None:
    """Not at the rate of its requests, and not all processes at the same moment."""
    clock, recent = Clock(), Recent()
    teller = Teller(keys, recent, keeps_requests=True, clock=clock, rng=lambda: 0.5)
    for _ in range(2):
        recent.note(("a", REQUEST))
    teller.tell(connection, "due")
    assert hot.top() == []
    clock.tick(EVERY_S / 2)
    teller.tell(connection, "due")
    assert hot.top() == [("a", 2)]
    recent.note(("a", REQUEST))
    teller.tell(connection, "due")
    assert hot.top() == [("a", 2)]
    teller.tell(connection, "now")
    assert hot.top() == [("a", 3)]


def test_a_pipeline_tells_what_it_was_asked_for_and_nothing_personal(redis_url: str, namespace: str, hot: HotSet) -> None:
    """By its courier. A renewal is not asked for, nor what goes past the cache."""
    settings = load_settings({"PERSONA_CACHE_URL": redis_url, "PERSONA_CACHE_NAMESPACE": namespace})
    with closing(build_optimized_pipeline(settings, PersonaPipeline(load_catalog(), responder_from(settings)))) as pipeline:
        for context in (None, {"user_id": "u"}, {"user_name": "Kim"}, {"history": [{"role": "user", "content": "hi"}]}):
            for _ in range(3):
                pipeline.process("Hello?", KEY, context)
        pipeline.process("Hello?", KEY, use_cache=False)
        pipeline.process_request(PersonaRequest.create("Hello?", KEY), counted=False)
        assert pipeline.seek(PersonaRequest.create("Hello?", KEY)).response is not None
        assert pipeline.seek(PersonaRequest.create("not there", KEY)).response is None
        key = pipeline.key_of(PersonaRequest.create("Hello?", KEY))
    assert hot.top(10) == [(key, 4)]
    assert hot.request(key) == PersonaRequest.create("Hello?", KEY)


def test_the_fleets_figures_show_the_hot_set(hot: HotSet, connection: RedisConnection, namespace: str) -> None:
    """By key and score: a key holds a digest, and no words."""
    hot.count(asked(a=3, b=5))
    shown = read_figures(connection, FigureKeys(namespace)).hot
    assert [(each.key, each.score) for each in shown] == [("b", 5), ("a", 3)]
    assert HOT_SCORE <= 3


# -- recent


def test_recent_requests_are_bounded_and_taken_once() -> None:
    """A process without a reporter does not grow; of one that is asked for much the last requests are kept."""
    recent = Recent(room=4)
    for number in range(10):
        recent.note((f"key{number % 3}", REQUEST))
    taken = recent.take()
    assert {key: each.times for key, each in taken.items()} == {"key0": 2, "key1": 1, "key2": 1}
    assert recent.take() == {}


def test_without_redis_every_method_says_so(keys: HotKeys) -> None:
    """As every other part of the shared tier, and quickly."""
    with closing(RedisConnection(f"redis://127.0.0.1:{free_port()}/0", timeout_s=0.2)) as connection:
        hot = HotSet(connection, keys)
        for call in (hot.top, hot.decay, lambda: hot.count(asked(a=2)), lambda: hot.request("a"), lambda: hot.forget("a")):
            with pytest.raises(SharedTierUnavailableError):
                call()


def test_nothing_that_clears_the_cache_touches_it(redis_url: str, namespace: str, hot: HotSet, valkey: ValkeyServer) -> None:
    """A key that is asked for much is still known, and can be computed again."""
    settings = load_settings({"PERSONA_CACHE_URL": redis_url, "PERSONA_CACHE_NAMESPACE": namespace})
    hot.count(asked(a=3))
    with closing(build_optimized_pipeline(settings, PersonaPipeline(load_catalog(), responder_from(settings)))) as pipeline:
        pipeline.process("Hello?", KEY)
        assert pipeline.clear_cache() > 0
    assert hot.request("a") is not None

"""What is told of the answers asked for most: by keys and the beginnings of entries, judged by the log, in one exchange."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from servers import calls

from pipeline.cache import RedisCache, TwoTierCache
from pipeline.cache.entry import Entry
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection
from pipeline.hot import Asked, HotKeys, HotSet
from pipeline.hot.entries import HEAD_BYTES, RECORDS, HotAnswer, read_hot_answers
from pipeline.models import PersonaRequest

ANSWER = "persona:lua:calm-flowing-planning:0123456789abcdef0123456789abcdef"
DEPS = ("routing:calm-flowing-planning", "persona:lua:info")
CANARY = "Kanarienvogel"


@pytest.fixture
def connection(redis_url: str) -> Iterator[RedisConnection]:
    with closing(RedisConnection(redis_url, timeout_s=5)) as connection:
        yield connection


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def cache(redis_url: str, namespace: str) -> Iterator[TwoTierCache]:
    with closing(TwoTierCache(l2=RedisCache(url=redis_url, namespace=namespace), ttl_jitter=0.0)) as cache:
        yield cache


def keep(cache: TwoTierCache, key: str = ANSWER, ttl: float = 600, words: str = CANARY) -> None:
    cache.get_or_compute(key, lambda: {"content": words}, ttl=ttl, deps=DEPS)


def test_an_answers_persona_resonance_age_and_time_left(connection: RedisConnection, namespace: str, cache: TwoTierCache) -> None:
    """Whatever it says, and however long that is; another kind of key has no persona."""
    keep(cache, words=CANARY * HEAD_BYTES)
    keep(cache, "a:b", ttl=60)
    found, other = read_hot_answers(connection, namespace, [(ANSWER, 1.0), ("a:b", 1.0)])
    assert (found.persona, found.resonance, found.standing) == ("lua", "calm-flowing-planning", "l2")
    assert found.age_s is not None
    assert 0 <= found.age_s < 5
    assert found.left_s == pytest.approx(600 - found.age_s, abs=0.1)
    assert (other.persona, other.resonance, other.standing) == (None, None, "l2")
    assert other.left_s is not None
    assert 50 < other.left_s <= 60
    assert CANARY not in repr(found)


def test_the_share_is_of_all_that_was_counted(connection: RedisConnection, namespace: str, client: redis.Redis) -> None:
    """Also of keys that are not among those asked about; and one exchange changes nothing."""
    request = PersonaRequest.create("What?", "calm-flowing-planning")
    counted = {"a": Asked(60, request), "b": Asked(30, request), "c": Asked(10, request)}
    hot = HotSet(connection, HotKeys(namespace), keeps_requests=False)
    hot.count(counted)
    top = hot.top(2)
    read_hot_answers(connection, namespace, top)  # the server knows the script then
    before, seen = client.keys(f"*{namespace}*"), calls(client)
    shares = [each.share for each in read_hot_answers(connection, namespace, top)]
    assert shares == [pytest.approx(0.6), pytest.approx(0.3)]
    assert sorted(client.keys(f"*{namespace}*")) == sorted(before)
    assert calls(client)["evalsha"] - seen["evalsha"] == 1


def test_what_was_invalidated_is_past_its_time_or_not_there_has_no_time_left(
    connection: RedisConnection, namespace: str, cache: TwoTierCache, client: redis.Redis
) -> None:
    """By its own key, by what it was computed from, by a log that began anew; one past its time is not without an age."""

    def look() -> HotAnswer:
        (found,) = read_hot_answers(connection, namespace, [(ANSWER, 1.0)])
        return found

    assert look() == HotAnswer(ANSWER, None, "lua", "calm-flowing-planning", "absent")
    keep(cache)
    cache.invalidate("persona:lua:info", "another:key")
    assert (look().standing, look().left_s) == ("ended", None)
    keep(cache)
    assert look().standing == "l2"
    cache.invalidate("persona:*")
    assert look().standing == "ended"
    keep(cache)
    raw = client.get(KeySpace(namespace).entry(ANSWER))
    assert isinstance(raw, bytes)
    entry = cache.l2.decode(ANSWER, raw) if cache.l2 is not None else None
    assert isinstance(entry, Entry)
    old = raw.replace(str(entry.created_ms).encode(), str(entry.created_ms - 601_000).encode(), 1)
    client.set(KeySpace(namespace).entry(ANSWER), old, px=60_000)
    assert (look().standing, look().left_s) == ("stale", 0)
    client.delete(KeySpace(namespace).tail)
    assert look().standing == "ended"


@pytest.mark.parametrize("raw", [b"", b"{", b"[", b"[1,2,3,4,5,6]", b'["another:key","e",1,[],1,1,0]', b"\xff", b"[" * 5000])
def test_bytes_that_are_no_entry_of_the_key_are_not_told_of(
    raw: bytes, connection: RedisConnection, namespace: str, client: redis.Redis
) -> None:
    client.set(KeySpace(namespace).entry(ANSWER), raw, px=60_000)
    (found,) = read_hot_answers(connection, namespace, [(ANSWER, 1.0)])
    assert (found.standing, found.age_s) == ("unknown" if raw else "absent", None)


def test_one_older_than_the_records_that_are_read_is_not_judged(
    connection: RedisConnection, namespace: str, cache: TwoTierCache
) -> None:
    """Rather than called fresh: what has ended it may be further back."""
    keep(cache)
    cache.invalidate("persona:lua:info")
    cache.invalidate(*(f"other:{number}" for number in range(RECORDS)))
    (found,) = read_hot_answers(connection, namespace, [(ANSWER, 1.0)])
    assert found.standing == "unknown"

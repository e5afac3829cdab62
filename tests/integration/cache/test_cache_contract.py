"""What every cache here keeps to, whatever it is made of: L1 alone, L2 alone, both, both without a server, both as another
process sees them, whose L1 holds nothing, and both as asyncio's programs await them; over a real server, and over the one in
memory of `tests/schedules`.
"""

from __future__ import annotations

import asyncio
import enum
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

import pytest
import redis
from faults import Clock, age
from front import TlsFront
from schedules.server.listener import listening
from servers import ValkeyServer

from pipeline.cache import MISS, InvalidPatternError, LocalCache, RedisCache, TwoTierCache, UncacheableValueError


class Cache(Protocol):
    """The interface that the caches share."""

    def get(self, key: str, default: Any = MISS) -> Any: ...
    def set(self, key: str, value: object, ttl: float = 300) -> object: ...
    def delete(self, key: str) -> bool: ...
    def delete_pattern(self, pattern: str) -> int: ...
    def clear(self) -> int: ...
    def get_stats(self) -> dict[str, Any]: ...


class SeenFromElsewhere:
    """Writes through one cache and reads through another, which never has the value in its L1."""

    def __init__(self, writer: TwoTierCache, reader: TwoTierCache) -> None:
        self._writer, self._reader = writer, reader
        self.set, self.delete = writer.set, writer.delete
        self.delete_pattern, self.clear, self.get_stats = writer.delete_pattern, writer.clear, writer.get_stats

    def get(self, key: str, default: Any = MISS) -> Any:
        self._reader.l1.clear()
        return self._reader.get(key, default)


class Awaited:
    """The awaited calls of a cache, each in an event loop of its own."""

    def __init__(self, cache: TwoTierCache) -> None:
        self._aio = cache.aio

    def get(self, key: str, default: Any = MISS) -> Any:
        return asyncio.run(self._aio.get(key, default))

    def set(self, key: str, value: object, ttl: float = 300) -> object:
        return asyncio.run(self._aio.set(key, value, ttl))

    def delete(self, key: str) -> bool:
        return asyncio.run(self._aio.delete(key))

    def delete_pattern(self, pattern: str) -> int:
        return asyncio.run(self._aio.delete_pattern(pattern))

    def clear(self) -> int:
        return asyncio.run(self._aio.clear())

    def get_stats(self) -> dict[str, Any]:
        return asyncio.run(self._aio.get_stats())


@dataclass(frozen=True)
class Subject:
    """A cache under test, and how to let time pass for it."""

    cache: Cache
    pass_time: Callable[[float], None]


KINDS = (
    "l1",
    "l2",
    "two tiers",
    "two tiers without a server",
    "two tiers from elsewhere",
    "two tiers, awaited",
    "two tiers without a server, awaited",
    "two tiers over a socket's path",
    "two tiers over TLS",
    "two tiers over the server in memory",
    # The same by other ways.
    *(
        pytest.param(each, marks=pytest.mark.long)
        for each in (
            "l2 over a socket's path",
            "l2 over TLS",
            "l2 over the server in memory",
            "two tiers from elsewhere over the server in memory",
        )
    ),
)


@pytest.fixture(scope="module")
def socket_url() -> Iterator[str]:
    """unix://"""
    with ValkeyServer(unix_socket=True, password="p@ss/w:rd") as server:
        yield server.url


@pytest.fixture(scope="module")
def tls_url(valkey: ValkeyServer) -> Iterator[str]:
    """rediss://, to the same server as the others"""
    with TlsFront(valkey.port) as front:
        yield front.url


@pytest.fixture(scope="module")
def memory_url() -> Iterator[str]:
    """To the server in memory over which `tests/schedules` runs the cache."""
    with listening() as url:
        yield url


@pytest.fixture(params=KINDS)
def subject(request: pytest.FixtureRequest, redis_url: str, namespace: str) -> Iterator[Subject]:
    """One cache of each kind, each over the real server where it has one."""
    clock = Clock()
    tiers: list[RedisCache] = []

    def l2(url: str = redis_url) -> RedisCache:
        tiers.append(RedisCache(url=url, namespace=namespace, timeout_s=5.0))
        return tiers[-1]

    def over(fixture: str) -> RedisCache:
        return l2(request.getfixturevalue(fixture))

    def both(shared: RedisCache | None) -> TwoTierCache:
        return TwoTierCache(LocalCache(100, clock=clock), shared, clock=clock, ttl_jitter=0.0)

    kinds: dict[str, Callable[[], Cache]] = {
        "l1": lambda: LocalCache(100, clock=clock),
        "l2": l2,
        "two tiers": lambda: both(l2()),
        "two tiers without a server": lambda: both(None),
        "two tiers from elsewhere": lambda: SeenFromElsewhere(both(l2()), both(l2())),
        "two tiers, awaited": lambda: Awaited(both(l2())),
        "two tiers without a server, awaited": lambda: Awaited(both(None)),
        "l2 over a socket's path": lambda: over("socket_url"),
        "two tiers over a socket's path": lambda: both(over("socket_url")),
        "l2 over TLS": lambda: over("tls_url"),
        "two tiers over TLS": lambda: both(over("tls_url")),
        "l2 over the server in memory": lambda: over("memory_url"),
        "two tiers over the server in memory": lambda: both(over("memory_url")),
        "two tiers from elsewhere over the server in memory": lambda: SeenFromElsewhere(
            both(over("memory_url")), both(over("memory_url"))
        ),
    }
    cache = kinds[request.param]()

    def pass_time(seconds: float) -> None:
        clock.tick(seconds)
        for tier in tiers[:1]:
            with redis.Redis.from_url(tier.url, protocol=2) as client:
                age(client, namespace, seconds)

    yield Subject(cache, pass_time)
    for tier in tiers:
        tier.close()


@pytest.fixture
def cache(subject: Subject) -> Cache:
    return subject.cache


VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**53 + 1,
    2**64,
    0.0,
    -0.0,
    1.0,
    0.1,
    1e300,
    5e-324,
    "",
    "text",
    "한글, snow ☃, clef 𝄞",
    'quote " backslash \\ newline \n nul \x00',
    [],
    {},
    [None, True, 1, 1.0, "1", [], {}],
    {"": None, "a": {"b": [1, {"c": 2.5}]}, "한": "글"},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_json_value_comes_back_equal_and_of_the_same_types(cache: Cache, value: Any) -> None:
    """A value comes back as it was kept, to the type of every leaf; also at the second reading."""
    cache.set("k", value)
    for _ in range(2):
        assert repr(cache.get("k", "the default")) == repr(value)


class Level(enum.IntEnum):
    LOW = 1


class Word(enum.StrEnum):
    YES = "yes"


class Place(NamedTuple):
    x: int


LOOKALIKES: list[Any] = [
    (1, 2),
    Level.LOW,
    Word.YES,
    OrderedDict(a=1),
    Counter("a"),
    defaultdict(int, a=1),
    Place(1),
]


@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"a": [1, value]}], ids=["alone", "within"])
@pytest.mark.parametrize("value", LOOKALIKES, ids=lambda value: type(value).__name__)
def test_a_value_that_would_come_back_as_another_type_is_refused(cache: Cache, value: Any, wrap: Callable[[Any], Any]) -> None:
    """What comes back equals what went in, to the leaves and in type: a list is no tuple, a number no member."""
    cache.set("k", "before")
    with pytest.raises(UncacheableValueError, match=r"^value"):
        cache.set("k", wrap(value))
    assert cache.get("k") == "before"


def test_a_miss_is_neither_none_nor_any_other_value(cache: Cache) -> None:
    """`None` is a value like any other; a miss is a sentinel of its own, or the default that the caller gave."""
    cache.set("none", None)
    assert cache.get("none") is None
    assert cache.get("none", "default") is None
    assert cache.get("absent") is MISS
    assert cache.get("absent", None) is None
    assert not MISS
    assert MISS is not None


def test_the_last_value_set_is_the_one_read(cache: Cache) -> None:
    """A value replaces the one before, whatever the type of either."""
    for value in (1, "two", None, [4], {"five": 5}):
        cache.set("k", value)
        assert cache.get("k") == value


def test_a_caller_that_changes_a_value_it_got_or_gave_changes_nothing_here(cache: Cache) -> None:
    """Every reader has its own value, and the cache has another."""
    given: dict[str, Any] = {"list": [1], "nested": {"a": [2]}}
    cache.set("k", given)
    given["list"].append("changed by the giver")
    first = cache.get("k")
    first["list"].append("changed by a reader")
    first["nested"]["a"].clear()
    second = cache.get("k")
    assert second == {"list": [1], "nested": {"a": [2]}}
    second.clear()
    assert cache.get("k") == {"list": [1], "nested": {"a": [2]}}


def test_an_entry_ends_with_its_ttl(subject: Subject) -> None:
    """Served before its time is over, never after; a second set counts anew."""
    cache = subject.cache
    cache.set("short", 1, ttl=20)
    cache.set("long", 2, ttl=40)
    subject.pass_time(15)
    assert cache.get("short") == 1
    cache.set("renewed", 1, ttl=5)
    cache.set("renewed", 2, ttl=50)
    subject.pass_time(10)
    assert cache.get("short") is MISS
    assert cache.get("long") == 2
    assert cache.get("renewed") == 2
    subject.pass_time(60)
    assert cache.get("long") is MISS
    assert cache.get("renewed") is MISS


@pytest.mark.parametrize(
    "ttl",
    [
        *(0, -1, -0.001, float("nan"), float("-inf"), float("inf"), True, False, "60", b"60", None, [60], 10**5000),
        *(timedelta(0), timedelta(seconds=-1), Decimal(60), object()),
    ],
    ids=lambda ttl: repr(ttl)[:12] if not isinstance(ttl, int) or ttl < 10**9 else "endless",
)
def test_a_ttl_that_is_none_is_refused_and_changes_nothing(cache: Cache, ttl: Any) -> None:
    """Seconds above 0, or a timedelta; the error names `ttl`, and the old value stays."""
    cache.set("k", "before")
    with pytest.raises(ValueError, match="ttl"):
        cache.set("k", "after", ttl=ttl)
    assert cache.get("k") == "before"


@pytest.mark.parametrize("key", ["", "k" * 257, "가" * 86, "\ud800", 7, None, b"k", ["k"]], ids=lambda key: repr(key)[:12])
def test_what_cannot_be_a_key_is_refused_by_a_set(cache: Cache, key: Any) -> None:
    """One clear error of the cache's own, before anything is kept."""
    with pytest.raises(InvalidPatternError, match="key"):
        cache.set(key, 1)


def test_a_ttl_may_be_a_timedelta(subject: Subject) -> None:
    """Of which half a minute is 30 seconds."""
    subject.cache.set("k", 1, ttl=timedelta(minutes=0.5))
    subject.pass_time(29)
    assert subject.cache.get("k") == 1
    subject.pass_time(2)
    assert subject.cache.get("k") is MISS


@pytest.mark.parametrize("key", [7, None, b"k", ["k"], {}, 1.5, ("k",)], ids=repr)
def test_a_key_that_is_no_text_is_refused_by_every_call(cache: Cache, key: Any) -> None:
    """By a read as by a set: it is a mistake of the program, and would be a miss for ever."""
    for call in (cache.get, cache.delete):
        with pytest.raises(InvalidPatternError, match=r"^key: expected text"):
            call(key)


@pytest.mark.parametrize("key", ["", "\ud800", "k" * 2000], ids=["empty", "surrogate", "long"])
def test_a_text_that_cannot_be_a_key_is_a_miss_to_a_read(cache: Cache, key: str) -> None:
    """No read raises: a read that cannot be served is a miss."""
    assert cache.get(key) is MISS


@pytest.mark.parametrize("key", ["k" * 256, "가" * 85, "*" * 256, "\\" * 256, "[" * 129], ids=lambda key: f"{key[0]}x{len(key)}")
def test_a_key_of_any_allowed_length_can_be_set_read_and_deleted(cache: Cache, key: str) -> None:
    """What `set` takes, up to 256 bytes, works for every call, also where a pattern is made of it."""
    cache.set(key, "value")
    assert cache.get(key) == "value"
    assert cache.delete(key) is True
    assert cache.get(key) is MISS


@pytest.mark.parametrize("key", ["a*", "a?", "[ab]", "a\\", "\\*", "[", "]", "a:*", "*", "^", "[^a]", "a\nb", " ", "한:글", "a:"])
def test_a_key_is_taken_to_the_letter(cache: Cache, key: str) -> None:
    """A wildcard in a key means nothing: setting or deleting that key touches no other."""
    others = ["a", "ab", "b", "a:b", "x"]
    for other in others:
        cache.set(other, other)
    cache.set(key, "first")
    cache.set(key, "second")
    assert [cache.get(other) for other in others] == others
    assert cache.get(key) == "second"
    assert cache.delete(key) is True
    assert cache.get(key) is MISS
    assert [cache.get(other) for other in others] == others


def test_a_deleted_key_is_gone_and_was_there_once(cache: Cache) -> None:
    """`delete` says whether there was anything; the second time there is not."""
    cache.set("k", 1)
    cache.set("other", 2)
    assert cache.delete("k") is True
    assert cache.get("k") is MISS
    assert cache.delete("k") is False
    assert cache.get("other") == 2


KEYS = ["a", "a:", "a:b", "a:bc", "a:b:c", "ab:c", "A:b", "b:a", "b:[x]", "b:x", "한글:a", "a:b\nc"]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("*", KEYS),
        ("a", ["a"]),
        ("a:*", ["a:", "a:b", "a:bc", "a:b:c", "a:b\nc"]),
        ("a*", ["a", "a:", "a:b", "a:bc", "a:b:c", "ab:c", "a:b\nc"]),
        ("a:b*c", ["a:bc", "a:b:c", "a:b\nc"]),
        ("a:?", ["a:b"]),
        ("?:?", ["a:b", "A:b", "b:a", "b:x"]),
        ("[ab]:[^b]", ["b:a", "b:x"]),
        ("[a-b]:b", ["a:b"]),
        ("b:\\[x\\]", ["b:[x]"]),
        ("b:[x]", ["b:x"]),
        ("*:b", ["a:b", "A:b"]),
        ("한글:*", ["한글:a"]),
        ("한*", ["한글:a"]),
        ("c:*", []),
        ("a:b:", []),
    ],
)
def test_a_pattern_removes_what_it_matches_and_nothing_else(cache: Cache, pattern: str, matched: list[str]) -> None:
    """Patterns are Redis's, anchored and case-sensitive, the same in every tier; the number of removed keys is told."""
    for key in KEYS:
        cache.set(key, key)
    assert cache.delete_pattern(pattern) == len(matched)
    assert [key for key in KEYS if cache.get(key) is MISS] == matched
    assert cache.delete_pattern(pattern) == 0


@pytest.mark.parametrize("pattern", ["", "[a", "x" * 5000, "\ud800", 7, None, ["a"]], ids=lambda pattern: repr(pattern)[:12])
def test_what_cannot_be_a_pattern_is_refused_and_changes_nothing(cache: Cache, pattern: Any) -> None:
    """One clear error of the cache's own."""
    cache.set("x", 1)
    with pytest.raises(InvalidPatternError, match="pattern"):
        cache.delete_pattern(pattern)
    assert cache.get("x") == 1


UNCACHEABLE: list[Any] = [
    {1, 2},
    b"bytes",
    object(),
    {"a": [1, {2}]},
    {1: "int key"},
    float("nan"),
    [float("inf")],
    "\ud800",
    MISS,
]


@pytest.mark.parametrize("value", UNCACHEABLE, ids=lambda value: repr(value)[:16])
def test_a_value_that_json_cannot_carry_is_refused_and_changes_nothing(cache: Cache, value: Any) -> None:
    """It is refused by every tier alike, before the old value is invalidated."""
    cache.set("k", "before")
    with pytest.raises(UncacheableValueError, match="value"):
        cache.set("k", value)
    assert cache.get("k") == "before"


def test_clear_removes_this_namespace_and_nothing_else(cache: Cache, client: redis.Redis, redis_url: str, namespace: str) -> None:
    """A database may be shared: foreign keys and other namespaces live on, also those that begin with the same letters."""
    neighbours = [RedisCache(url=redis_url, namespace=name, timeout_s=5.0) for name in (namespace + "2", "x" + namespace)]
    foreign = f"foreign:{namespace}:2:e:a"
    try:
        client.set(foreign, "kept", ex=60)
        for neighbour in neighbours:
            neighbour.set("a", "kept", ttl=60)
        for number in range(25):
            cache.set(f"a:{number}", number)
        assert cache.clear() == 25
        assert all(cache.get(f"a:{number}") is MISS for number in range(25))
        assert cache.clear() == 0
        assert client.get(foreign) == b"kept"
        assert [neighbour.get("a") for neighbour in neighbours] == ["kept", "kept"]
        cache.set("a:1", "again")
        assert cache.get("a:1") == "again"
    finally:
        client.delete(foreign)
        for neighbour in neighbours:
            neighbour.clear()
            neighbour.close()


def test_two_namespaces_share_nothing(redis_url: str, namespace: str) -> None:
    """Equal keys of two namespaces are two entries, and an invalidation of one leaves the other."""
    first, second = (
        TwoTierCache(None, RedisCache(url=redis_url, namespace=name, timeout_s=5.0)) for name in (namespace, namespace + "-b")
    )
    first.set("k", 1)
    second.set("k", 2)
    first.invalidate("*")
    assert first.get("k") is MISS
    second.l1.clear()
    assert second.get("k") == 2
    for cache in (first, second):
        cache.clear()
        cache.close()


def test_get_stats_is_a_table_of_plain_values(cache: Cache) -> None:
    """Statistics travel as JSON: text, numbers, booleans and tables of them."""
    cache.set("k", 1)
    cache.get("k")

    def plain(value: object) -> bool:
        if isinstance(value, dict):
            return all(isinstance(name, str) and plain(part) for name, part in value.items())
        return isinstance(value, str | int | float | bool)

    assert plain(cache.get_stats())

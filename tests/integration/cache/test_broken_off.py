"""Exchanges that are broken off: whatever ends one, at whatever step, the next one has its own answer."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis
from broken_off import broken_off_at
from interruptions.run import break_off
from interruptions.ways import WAYS
from servers import ValkeyServer

from pipeline.cache import MISS, RedisCache
from pipeline.cache.server.commands import Commands, integer, text
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.link import ReplyError
from pipeline.cache.server.scripts import Script, run_script

SOURCES = tuple(f"server/{name}.py" for name in ("wire", "link", "commands", "connection", "scripts"))


@pytest.fixture
def connection(redis_url: str) -> Iterator[RedisConnection]:
    with closing(RedisConnection(redis_url, timeout_s=5.0, retry_pause_s=0)) as connection:
        yield connection


def sockets() -> int:
    """How many this process has open."""
    return sum("socket:" in os.path.realpath(each) for each in Path("/proc/self/fd").iterdir())


def together(client: Commands) -> None:
    with client.pipeline() as pipe:
        pipe.set("x", "1", px=60_000)
        pipe.get("a")
        pipe.mget(["a", "b"])
        pipe.execute()


def as_one(client: Commands) -> None:
    with client.pipeline(transaction=True) as pipe:
        pipe.get("a")
        pipe.zrangebyscore("z", "-inf", "+inf")
        pipe.execute()


def unknown_script(client: Commands) -> None:
    """It is refused by its digest first, and then sent whole."""
    name = f"s{os.urandom(4).hex()}"
    Script(name, f"return redis.call('GET', KEYS[1]) -- {name}", os.urandom(20).hex()).run(client, ["a"], [], text)


def refused(client: Commands) -> None:
    """Its reply is an error, which is read as whole as any."""
    with pytest.raises(ReplyError, match="ERR"):
        client.hincrby("text", "field", 1)


COMMANDS: dict[str, Callable[[Commands], object]] = {
    "one": lambda client: client.get("a"),
    "several": together,
    "a transaction": as_one,
    "a script": lambda client: run_script(client, "probe", [b"a"], [], integer),
    "a script that is not there": unknown_script,
    "a walk": lambda client: client.scan(0, match="*", count=10),
    "a wait": lambda client: client.blpop(["nobody's"], 0.01),
    "a refusal": refused,
}


@pytest.mark.parametrize("name", COMMANDS)
def test_whatever_is_broken_off_at_any_step_leaves_no_answer_behind(
    connection: RedisConnection, valkey: ValkeyServer, name: str
) -> None:
    """Between any two lines that it reaches, on an open connection: a signal's handler raises there. And no socket is lost."""
    with valkey.client() as control:
        control.mset({"a": "of a", "b": "of b"})
        control.hset("text", "field", "no number")
        control.delete("nobody's")

    def ask(key: str) -> bytes | None:
        return connection.call(lambda client: client.get(key))

    assert ask("a") == b"of a"
    with warnings.catch_warnings(action="ignore"):
        gc.collect()  # what tests before this one have lost is not told here
    before = sockets()
    step = 0
    while True:
        step += 1
        assert ask("a") == b"of a"
        went_on = not broken_off_at(step, lambda: connection.call(COMMANDS[name]), *SOURCES)
        assert ask("b") == b"of b", f"after step {step}"
        if went_on:
            break
    assert step > 20
    gc.collect()  # an error that is on its way may keep in a circle the objects that it has met
    assert sockets() <= before


@pytest.mark.parametrize("way", WAYS)
def test_ordinary_calls_after_broken_off_ones_have_their_own_answers(way: str) -> None:
    """On every path to the server, in a process of its own, over a network of a millisecond. `python -m interruptions` is the
    long form."""
    (outcome,) = break_off(40, seed=7, ways=(way,), latencies_s=(0.001,))
    assert outcome.crash == ""
    assert outcome.seen["broken_off"] >= 40
    assert outcome.seen["wrong"] == []
    assert outcome.seen["hits"] > outcome.seen["reads"] / 2
    assert outcome.seen["descriptors_grown"] <= 2


# -- whose an entry is


def test_an_entry_that_is_another_keys_is_a_miss_counted_and_told(
    redis_url: str, namespace: str, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """It says whose it is: a program that renames keys cannot make one user's value another user's, either."""
    with closing(RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0)) as cache:
        cache.set("user:1", "the secret of 1")
        client.copy(cache.keys.entry("user:1"), cache.keys.entry("user:2"))
        for count in range(1, 4):
            assert cache.get("user:2") is MISS
            assert cache.foreign_count == count
        assert cache.get("user:1") == "the secret of 1"
        assert cache.get_stats()["foreign"] == 3
        cache.set("user:2", "the secret of 2")
        assert cache.get("user:2") == "the secret of 2"
    messages = [record.getMessage() for record in caplog.records if "foreign" in record.getMessage()]
    assert len(messages) == 1
    assert "user" not in messages[0]

"""The server in memory is a server to the cache: it answers as a real one does, in whatever order it is asked. (The cache's
contract suite, `tests/integration/cache/test_cache_contract.py`, runs over it as well.)"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cache.keys import KeySpace
from pipeline.cache.server.commands import Commands
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.link import ReplyError
from pipeline.cache.server.scripts import run_script
from schedules.server.listener import listening

NAMES = st.sampled_from([b"a", b"b", b"c"])
VALUES = st.sampled_from([b"", b"1", b"e 1", b"owner e 3", b"other e 4 +", b"- e 3 -1", b"\xff\r\n"])
PATTERNS = st.lists(st.sampled_from(["k", "k:*", "a?", "*", "가", '"\\/']), min_size=1, max_size=3)
SEQS = st.integers(0, 4)
MS = st.just(60_000)

# Each is what the cache sends: a command, or a script with its keys and arguments. `E` stands for the log's epoch.
CALLS = st.one_of(
    st.tuples(st.sampled_from(["GET", "GETEX", "PTTL?", "EXISTS", "UNLINK", "LLEN"]), NAMES),
    st.tuples(st.just("SET"), NAMES, VALUES, st.just("PX"), MS),
    st.tuples(st.just("SET"), NAMES, VALUES, st.just("PX"), MS, st.just("NX")),
    st.tuples(st.just("MGET"), NAMES, NAMES),
    st.tuples(st.just("RPUSH"), NAMES, VALUES),
    st.tuples(st.just("LRANGE"), NAMES, st.integers(-2, 2), st.integers(-2, 2)),
    st.tuples(st.just("EXPIRE"), NAMES, st.sampled_from([60, 0])),
    st.tuples(st.just("ZADD"), NAMES, SEQS, VALUES),
    st.tuples(st.just("ZRANGE"), NAMES, st.integers(-2, 2), st.integers(-2, 2), st.just("WITHSCORES")),
    st.tuples(st.just("ZRANGEBYSCORE"), NAMES, st.sampled_from(["-inf", "1", "(1"]), st.sampled_from(["+inf", "2", "(2"])),
    st.tuples(st.just("ZREMRANGEBYSCORE"), NAMES, st.just("-inf"), SEQS),
    st.tuples(st.sampled_from(["FORGET TAIL", "FORGET RECORDS", "FORGET MARKS"])),
    st.tuples(st.just("append"), st.just(60_000), st.sampled_from([1, 2, 1000]), PATTERNS),
    st.tuples(st.just("read"), st.sampled_from(["", "E", "other"]), SEQS, st.sampled_from([1, 2, 100])),
    st.tuples(st.just("beat"), st.sampled_from(["", "n1", "n2"])),
    st.tuples(st.just("claim"), NAMES, st.sampled_from(["owner e 3", "other e 4"]), st.sampled_from([0, 1])),
    st.tuples(
        st.just("exchange"),
        NAMES,
        st.sampled_from(["owner", "other", "-"]),
        st.sampled_from(["renew", "release", "withdraw", "give back", "replace"]),
    ),
    st.tuples(st.just("renew"), st.just([b"a", b"b"]), st.lists(st.sampled_from(["owner", "other"]), min_size=2, max_size=2)),
    st.tuples(st.just("sweep"), NAMES, VALUES),
)


class Asked:
    """A server, the names of one example there, and what it answers, told without what is its own: its epoch, and ages."""

    def __init__(self, url: str, namespace: str) -> None:
        self._keys = KeySpace(namespace)
        self._prefix = namespace.encode()
        self._connection = RedisConnection(url, timeout_s=5.0, retry_pause_s=0.0)
        self._epoch = b""

    def tell(self, name: str, *given: Any) -> Any:
        try:
            answer = self._answer(self._connection._opened().commands, name, *given)
        except ReplyError as error:
            return error.code
        return self._without_its_own(answer)

    def _answer(self, client: Commands, name: str, *given: Any) -> Any:
        keys, log = self._keys, [self._keys.tail, self._keys.records, self._keys.marks]
        match name:
            case "FORGET TAIL" | "FORGET RECORDS" | "FORGET MARKS":
                return client.unlink(log[["FORGET TAIL", "FORGET RECORDS", "FORGET MARKS"].index(name)])
            case "PTTL?":
                return client.pttl(self._prefix + given[0]) > 0
            case "append":
                arguments = ["12345678", given[0], given[1], keys.notices(0), *given[2]]
                return self._script(client, name, [*log, keys.moments], arguments)
            case "read":
                epoch = self._epoch if given[0] == "E" else given[0]
                return self._script(client, name, log, [epoch, given[1], "12345678", given[2]])
            case "beat":
                tail, age_ms, names = self._script(client, name, [keys.nodes, *log[:2]], [given[0], 10_000, 0])
                return [tail, age_ms >= 0, names]
            case "claim":
                return self._script(client, name, [self._prefix + given[0]], [given[1], 60_000, given[2]])
            case "renew":
                return self._script(client, name, [self._prefix + each for each in given[0]], [60_000, *given[1]])
            case "exchange":
                return self._script(client, name, [self._prefix + given[0]], [*given[1:], 60_000, "third e 9"])
            case "sweep":
                return self._script(client, name, [self._prefix + given[0]], [given[1]])
        words = [self._prefix + word if word in (b"a", b"b", b"c") else word for word in given]
        return client._run(lambda reply: reply, name, *words)

    def _script(self, client: Commands, name: str, keys: list[bytes], arguments: list[Any]) -> Any:
        return run_script(client, name, keys, arguments, lambda reply: reply)

    def _without_its_own(self, answer: Any) -> Any:
        if isinstance(answer, list):
            return [self._without_its_own(item) for item in answer]
        if isinstance(answer, bytes) and answer.count(b":") == 2 and b"12345678:" in answer:
            self._epoch = answer.partition(b":")[0]
            return answer[8:]  # without the server's replication id
        if isinstance(answer, bytes) and answer.startswith(b"["):
            return json.loads(answer)  # however it is written
        return answer if not isinstance(answer, int) or answer < 1_000 else "long"

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def memory_url() -> Iterator[str]:
    with listening() as url:
        yield url


@pytest.mark.usefixtures("valkey")
def test_it_answers_as_a_real_server_does(valkey: Any, memory_url: str) -> None:
    """Every command and every script of the cache, in any order, with texts of any kind, on names of any type."""

    @settings(max_examples=60, database=None)
    @given(st.lists(CALLS, min_size=1, max_size=25))
    def both(calls: list[tuple[Any, ...]]) -> None:
        namespace = f"t{uuid.uuid4().hex[:12]}"
        real, ours = Asked(valkey.url, namespace), Asked(memory_url, namespace)
        try:
            for call in calls:
                assert ours.tell(*call) == real.tell(*call), call
        finally:
            real.close()
            ours.close()

    both()

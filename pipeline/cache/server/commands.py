"""The commands in use, each with the type of its reply checked. Nothing else is sent to the cache's server.

A reply of another type than its command's means that something between here and the server mixes replies up. It is discarded, and
every connection is given up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

from pipeline.cache.server.link import GarbledReplyError, ReplyError, encode
from pipeline.cache.server.wire import UNTOLD, Wire

T = TypeVar("T")

Word = bytes | str | int | float


class _Commands:
    """Each command under its own name. A time to live is in ms (`px`) or seconds (`ex`)."""

    def _run(self, check: Callable[[Any], T], *words: Word, need: str = "", block_s: float = 0.0) -> T:
        """`need`: the name under which a refusal is reported, if not the command's."""
        raise NotImplementedError

    def ping(self) -> bytes | None:
        return self._run(text, "PING")

    def get(self, name: Word) -> bytes | None:
        return self._run(text, "GET", name)

    def getex(self, name: Word) -> bytes | None:
        """As `get`, from a server that takes writes: a replica, or a master that was demoted, refuses."""
        return self._run(text, "GETEX", name)

    def mget(self, names: Iterable[Word]) -> list[bytes | None]:
        return self._run(texts_or_none, "MGET", *names)

    def set(self, name: Word, value: Word, *, px: int | None = None, ex: int | None = None, nx: bool = False) -> bool:
        """Whether it was set. `nx`: set only a name that does not exist."""
        lifetime: list[Word] = [] if px is None else ["PX", px]
        lifetime += [] if ex is None else ["EX", ex]
        return self._run(done, "SET", name, value, *lifetime, *(["NX"] if nx else []))

    def exists(self, *names: Word) -> int:
        return self._run(integer, "EXISTS", *names)

    def unlink(self, *names: Word) -> int:
        return self._run(integer, "UNLINK", *names)

    def expire(self, name: Word, seconds: int) -> int:
        return self._run(integer, "EXPIRE", name, seconds)

    def pttl(self, name: Word) -> int:
        """In ms; negative for a name that does not exist, or has no end."""
        return self._run(integer, "PTTL", name)

    def scan(self, cursor: int, *, match: Word, count: int) -> tuple[int, list[bytes]]:
        """The cursor to go on with, 0 at the end, and some names."""
        return self._run(_page, "SCAN", cursor, "MATCH", match, "COUNT", count)

    def time(self) -> tuple[int, int]:
        """The server's clock: seconds and microseconds."""
        return self._run(_moment, "TIME")

    def info(self, section: str) -> dict[str, str]:
        # Its refusals are not reported: it only serves figures.
        return self._run(_sections, "INFO", section, need=UNTOLD)

    # -- lists

    def lpop(self, name: Word) -> bytes | None:
        return self._run(text, "LPOP", name)

    def llen(self, name: Word) -> int:
        return self._run(integer, "LLEN", name)

    def lrange(self, name: Word, first: int, last: int) -> list[bytes]:
        return self._run(texts, "LRANGE", name, first, last)

    def rpush(self, name: Word, *values: Word) -> int:
        return self._run(integer, "RPUSH", name, *values)

    def blpop(self, names: Iterable[Word], timeout: float) -> tuple[bytes, bytes] | None:
        """The list's name and its first value; None when none came within `timeout` seconds, which is above 0. The connection's
        own time-out begins after that."""
        return self._run(_named_value, "BLPOP", *names, timeout, block_s=timeout)

    # -- hashes

    def hgetall(self, name: Word) -> dict[bytes, bytes]:
        return self._run(_fields, "HGETALL", name)

    def hset(self, name: Word, field: Word | None = None, value: Word = "", *, mapping: Mapping[str, Word] | None = None) -> int:
        pairs: list[Word] = [] if field is None else [field, value]
        pairs += [word for pair in (mapping or {}).items() for word in pair]
        return self._run(integer, "HSET", name, *pairs)

    def hsetnx(self, name: Word, field: Word, value: Word) -> int:
        return self._run(integer, "HSETNX", name, field, value)

    def hincrby(self, name: Word, field: Word, amount: int) -> int:
        return self._run(integer, "HINCRBY", name, field, amount)

    # -- sorted sets, with their scores

    def zcard(self, name: Word) -> int:
        return self._run(integer, "ZCARD", name)

    def zrem(self, name: Word, *members: Word) -> int:
        return self._run(integer, "ZREM", name, *members)

    def zrange(self, name: Word, first: int, last: int) -> list[tuple[bytes, float]]:
        return self._run(scored, "ZRANGE", name, first, last, "WITHSCORES")

    def zrevrange(self, name: Word, first: int, last: int) -> list[tuple[bytes, float]]:
        return self._run(scored, "ZREVRANGE", name, first, last, "WITHSCORES")

    def zrangebyscore(self, name: Word, least: Word, most: Word) -> list[tuple[bytes, float]]:
        return self._run(scored, "ZRANGEBYSCORE", name, least, most, "WITHSCORES")


class Commands(_Commands):
    """Sends a command and returns its reply. Stateless: any thread may use it.

    Raises ReplyError when the server refuses, and what `Wire.exchange` raises.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def _run(self, check: Callable[[Any], T], *words: Word, need: str = "", block_s: float = 0.0) -> T:
        name = need or str(words[0])
        reply = self._wire.exchange(_encoded(words), (name,), block_s=block_s)[0]
        return self.checked(check, reply, name)

    def checked(self, check: Callable[[Any], T], reply: Any, need: str) -> T:
        """The reply in the shape that it must have."""
        if isinstance(reply, ReplyError):  # of a command within a transaction
            reply.need = need
            raise reply
        try:
            return check(reply)
        except GarbledReplyError:
            self._wire.renounce()
            raise

    def exchange(self, commands: bytes, needs: tuple[str, ...]) -> list[Any]:
        """The replies to as many encoded commands, as from `Wire.exchange`."""
        return self._wire.exchange(commands, needs)

    def run_script(
        self, name: str, source: str, digest: str, keys: Iterable[Word], arguments: Iterable[Word], check: Callable[[Any], T]
    ) -> T:
        """The script's result. Its source is sent when the server does not know the digest; a refusal is reported by `name`."""
        names = [*keys]
        words: list[Word] = [len(names), *names, *arguments]
        try:
            return self._run(check, "EVALSHA", digest, *words, need=name)
        except ReplyError as error:
            if error.code != "NOSCRIPT":
                raise
        return self._run(check, "EVAL", source, *words, need=name)

    def pipeline(self, *, transaction: bool = False) -> Pipeline:
        """Several commands in one round trip; as a transaction, of one moment."""
        return Pipeline(self, transaction=transaction)


class Pipeline(_Commands):
    """Commands that are sent together. Each call adds one and returns nothing of use, whatever its type says; `execute` returns
    the replies, in order. For one thread."""

    def __init__(self, commands: Commands, *, transaction: bool) -> None:
        self._commands = commands
        self._transaction = transaction
        self._encoded: list[bytes] = []
        self._by_source: bytes | None = None
        self._checks: list[tuple[Callable[[Any], Any], str]] = []

    def _run(self, check: Callable[[Any], T], *words: Word, need: str = "", block_s: float = 0.0) -> T:
        if block_s:
            raise ValueError("a command that waits would hold up the others")
        self._encoded.append(_encoded(words))
        self._checks.append((check, need or str(words[0])))
        return cast("T", None)  # there is no reply yet

    def script(
        self, name: str, source: str, digest: str, keys: Iterable[Word], arguments: Iterable[Word], check: Callable[[Any], T]
    ) -> T:
        """As `Commands.run_script`. Before any other command, and not in a transaction: to a server that does not know the
        digest all of them are sent once more, with the source."""
        if self._checks or self._transaction:
            raise ValueError("a script comes first, and not in a transaction")
        names = [*keys]
        words: tuple[Word, ...] = (len(names), *names, *arguments)
        self._by_source = _encoded(("EVAL", source, *words))
        return self._run(check, "EVALSHA", digest, *words, need=name)

    def evalsha(self, name: str, digest: str, keys: Iterable[Word], arguments: Iterable[Word], check: Callable[[Any], T]) -> T:
        """A script that the server may not know: then `execute` raises ReplyError with the code NOSCRIPT."""
        names = [*keys]
        return self._run(check, "EVALSHA", digest, len(names), *names, *arguments, need=name)

    def execute(self) -> list[Any]:
        """Send the commands that were added. Returns the replies; raises the first refusal, after all replies have come."""
        if not self._checks:
            return []
        if self._by_source is not None:
            try:
                return self._execute()
            except ReplyError as error:
                if error.code != "NOSCRIPT":
                    raise
            self._encoded[0] = self._by_source
        return self._execute()

    def _execute(self) -> list[Any]:
        encoded, needs = self._encoded, tuple(need for _, need in self._checks)
        if self._transaction:
            *_, replies = self._commands.exchange(b"".join((_MULTI, *encoded, _EXEC)), ("MULTI", *needs, "EXEC"))
            replies = self._commands.checked(several(len(needs)), replies, "EXEC")
        else:
            replies = self._commands.exchange(b"".join(encoded), needs)
        return [self._commands.checked(check, reply, need) for reply, (check, need) in zip(replies, self._checks, strict=True)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing is held that must be given back."""


_MULTI: Final = encode(b"MULTI")
_EXEC: Final = encode(b"EXEC")


def _encoded(words: tuple[Word, ...]) -> bytes:
    return encode(*[word if type(word) is bytes else _bytes(word) for word in words])


def _bytes(word: Word) -> bytes:
    if isinstance(word, bytes):
        return word
    if isinstance(word, str):
        return word.encode()
    return b"%d" % word if isinstance(word, int) else repr(word).encode()


# -- the types of replies


def text(reply: Any) -> bytes | None:
    if reply is None or type(reply) is bytes:
        return reply
    raise _garbled("a text")


def integer(reply: Any) -> int:
    if type(reply) is int:
        return reply
    raise _garbled("a number")


def done(reply: Any) -> bool:
    if reply is None or reply == b"OK":
        return reply is not None
    raise _garbled("OK")


def texts(reply: Any) -> list[bytes]:
    if type(reply) is list and all(type(item) is bytes for item in reply):
        return reply
    raise _garbled("texts")


def texts_or_none(reply: Any) -> list[bytes | None]:
    if type(reply) is list and all(item is None or type(item) is bytes for item in reply):
        return reply
    raise _garbled("texts")


def scored(reply: Any) -> list[tuple[bytes, float]]:
    flat = texts(reply)
    return list(zip(flat[::2], map(_score, flat[1::2]), strict=True)) if len(flat) % 2 == 0 else _reject("members with scores")


def _score(raw: bytes) -> float:
    try:
        return float(raw)
    except ValueError:
        return math.nan


def _fields(reply: Any) -> dict[bytes, bytes]:
    flat = texts(reply)
    return dict(zip(flat[::2], flat[1::2], strict=True)) if len(flat) % 2 == 0 else _reject("fields with values")


def _named_value(reply: Any) -> tuple[bytes, bytes] | None:
    if reply is None:
        return None
    name, value = several(2)(texts(reply))
    return name, value


def _moment(reply: Any) -> tuple[int, int]:
    seconds, microseconds = several(2)(texts(reply))
    return (int(seconds), int(microseconds)) if seconds.isdigit() and microseconds.isdigit() else _reject("a time")


def _page(reply: Any) -> tuple[int, list[bytes]]:
    cursor, names = several(2)(reply)
    return (int(cursor), texts(names)) if type(cursor) is bytes and cursor.isdigit() else _reject("a cursor")


def _sections(reply: Any) -> dict[str, str]:
    lines = (text(reply) or b"").decode(errors="replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon and not name.startswith("#")}


def several(count: int) -> Callable[[Any], list[Any]]:
    def check(reply: Any) -> list[Any]:
        if type(reply) is list and len(reply) == count:
            return reply
        raise _garbled(f"{count} replies")

    return check


def _garbled(expected: str) -> GarbledReplyError:
    return GarbledReplyError(f"expected {expected}")


def _reject(expected: str) -> Any:
    raise _garbled(expected)

"""A Redis in memory, as far as the cache speaks to one: texts, lists and sorted sets with a time to live, by RESP's words.

The contract suite of the cache runs over it as over a real server, and `test_server.py` holds its replies against the real ones.
It runs the cache's own Lua (`lua.py`). Its clock is an argument, and it has a replication id, as a server has.
"""

from __future__ import annotations

import copy
import fnmatch
import math
from collections.abc import Callable, Iterable
from typing import Any, Final

from schedules.server.lua import Script, Status, compiled

OK: Final = Status(b"OK")
_WRITES: Final = frozenset(
    {
        *(b"SET", b"GETEX", b"DEL", b"UNLINK", b"EXPIRE", b"PEXPIRE", b"FLUSHDB", b"FLUSHALL", b"RPUSH", b"LPOP"),
        *(b"ZADD", b"ZREM", b"ZREMRANGEBYSCORE"),
    }
)


class RefusalError(Exception):
    """What the server says in place of an answer."""


class Store:
    """One server's data, and what it does with a command. Each command is one step."""

    def __init__(self, clock: Callable[[], float], replication_id: str, scripts: dict[bytes, Script] | None = None) -> None:
        """`clock`: seconds since 1970, as TIME tells them. `scripts`: those it knows, by digest."""
        self.clock = clock
        self.replication_id = replication_id
        self.read_only = False
        """It is a replica: it takes no writes from clients."""
        self.full = False
        """It takes no more data."""
        self.values: dict[bytes, Any] = {}
        self.ends_ms: dict[bytes, int] = {}
        self.scripts = {} if scripts is None else scripts
        self._commands: dict[bytes, Callable[..., Any]] = {
            name[3:].upper().encode(): getattr(self, name) for name in dir(self) if name.startswith("do_")
        }

    def lagging_copy(self, replication_id: str) -> Store:
        """A server that has what this one has now, and a history of its own."""
        other = Store(self.clock, replication_id, self.scripts)
        other.values, other.ends_ms = copy.deepcopy(self.values), dict(self.ends_ms)
        return other

    def execute(self, words: list[bytes]) -> Any:
        """The reply: bytes, Status, int, None, a list, or a RefusalError."""
        command = self._commands.get(words[0].upper())
        if command is None:
            return RefusalError(f"ERR unknown command '{words[0].decode(errors='replace')}'")
        try:
            return self.call(words)
        except RefusalError as refusal:
            return refusal
        except (TypeError, ValueError, IndexError):
            return RefusalError("ERR wrong number of arguments, or a value is not a number")

    def call(self, words: list[bytes]) -> Any:
        """As `execute`, for a script: raises the RefusalError."""
        name = words[0].upper()
        if name in _WRITES:
            if self.read_only:
                raise RefusalError("READONLY You can't write against a read only replica.")
            if self.full and name in (b"SET", b"RPUSH", b"ZADD", b"XADD"):
                raise RefusalError("OOM command not allowed when used memory > 'maxmemory'.")
        return self._commands[name](*words[1:])

    def now_ms(self) -> int:
        return int(self.clock() * 1000)

    def _get(self, name: bytes, kind: type) -> Any:
        value = self.values.get(name)
        if value is None:
            return None
        if name in self.ends_ms and self.ends_ms[name] <= self.now_ms():
            self.remove(name)
            return None
        if type(value) is not kind:
            raise RefusalError("WRONGTYPE Operation against a key holding the wrong kind of value")
        return value

    def remove(self, name: bytes) -> int:
        """Take the name away, as an eviction does."""
        self.ends_ms.pop(name, None)
        return int(self.values.pop(name, None) is not None)

    def names(self) -> list[bytes]:
        for name in [name for name, at in self.ends_ms.items() if at <= self.now_ms()]:
            self.remove(name)
        return sorted(self.values)

    # -- any type

    def do_ping(self) -> Any:
        return Status(b"PONG")

    def do_client(self, *_: bytes) -> Any:
        return OK

    def do_select(self, _: bytes) -> Any:
        return OK

    def do_publish(self, _: bytes, __: bytes) -> int:
        return 0  # nobody subscribes here

    def do_time(self) -> list[bytes]:
        now_s = self.clock()
        return [b"%d" % int(now_s), b"%d" % int(now_s % 1 * 1e6)]

    def do_info(self, *_: bytes) -> bytes:
        role = "slave" if self.read_only else "master"
        return f"# Replication\r\nrole:{role}\r\nmaster_replid:{self.replication_id}\r\nused_memory:0\r\n".encode()

    def do_exists(self, *names: bytes) -> int:
        self.names()
        return sum(name in self.values for name in names)

    do_touch = do_exists

    def do_del(self, *names: bytes) -> int:
        self.names()
        return sum(self.remove(name) for name in names)

    do_unlink = do_del

    def do_flushdb(self, *_: bytes) -> Any:
        self.values.clear()
        self.ends_ms.clear()
        return OK

    do_flushall = do_flushdb

    def do_pexpire(self, name: bytes, ms: bytes) -> int:
        self.names()
        if name not in self.values:
            return 0
        if int(ms) <= 0:
            return self.remove(name)
        self.ends_ms[name] = self.now_ms() + int(ms)
        return 1

    def do_expire(self, name: bytes, seconds: bytes) -> int:
        return self.do_pexpire(name, b"%d" % (int(seconds) * 1000))

    def do_pttl(self, name: bytes) -> int:
        self.names()
        if name not in self.values:
            return -2
        return self.ends_ms[name] - self.now_ms() if name in self.ends_ms else -1

    def do_scan(self, cursor: bytes, *words: bytes) -> list[Any]:
        given = dict(zip((word.upper() for word in words[::2]), words[1::2], strict=True))
        names, at, count = self.names(), int(cursor), int(given.get(b"COUNT", 10))
        found = [name for name in names[at : at + count] if _matches(given.get(b"MATCH", b"*"), name)]
        return [b"%d" % (at + count if at + count < len(names) else 0), found]

    # -- texts

    def do_get(self, name: bytes) -> bytes | None:
        text: bytes | None = self._get(name, bytes)
        return text

    do_getex = do_get

    def do_getrange(self, name: bytes, first: bytes, last: bytes) -> bytes:
        return bytes(_range(self._get(name, bytes) or b"", first, last))

    def do_strlen(self, name: bytes) -> int:
        return len(self._get(name, bytes) or b"")

    def do_mget(self, *names: bytes) -> list[bytes | None]:
        self.names()
        return [value if isinstance(value := self.values.get(name), bytes) else None for name in names]

    def do_set(self, name: bytes, value: bytes, *words: bytes) -> Any:
        options = [word.upper() for word in words]
        self.names()
        if b"NX" in options and name in self.values:
            return None
        if b"KEEPTTL" not in options:
            self.ends_ms.pop(name, None)
        self.values[name] = value
        for unit, of_ms in ((b"PX", 1), (b"EX", 1000)):
            if unit in options:
                self.ends_ms[name] = self.now_ms() + of_ms * int(options[options.index(unit) + 1])
        return OK

    # -- lists

    def do_rpush(self, name: bytes, *values: bytes) -> int:
        items = self._get(name, list)
        items = self.values.setdefault(name, []) if items is None else items
        items.extend(values)
        return len(items)

    def do_lrange(self, name: bytes, first: bytes, last: bytes) -> list[bytes]:
        return _range(self._get(name, list) or [], first, last)

    def do_llen(self, name: bytes) -> int:
        return len(self._get(name, list) or [])

    # -- sorted sets

    def _ordered(self, name: bytes) -> list[tuple[bytes, float]]:
        return sorted((self._get(name, dict) or {}).items(), key=lambda item: (item[1], item[0]))

    def do_zadd(self, name: bytes, *words: bytes) -> int:
        members = self._get(name, dict)
        members = self.values.setdefault(name, {}) if members is None else members
        before = len(members)
        members.update({member: _number(score) for score, member in zip(words[::2], words[1::2], strict=True)})
        return len(members) - before

    def do_zcard(self, name: bytes) -> int:
        return len(self._get(name, dict) or ())

    def do_zscore(self, name: bytes, member: bytes) -> bytes | None:
        score = (self._get(name, dict) or {}).get(member)
        return None if score is None else _shown(score)

    def do_zrem(self, name: bytes, *members: bytes) -> int:
        return self._without(name, members)

    def do_zrange(self, name: bytes, first: bytes, last: bytes, *words: bytes) -> list[bytes]:
        return _replied(_range(self._ordered(name), first, last), words)

    def do_zrevrange(self, name: bytes, first: bytes, last: bytes, *words: bytes) -> list[bytes]:
        return _replied(_range(self._ordered(name)[::-1], first, last), words)

    def do_zrangebyscore(self, name: bytes, least: bytes, most: bytes, *words: bytes) -> list[bytes]:
        return _replied(_limited(self._between(name, least, most), words), words)

    def do_zrevrangebyscore(self, name: bytes, most: bytes, least: bytes, *words: bytes) -> list[bytes]:
        return _replied(_limited(self._between(name, least, most)[::-1], words), words)

    def do_zremrangebyscore(self, name: bytes, least: bytes, most: bytes) -> int:
        return self._without(name, [member for member, _ in self._between(name, least, most)])

    def _between(self, name: bytes, least: bytes, most: bytes) -> list[tuple[bytes, float]]:
        least_score, most_score = _number(least.removeprefix(b"(")), _number(most.removeprefix(b"("))
        return [
            (member, score)
            for member, score in self._ordered(name)
            if (score > least_score if least.startswith(b"(") else score >= least_score)
            and (score < most_score if most.startswith(b"(") else score <= most_score)
        ]

    def _without(self, name: bytes, members: Iterable[bytes]) -> int:
        held = self._get(name, dict) or {}
        gone = sum(held.pop(member, None) is not None for member in members)
        if not held:
            self.remove(name)
        return gone

    # -- streams

    def do_xadd(self, name: bytes, _: bytes, *words: bytes) -> bytes:
        items = self._get(name, _Stream)
        if items is None:
            items = self.values[name] = _Stream()
        items.append([b"%d-0" % (len(items) + 1), list(words)])
        return bytes(items[-1][0])

    def do_xread(self, *words: bytes) -> Any:
        """From the beginning, of one stream. Waits for nothing: `network` does."""
        items = self._get(words[-2], _Stream)
        return [[words[-2], [*items]]] if items else None

    # -- scripts

    def do_eval(self, source: bytes, count: bytes, *words: bytes) -> Any:
        script = compiled(source)
        self.scripts[script.digest] = script
        return script.run(self.call, words[: int(count)], words[int(count) :])

    def do_evalsha(self, digest: bytes, count: bytes, *words: bytes) -> Any:
        script = self.scripts.get(digest)
        if script is None:
            raise RefusalError("NOSCRIPT No matching script. Please use EVAL.")
        return script.run(self.call, words[: int(count)], words[int(count) :])


class _Stream(list[Any]):
    """Its items, each with its id."""


def _matches(pattern: bytes, name: bytes) -> bool:
    if pattern.endswith(b"*") and not any(char in pattern[:-1] for char in b"*?[\\"):
        return name.startswith(pattern[:-1])
    return fnmatch.fnmatchcase(name.decode("latin-1"), _as_fnmatch(pattern.decode("latin-1")))


def _as_fnmatch(pattern: str) -> str:
    """Redis's escapes as fnmatch writes them."""
    parts, at, within = [], 0, False
    while at < len(pattern):
        char = pattern[at]
        if char == "\\" and at + 1 < len(pattern):
            at += 1
            parts.append(pattern[at] if within or pattern[at] not in "*?[" else f"[{pattern[at]}]")
        else:
            within = char == "[" or (within and char != "]")
            parts.append("!" if char == "^" and parts[-1:] == ["["] else char)
        at += 1
    return "".join(parts)


def _range(items: list[Any], first: bytes, last: bytes) -> list[Any]:
    begin, end = int(first), int(last)
    begin = max(0, begin + len(items) if begin < 0 else begin)
    end = end + len(items) if end < 0 else end
    return items[begin : end + 1]


def _limited(items: list[Any], words: tuple[bytes, ...]) -> list[Any]:
    options = [word.upper() for word in words]
    if b"LIMIT" not in options:
        return items
    at = options.index(b"LIMIT")
    skipped, count = int(options[at + 1]), int(options[at + 2])
    return items[skipped:] if count < 0 else items[skipped : skipped + count]


def _replied(items: list[tuple[bytes, float]], words: tuple[bytes, ...]) -> list[bytes]:
    if b"WITHSCORES" in [word.upper() for word in words]:
        return [part for member, score in items for part in (member, _shown(score))]
    return [member for member, _ in items]


def _number(text: bytes) -> float:
    number = float(text)
    if math.isnan(number):
        raise ValueError("not a number")
    return number


def _shown(score: float) -> bytes:
    return b"%d" % score if score == int(score) else repr(score).encode()

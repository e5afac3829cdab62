"""What waits at the broker: in queues, as claims of the dead, aside, as dead letters."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

from redis.exceptions import NoPermissionError, ResponseError

from workers.doctor.seen import Kept, Orphan, Waiting
from workers.node.fetch.claims import BEAT_S, CLAIMS, NODES, SILENT_MS, SOURCES
from workers.queue.aside.messages import ASIDE
from workers.queue.backlog import queued_at
from workers.queue.dead_letters.letter import DEAD_LETTERS

STEPS: Final = range(10)
SEP: Final = "\x06\x16"
"""As kombu names the list of a lower priority."""
LATE_S: Final = 3 * BEAT_S
"""Claims of a node are given back within a beat of another once it is silent for SILENT_MS. So much later they were not."""
MOST_SCANS: Final = 50
PORTION: Final = 200
MOST_SEEN: Final = 2000
MOST_NODES: Final = 200
_NODE: Final = re.compile(r"(.*/\d+/[0-9a-f]+):(.*)", re.DOTALL)


def waiting_at(client: Any, queues: Iterable[str]) -> Waiting:
    """Raises RedisError but for what the user has no right to: that is named."""
    denied: set[str] = set()
    places = [(queue, step) for queue in queues for step in STEPS]
    lengths = _all(client, [("LLEN", _list(*place)) for place in places], denied)
    lists = {place: int(length) for place, length in zip(places, lengths, strict=True) if length}
    items = _all(client, [("LINDEX", _list(*place), -1) for place in lists], denied)
    oldest: dict[str, float] = {}
    for (queue, _), item in zip(lists, items, strict=True):
        if (at := queued_at(item or b"")) is not None:
            oldest[queue] = max(oldest.get(queue, 0.0), time.time() - at)
    (now,) = _all(client, [("TIME",)], denied)
    now_ms = int(now[0]) * 1000 + int(now[1]) // 1000 if now else time.time() * 1000
    until = now_ms - 1000 * LATE_S
    counts = [("ZCARD", ASIDE), ("ZCOUNT", ASIDE, "-inf", until), ("LLEN", DEAD_LETTERS)]
    aside, overdue, letters = _all(client, counts, denied)
    (first,) = _all(client, [("ZRANGE", ASIDE, 0, 0, "WITHSCORES")], denied) if overdue else (None,)
    return Waiting(
        lists=lists,
        oldest_s=oldest,
        orphans=tuple(_orphans(client, now_ms, denied)),
        aside=int(aside or 0),
        overdue=int(overdue or 0),
        overdue_s=max((now_ms - float(due_ms)) / 1000 for _, due_ms in _pairs(first)) if first else 0.0,
        letters=int(letters or 0),
        denied=tuple(sorted(denied)),
    )


def kept_under(client: Any, prefix: bytes) -> Kept:
    """Some of the names that begin so, and which of them have no end."""
    looked_at, endless = 0, []
    try:
        for names in _scan(client, prefix):
            with client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.pttl(name)
                ends = pipe.execute()
            looked_at += len(names)
            endless += [name for name, end in zip(names, ends, strict=True) if end == -1]
            if looked_at >= MOST_SEEN:
                break
    except NoPermissionError:
        return Kept(denied=True)
    shown = tuple(name.decode(errors="replace")[:60] for name in endless[:3])
    return Kept(looked_at=looked_at, endless=shown, endless_count=len(endless))


def _list(queue: str, step: int) -> str:
    return f"{queue}{SEP}{step}" if step else queue


def _all(client: Any, commands: list[tuple[Any, ...]], denied: set[str]) -> list[Any]:
    """The replies; None for a command that is refused."""
    if not commands:
        return []
    with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        replies = pipe.execute(raise_on_error=False)
    for command, reply in zip(commands, replies, strict=True):
        if isinstance(reply, NoPermissionError):
            denied.add(command[0])
        elif isinstance(reply, Exception) and not isinstance(reply, ResponseError):
            raise reply
    return [None if isinstance(reply, Exception) else reply for reply in replies]


def _scan(client: Any, prefix: bytes) -> Iterator[list[bytes]]:
    cursor = 0
    for _ in range(MOST_SCANS):
        cursor, names = client.scan(cursor, match=re.sub(rb"([\\*?\[\]])", rb"\\\1", prefix) + b"*", count=PORTION)
        if names:
            yield names
        if cursor == 0:
            return


def _orphans(client: Any, now_ms: float, denied: set[str]) -> Iterator[Orphan]:
    (beats,) = _all(client, [("ZRANGE", NODES, 0, -1, "WITHSCORES")], denied)
    heard = {name.decode(errors="replace"): float(at) for name, at in _pairs(beats or [])}
    silent = [node for node, at in heard.items() if now_ms - at > SILENT_MS + 1000 * LATE_S][:MOST_NODES]
    for node in silent:
        (sources,) = _all(client, [("SMEMBERS", SOURCES + node)], denied)
        commands: list[tuple[Any, ...]] = [("LLEN", f"{CLAIMS}{node}:".encode() + source) for source in sources or ()]
        if claims := sum(int(length or 0) for length in _all(client, commands, denied)):
            yield Orphan(node=node, claims=claims, silent_s=(now_ms - heard[node]) / 1000)
    try:
        for names in _scan(client, CLAIMS.encode()):
            for name in names:
                parts = _NODE.fullmatch(name.decode(errors="replace").removeprefix(CLAIMS))
                if parts is not None and parts.group(1) not in heard:
                    yield Orphan(node=parts.group(1), claims=int(client.llen(name)), silent_s=None)
    except NoPermissionError:
        denied.add("SCAN")


def _pairs(flat: Any) -> Iterator[tuple[bytes, Any]]:
    """Names and scores, as a client's protocol has them: in pairs, or in turn."""
    if flat and isinstance(flat[0], list | tuple):
        yield from ((name, at) for name, at in flat)
    else:
        yield from zip(flat[::2], flat[1::2], strict=True)

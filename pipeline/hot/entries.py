"""What is known of the answers that are asked for most, by their keys and the beginnings of their entries alone.

Reads no value: an entry's answer stands behind what is read of it, and is cut off at the server unless it is short. Judges by the
log as a cache does, but serves nothing by it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final, Literal, NamedTuple

import msgspec

from pipeline.cache.coherence.tail import Tail
from pipeline.cache.errors import InvalidPatternError
from pipeline.cache.keys import KeySpace
from pipeline.cache.patterns.pattern import parse
from pipeline.cache.server.commands import scored, several, text, texts
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.scripts import Script
from pipeline.hot.keys import HotKeys
from pipeline.keys import parts_of

HEAD_BYTES: Final = 4096
"""All of an entry but its value fits, unless it was computed from dozens of keys."""
RECORDS: Final = 500
"""So many of the log's newest records are read. An entry that is older than they are is not judged."""
_scan: Final = json.JSONDecoder().raw_decode

Standing = Literal["l2", "stale", "ended", "absent", "unknown"]


class HotAnswer(msgspec.Struct, frozen=True):
    """An answer that is asked for. `share`: of the requests without a user's context that were counted of late, 0.0-1.0, an
    estimate: scores decay, and a busy process tells a sample. `persona`, `resonance`: of its key; None if it is another kind.

    `standing`: `l2` has it; `stale`, it is past its time and kept for its grace; `ended`, it was invalidated; `absent`, there are
    no bytes of it; `unknown`, what is read of it does not tell. `age_s`, `left_s`: since it was computed, and of its time to
    live, by the server's clock; None unless it is `l2` or `stale`."""

    key: str
    share: float | None
    persona: str | None
    resonance: str | None
    standing: Standing
    age_s: float | None = None
    left_s: float | None = None


class _Head(NamedTuple):
    """An entry as far as its time to live: see Entry."""

    key: str
    epoch: str
    seq: int
    deps: tuple[str, ...]
    created_ms: int
    ttl_ms: int


class _Log(NamedTuple):
    tail: Tail | None
    records: list[tuple[str, int]]
    """The newest, by falling seqs."""
    since: int
    """They are all that is newer."""


def read_hot_answers(connection: RedisConnection, namespace: str, asked: Sequence[tuple[str, float]]) -> tuple[HotAnswer, ...]:
    """Of these keys with their scores, in one exchange. Raises SharedTierUnavailableError."""
    keys = KeySpace(namespace)
    names = [HotKeys(namespace).scores, keys.tail, keys.records, *(keys.entry(key) for key, _ in asked)]
    reply = connection.call(lambda client: script().run(client, names, [RECORDS, HEAD_BYTES], several(5)))
    now_ms, total = float(text(reply[0]) or b"0"), float(text(reply[1]) or b"0")
    read = [(name.decode(errors="replace"), int(seq)) for name, seq in scored(reply[3]) if math.isfinite(seq)]
    since = read[-1][1] if len(read) >= RECORDS else 0
    log = _Log(Tail.parse(text(reply[2]) or b""), [record for record in read if record[0]], since)
    heads = texts(reply[4])
    return tuple(
        _answer(key, score / total if total > 0 else None, _head(key, raw), bool(raw), log, now_ms)
        for (key, score), raw in zip(asked, heads, strict=True)
    )


@cache
def script() -> Script:
    return Script.read(__file__, "entries")


def _answer(key: str, share: float | None, head: _Head | None, there: bool, log: _Log, now_ms: float) -> HotAnswer:
    persona, resonance = parts_of(key) or (None, None)
    if head is None:
        return HotAnswer(key, share, persona, resonance, "unknown" if there else "absent")
    standing = _standing(head, log, now_ms)
    if standing not in ("l2", "stale"):
        return HotAnswer(key, share, persona, resonance, standing)
    age_ms = max(0.0, now_ms - head.created_ms)
    return HotAnswer(key, share, persona, resonance, standing, age_ms / 1000, max(0.0, head.ttl_ms - age_ms) / 1000)


def _standing(head: _Head, log: _Log, now_ms: float) -> Standing:
    tail = log.tail
    if tail is None or tail.epoch != head.epoch or not tail.floor <= head.seq <= tail.seq:
        return "ended"  # by a log that began anew, or has forgotten
    for pattern, seq in log.records:
        if seq <= head.seq:
            break
        matches = _matcher(pattern)
        if any(map(matches, (head.key, *head.deps))):
            return "ended"
    if head.seq < log.since:
        return "unknown"
    return "l2" if now_ms < head.created_ms + head.ttl_ms else "stale"


def _head(key: str, raw: bytes) -> _Head | None:
    """None for bytes that are no entry of that key, or of which too little was read."""
    words, at, found = raw.decode(errors="replace"), 1, []
    if not words.startswith("["):
        return None
    try:
        for _ in _Head._fields:
            value, at = _scan(words, at)
            found.append(value)
            at += 1  # the comma
        head = _Head(*found)
        head = head._replace(deps=tuple(map(str, head.deps)), seq=int(head.seq), ttl_ms=int(head.ttl_ms))
    except (ValueError, TypeError, RecursionError):
        return None
    return head if head.key == key and isinstance(head.created_ms, int) else None


def _matcher(pattern: str) -> Callable[[str], bool]:
    try:
        return parse(pattern).matcher()
    except InvalidPatternError:
        return _everything  # a foreign program's: a cache takes it for "everything"


def _everything(_: Any) -> bool:
    return True

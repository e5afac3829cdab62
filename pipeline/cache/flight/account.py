"""An account of one key: what L2 has of it, whether that may be served, which record ended it, what computes it. Reads only.

Not the judgement that serves: that is of the view, and counts, begins logs and fills L1. This asks the server alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from pipeline.cache.audit.evidence import script
from pipeline.cache.coherence.tail import Tail
from pipeline.cache.entry import Entry
from pipeline.cache.errors import InvalidPatternError
from pipeline.cache.flight.claims import Claim
from pipeline.cache.patterns.pattern import parse
from pipeline.cache.server.commands import Commands, Word, scored, several, text
from pipeline.cache.server.shared import RedisCache

RECORDS_A_CALL: Final = 2_000
MOST_CALLS: Final = 60

Standing = Literal["l2", "stale", "ended", "void", "absent"]


class Ended(msgspec.Struct, frozen=True):
    """A record of the log that means the key, or its dep `means`. `at`: when it was appended, in seconds since 1970 by the
    server's clock, if that is still known."""

    pattern: str
    means: str
    seq: int
    at: float | None = None


class Account(msgspec.Struct, frozen=True):
    """`standing`: `l2`, it is served; `stale`, it is past its time to live and within its grace; `ended`, by the record `ended`;
    `void`, since the log remembers less than it would need, or is another one by now; `absent`, there are no bytes of it.

    `deps`: what it was computed from, or is known to be. `fresh_s`, `kept_s`: what is left of its time to live, and of its time
    in Redis. `lease`: the owner of the lease by which it is computed now. `tasks`: the tasks in flight for it, each with the time
    that it has left there, in seconds."""

    key: str
    standing: Standing
    deps: tuple[str, ...] = ()
    created_at: float | None = None
    fresh_s: float | None = None
    kept_s: float | None = None
    ended: Ended | None = None
    lease: str | None = None
    tasks: tuple[tuple[str, float], ...] = ()
    value: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def is_known(self) -> bool:
        """Whether anything is known of it, and not only of all keys."""
        named = self.ended is not None and self.ended.pattern != "*"
        return self.standing != "absent" or named or self.lease is not None or bool(self.tasks)


class _Log(NamedTuple):
    tail: Tail | None
    records: list[tuple[str, int]]
    moments: list[tuple[bytes, float]]


def account_of(cache: RedisCache, key: str, *, deps: tuple[str, ...] = (), names: Sequence[str] = ()) -> Account:
    """`deps`: what a value of the key is computed from, for one of which no bytes are left. `names`: further names under which a
    task for it may be in flight. Raises SharedTierUnavailableError."""
    entered = (key, *names)
    raw, kept_ms, lease, claims = _look(cache, key, entered)
    entry = cache.decode(key, raw)
    log = _read_log(cache, entry)
    lease_owner = None if lease is None or (held := Claim.parse(lease)).given_back else held.owner
    tasks = tuple((Claim.parse(claim).owner, left_ms / 1000) for claim, left_ms in claims if claim is not None)
    if entry is None:
        return Account(key, "absent", deps, ended=_last(log, (key, *deps)), lease=lease_owner, tasks=tasks)
    ended = _first(log, (key, *entry.deps), entry.seq)
    fresh_s = entry.remaining_s(time.time())
    return Account(
        key,
        _standing(entry, log.tail, ended, fresh_s),
        entry.deps,
        entry.created_ms / 1000,
        fresh_s,
        kept_ms / 1000,
        ended,
        lease_owner,
        tasks,
        entry.value,
    )


def _standing(entry: Entry, tail: Tail | None, ended: Ended | None, fresh_s: float) -> Standing:
    if tail is None or tail.epoch != entry.epoch or not tail.floor <= entry.seq <= tail.seq:
        return "void"
    if ended is not None:
        return "ended"
    return "stale" if entry.grace_ms > 0 and fresh_s <= 0 else "l2"


def _look(cache: RedisCache, key: str, entered: Sequence[str]) -> tuple[bytes | None, int, bytes | None, list[Any]]:
    name, lease = cache.keys.entry(key), cache.keys.lease(key)
    claims = [cache.keys.in_flight(each) for each in entered]

    def command(client: Commands) -> list[Any]:
        with client.pipeline() as pipe:
            for each in (name, lease, *claims):
                pipe.get(each)
                pipe.pttl(each)
            return pipe.execute()

    replies = cache.connection.call(command)
    pairs = list(zip(replies[::2], replies[1::2], strict=True))
    return pairs[0][0], pairs[0][1], pairs[1][0], pairs[2:]


def _read_log(cache: RedisCache, entry: Entry | None) -> _Log:
    """The log's records that are newer than the entry; without one the newest."""
    names = [cache.keys.tail, cache.keys.records, cache.keys.moments]
    epoch, after = ("", 0) if entry is None else (entry.epoch, entry.seq)
    tail, records, moments = None, [], []
    for _ in range(MOST_CALLS):
        reply = _ask(cache, names, [epoch, after, RECORDS_A_CALL, 0])
        tail = Tail.parse(text(reply[2]) or b"")
        history = (text(reply[3]) or b"").decode(errors="replace")
        if tail is None or not tail.epoch.startswith(history) or (epoch and tail.epoch != epoch):
            return _Log(None if tail is None or not tail.epoch.startswith(history) else tail, [], [])
        portion = [
            (pattern.decode(errors="replace"), int(seq)) for pattern, seq in scored(reply[5]) if pattern and math.isfinite(seq)
        ]
        records += portion
        moments += scored(reply[6])
        if not epoch or len(portion) < RECORDS_A_CALL:
            break
        after = portion[-1][1]
    return _Log(tail, sorted(records, key=lambda record: record[1]), moments)


def _ask(cache: RedisCache, names: list[bytes], words: list[Word]) -> list[Any]:
    return cache.connection.call(lambda client: script().run(client, names, words, several(7)))


def _meant(log: _Log, keys: Sequence[str], since: int) -> Iterator[Ended]:
    for pattern, seq in log.records:
        if seq <= since:
            continue
        try:
            matches = parse(pattern).matcher()
        except InvalidPatternError:
            matches = _everything  # a foreign program's: a cache takes it for "everything"
        means = next((key for key in keys if matches(key)), None)
        if means is not None:
            yield Ended(pattern, means, seq, _moment(log, seq))


def _first(log: _Log, keys: Sequence[str], since: int) -> Ended | None:
    return next(_meant(log, keys, since), None)


def _last(log: _Log, keys: Sequence[str]) -> Ended | None:
    last = None
    for last in _meant(log, keys, 0):  # noqa: B007 - the last of them
        pass
    return last


def _moment(log: _Log, seq: int) -> float | None:
    """When an append took the log there, of the appends that the server still tells of."""
    for member, at_us in log.moments:
        epoch, _, span = member.decode(errors="replace").partition(":")
        before, _, after = span.partition(":")
        numbers = before.isdecimal() and after.isdecimal()
        if log.tail is not None and epoch == log.tail.epoch and numbers and int(before) < seq <= int(after):
            return at_us / 1e6
    return None


def _everything(_: str) -> bool:
    return True

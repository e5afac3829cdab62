"""The account of a key as a document."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any, Final

import msgspec

from pipeline.cache.flight.account import Account, Ended, account_of
from pipeline.cache.server.shared import RedisCache
from pipeline.figures import FigureKeys
from pipeline.figures.reading import who_invalidated
from pipeline.settings import Settings
from workers.explain.unknown import NothingKnownError
from workers.queue.names import BULK_QUEUE

TIMEOUT_S: Final = 2.0
SHOWN_OF_VALUES: Final = ("persona", "model", "language", "slug", "version", "catalog")
"""What is told of a value: by whom and by what it was made. Its text is not."""
STANDINGS: Final = {
    "l2": "l2, and l1 of each process that has it there",
    "stale": "l2, past its time to live, while it is computed anew",
    "ended": "none: it was invalidated",
    "void": "none: the log is another one by now, or has forgotten what it would be judged by (the cache's server began anew)",
    "absent": "none: the next request computes it",
}


def account_of_key(settings: Settings, key: str, deps: tuple[str, ...], *, must_be_known: bool = True) -> dict[str, Any]:
    """`deps`: what a value of the key is computed from, as far as the key tells. Raises SharedTierUnavailableError, and
    NothingKnownError unless the key is certain to be one that requests lead to."""
    cache = RedisCache(url=settings.cache_url, namespace=settings.cache_namespace, timeout_s=TIMEOUT_S)
    with closing(cache.connection):
        account = account_of(cache, key, deps=deps, names=(f"{BULK_QUEUE} {key}",))
        if must_be_known and not account.is_known:
            raise NothingKnownError("key", "nothing is known of it: no tier has it, nothing has ended it, nobody computes it")
        ended = None if account.ended is None else _ended(settings, cache, account.ended)
    now_s = time.time()
    served = account.standing in ("l2", "stale")
    return {
        "key": key,
        "served_by": STANDINGS[account.standing],
        "standing": account.standing,
        "fresh_until": now_s + account.fresh_s if account.standing == "l2" and account.fresh_s is not None else None,
        "kept_until": now_s + account.kept_s if served and account.kept_s is not None else None,
        "computed_at": account.created_at,
        "computed_from": list(account.deps),
        "made_by": _made_by(account),
        "ended_by": ended,
        "computed_by": _computed_by(account),
        "notes": ["no entry says which release made it; an answer's key stands for prompts, model and parameters"],
    }


def _made_by(account: Account) -> dict[str, str] | None:
    try:
        value = msgspec.json.decode(account.value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    return {name: value[name] for name in SHOWN_OF_VALUES if isinstance(value.get(name), str)} or None


def _ended(settings: Settings, cache: RedisCache, ended: Ended) -> dict[str, Any]:
    row = who_invalidated(cache.connection, FigureKeys(settings.cache_namespace), ended.pattern, ended.at)
    at = ended.at if ended.at is not None or row is None else row.at
    return {"pattern": ended.pattern, "means": ended.means, "seq": ended.seq, "at": at, "by": None if row is None else row.by}


def _computed_by(account: Account) -> dict[str, Any] | None:
    tasks = [task for task, _ in account.tasks]
    if account.lease is None and not tasks:
        return None
    return {"process": "one holds its lease" if account.lease is not None else None, "tasks": tasks}

"""The account of a key as a document."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from pipeline.cache.flight.account import Account, Ended
    from pipeline.cache.server.shared import RedisCache
    from pipeline.settings import Settings

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


def document_of(settings: Settings, key: str, deps: tuple[str, ...]) -> dict[str, Any]:
    """`known`: whether anything is. Raises SharedTierUnavailableError."""
    from pipeline.cache.flight.account import account_of
    from pipeline.cache.server.shared import RedisCache
    from workers.queue.names import BULK_QUEUE

    cache = RedisCache(url=settings.cache_url, namespace=settings.cache_namespace, timeout_s=TIMEOUT_S)
    with closing(cache.connection):
        account = account_of(cache, key, deps=deps, names=(f"{BULK_QUEUE} {key}",))
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
        "known": account.is_known,
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
    from pipeline.figures import FigureKeys
    from pipeline.figures.reading import who_invalidated

    row = who_invalidated(cache.connection, FigureKeys(settings.cache_namespace), ended.pattern, ended.at)
    at = ended.at if ended.at is not None or row is None else row.at
    return {"pattern": ended.pattern, "means": ended.means, "seq": ended.seq, "at": at, "by": None if row is None else row.by}


def _computed_by(account: Account) -> dict[str, Any] | None:
    tasks = [task for task, _ in account.tasks]
    if account.lease is None and not tasks:
        return None
    return {"process": "one holds its lease" if account.lease is not None else None, "tasks": tasks}

"""The invalidation log, and what the auditor has found."""

from __future__ import annotations

from typing import Any

from redis.exceptions import NoPermissionError, ResponseError

from pipeline.cache.coherence.registry import ALIVE_MS
from pipeline.cache.coherence.tail import Tail
from pipeline.cache.keys import KeySpace
from pipeline.figures import FigureKeys
from pipeline.figures.fields import AUDITED, STALE_SERVES, Sums
from workers.doctor.seen import Log


def log_at(client: Any, namespace: str) -> Log:
    """Raises RedisError but for a right that is missing."""
    keys = KeySpace(namespace)
    try:
        raw = client.get(keys.tail)
        seconds, micros = client.time()
        since = int(seconds) * 1000 + int(micros) // 1000 - ALIVE_MS
        alive = client.zrangebyscore(keys.nodes, since, "+inf")
        records = max(0, int(client.zcard(keys.records)) - 1)
        audit = Sums(client.hgetall(FigureKeys(namespace).ever))
        history = str(client.info("replication").get("master_replid", ""))[:8]
    except NoPermissionError as error:
        return Log(denied=str(error)[:60])
    except ResponseError as error:
        return Log(malformed="WRONGTYPE" in str(error), denied=str(error)[:60])
    tail = Tail.parse(raw) if raw is not None else None
    return Log(
        tail=None if raw is None else raw.decode(errors="replace")[:40],
        epoch="" if tail is None else tail.epoch,
        seq=-1 if tail is None else tail.seq,
        malformed=raw is not None and tail is None,
        of_here=tail is None or not history or tail.epoch.startswith(history),
        records=records,
        alive=tuple(sorted(name.decode(errors="replace") for name in alive if name)),
        checks=audit.count(AUDITED),
        stale=audit.count(STALE_SERVES),
    )

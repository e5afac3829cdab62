"""What a user of a server may not do, of the commands that a part needs. Runs none of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from redis.exceptions import NoPermissionError, ResponseError

from pipeline.cache.keys import KeySpace
from workers.queue.broadcast import ROUTING_KEY, exchange_of
from workers.queue.names import QUEUE

Need = Sequence[str | bytes]

_NONE: Final = "none"


def refused(client: Any, needs: Iterable[Need]) -> tuple[str, ...]:
    """The names of the commands that this user may not run, sorted. `client` is one of redis-py. Raises RedisError and OSError.

    Each is queued in a transaction that is never executed: the server checks a user's rights when it queues, and nothing changes.
    """
    pool = client.connection_pool
    connection = pool.get_connection()
    found = set()
    try:
        commands = [("MULTI",), *needs]
        connection.send_packed_command(connection.pack_commands(commands))
        for need in commands:
            try:
                connection.read_response()
            except NoPermissionError:
                found.add(str(need[0]))
            except ResponseError:
                continue  # it is full, read-only or older: that is not a question of rights
    finally:
        connection.disconnect()  # with it goes the transaction
        pool.release(connection)
    return tuple(sorted(found))


def to_ask(namespace: str, database: int) -> tuple[Need, ...]:
    """Of a program that queues tasks, at the broker."""
    exchange = exchange_of(namespace).name
    return (
        ("LPUSH", QUEUE, _NONE),
        ("LLEN", QUEUE),
        ("SADD", f"_kombu.binding.{QUEUE}", _NONE),
        ("PUBLISH", f"/{database}.{exchange}/{ROUTING_KEY}", _NONE),
    )


def to_be_answered() -> tuple[Need, ...]:
    """Of a program that waits for results, at their server."""
    return (("GET", "celery-task-meta-none"), ("SUBSCRIBE", "celery-task-meta-none"))


def to_work(database: int) -> tuple[Need, ...]:
    """Of a worker that claims messages, at the broker."""
    claims = "persona.fetch.claims:none"
    return (
        ("BLMOVE", QUEUE, claims, "RIGHT", "LEFT", "1"),
        ("LREM", claims, "1", _NONE),
        ("LPOS", QUEUE, _NONE),
        ("LRANGE", claims, "0", "1"),
        ("RPUSH", QUEUE, _NONE),
        ("LPUSH", QUEUE, _NONE),
        ("EVAL", "return 1", "0"),
        ("EVALSHA", "0" * 40, "0"),
        ("ZADD", "persona.fetch.nodes", "1", _NONE),
        ("SMEMBERS", "persona.fetch.sources:none"),
        ("SADD", f"_kombu.binding.{QUEUE}", _NONE),
        ("SREM", f"_kombu.binding.{QUEUE}", _NONE),
        ("PUBLISH", f"/{database}.celeryev/worker.heartbeat", _NONE),
        ("PSUBSCRIBE", f"/{database}.celery.pidbox"),
        ("TIME",),
        ("DEL", f"_kombu.binding.{_NONE}"),
    )


def to_cache(namespace: str, database: int) -> tuple[Need, ...]:
    """Of every program that has the cache, at its server."""
    keys = KeySpace(namespace)
    entry = keys.entry(_NONE)
    return (
        ("GET", entry),
        ("GETEX", keys.tail),
        ("SET", entry, _NONE),
        ("UNLINK", entry),
        ("DEL", keys.lease(_NONE)),
        ("PEXPIRE", keys.records, "1000"),
        ("EVAL", "return 1", "0"),
        ("EVALSHA", "0" * 40, "0"),
        ("EXISTS", keys.tail),
        ("ZADD", keys.records, "1", _NONE),
        ("ZRANGEBYSCORE", keys.records, "0", "1"),
        ("ZSCORE", keys.records, _NONE),
        ("TOUCH", keys.records),
        ("SCAN", "0"),
        ("TIME",),
        ("INFO", "replication"),
        ("PUBLISH", keys.notices(database), _NONE),
        ("SUBSCRIBE", keys.notices(database)),
    )

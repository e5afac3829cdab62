"""The nodes, by remote control."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

import msgspec
from kombu.exceptions import OperationalError
from redis.exceptions import NoPermissionError, RedisError

from pipeline.cache.coherence.registry import settle_s
from pipeline.settings import Settings
from workers.doctor.seen import Log, Nodes, Stranger, Told
from workers.install.standing import COMMAND
from workers.queue.factory import make_app
from workers.queue.reach import bound_waits

QUIET_S: Final = 1.0
"""A reply is waited for as long as another has come within that time."""
BUSY_S: Final = 3.0
"""The same, if one that is alive has not replied."""


def nodes_of(settings: Settings, read_log: Callable[[], Log | None], patience_s: float) -> Nodes:
    """Never raises because the broker is away. `read_log` is asked before the nodes are: they must stand there, or beyond."""
    log = read_log()
    began_s = time.monotonic()
    with closing(make_app(settings)) as app:
        bound_waits(app)
        quiet_s = min(QUIET_S, patience_s / 2)
        try:
            told, strangers = _ask(app, quiet_s)
            if not told or (log is not None and {*log.alive} - {each.node for each in told}):
                # Busy ones may take longer.
                late, others = _ask(app, min(BUSY_S, patience_s / 3))
                told, strangers = _both(told, late), _both(strangers, others)
            if log is not None and _behind(told, log):
                # What it has missed it learns with its next beat.
                pause_s = settle_s(settings.staleness_bound_s) - (time.monotonic() - began_s)
                if pause_s + quiet_s < patience_s:
                    time.sleep(max(0.0, pause_s))
                    again = {each.name for each in _behind(_ask(app, quiet_s)[0], log)}
                    told = tuple(
                        msgspec.structs.replace(each, lags=log.seq - each.seq) if each.name in again else each for each in told
                    )
        except NoPermissionError:
            return Nodes(denied=True)
        except (OperationalError, RedisError, OSError) as error:
            return Nodes(away=type(error).__name__)
    return Nodes(told=told, strangers=strangers)


def _both(first: tuple[Any, ...], second: tuple[Any, ...]) -> tuple[Any, ...]:
    """Each by its name once, as it was the second time."""
    named = {each.name: each for each in (*first, *second)}
    return tuple(named[name] for name in sorted(named))


def _behind(told: tuple[Told, ...], log: Log) -> list[Told]:
    return [each for each in told if each.epoch == log.epoch and each.seq < log.seq]


def _ask(app: Any, quiet_s: float) -> tuple[tuple[Told, ...], tuple[Stranger, ...]]:
    came: list[tuple[float, dict[str, Any]]] = []
    began_s = time.time()
    app.control.broadcast(COMMAND, reply=True, timeout=quiet_s, callback=lambda reply: came.append((time.time(), reply)))
    told: list[Told] = []
    others: list[str] = []
    for at_s, reply in came:
        for name, fields in reply.items():
            each = _told(name, fields, began_s, at_s)
            if each is None or not each.node:
                others.append(name)
            else:
                told.append(each)
    queues = app.control.inspect(destination=others, timeout=quiet_s).active_queues() if others else {}
    strangers = [
        Stranger(name=name, queues=tuple(sorted(str(queue.get("name")) for queue in (queues or {}).get(name) or ())))
        for name in sorted(others)
    ]
    return tuple(sorted(told, key=lambda each: each.name)), tuple(strangers)


def _told(name: str, fields: Any, began_s: float, at_s: float) -> Told | None:
    """None for a reply of something else, or of a release that tells otherwise."""
    if not isinstance(fields, dict) or "error" in fields:
        return None
    clock_s = fields.get("clock_s")
    # It was told between the question and the reply.
    skew_s = 0.0
    if isinstance(clock_s, int | float):
        skew_s = clock_s - at_s if clock_s > at_s else min(0.0, clock_s - began_s)
    try:
        return msgspec.convert({**fields, "name": name, "skew_s": skew_s}, type=Told, strict=False)
    except msgspec.ValidationError:
        return None

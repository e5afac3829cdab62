"""All looks at once, each in a thread, and none waited for beyond the bound."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any, Final

from redis.exceptions import RedisError

from pipeline.cache.keys import KeySpace
from pipeline.cache.server.address import Address
from pipeline.errors import ConfigurationError
from pipeline.settings import Settings
from workers.doctor.looks.beat import beat_at
from workers.doctor.looks.host import showing, unlocked_beats
from workers.doctor.looks.log import log_at
from workers.doctor.looks.nodes import nodes_of
from workers.doctor.looks.server import client_of, look_at
from workers.doctor.looks.site import flower_at, model_at
from workers.doctor.looks.waiting import kept_under, waiting_at
from workers.doctor.seen import Kept, Log, Nodes, Seen, Waiting
from workers.install.rights import to_ask, to_be_answered, to_cache
from workers.install.standing import secrets_of
from workers.queue.factory import not_obeyed
from workers.queue.names import QUEUES

MODEL_S: Final = 1.0
"""How soon a model's endpoint must say which models it has."""
CALL_S: Final = 2.0
"""How long one call to a server may take."""
RESULTS: Final = b"celery-task-meta-"
LOOK_AT_ONE: Final = "LINDEX"
SERVERS: Final = ("broker", "results", "cache")

Look = Callable[[], Any]


def observe(settings: Settings, timeout_s: float, flower_url: str = "") -> Seen:
    """All that can be seen within that time. Changes nothing: of remote control there is a reply queue for a moment."""
    looks = looks_of(settings, timeout_s, flower_url)
    found = _at_once(looks, timeout_s)
    return _assembled(settings, found, tuple(name for name in looks if name not in found), flower_url)


def looks_of(settings: Settings, timeout_s: float, flower_url: str) -> dict[str, Look]:
    """By name; each bounds itself, as far as its library lets it. Raises ConfigurationError for a URL that does not fit."""
    call_s = min(CALL_S, timeout_s / 3)
    looks: dict[str, Look] = {
        "nodes": lambda: nodes_of(settings, lambda: _log(settings, call_s), 0.9 * timeout_s),
        "host": lambda: (showing(secrets_of(settings)), unlocked_beats(settings)),
    }
    queue, results = settings.broker_url, settings.result_backend_url
    if queue.startswith("redis"):
        needs = to_ask(settings.cache_namespace, _database("PERSONA_BROKER_URL", queue))
        looks["broker"] = lambda: look_at("broker", queue, needs, call_s)
        looks["queues"] = lambda: _with(queue, call_s, lambda client: waiting_at(client, QUEUES))
        looks["beat"] = lambda: _with(queue, call_s, beat_at)
    if results.startswith("redis"):
        looks["results"] = lambda: look_at("results", results, to_be_answered(), call_s)
        looks["kept results"] = lambda: _with(results, call_s, lambda client: kept_under(client, RESULTS))
    if cache := settings.cache_url:
        cache_needs = to_cache(settings.cache_namespace, _database("PERSONA_CACHE_URL", cache))
        looks["cache"] = lambda: look_at("cache", cache, cache_needs, call_s)
        looks["log"] = lambda: _log(settings, call_s)
        entries = KeySpace(settings.cache_namespace).entry("").removesuffix(b"e:")
        looks["kept entries"] = lambda: _with(cache, call_s, lambda client: kept_under(client, entries))
    if settings.llm_url and not settings.responder:
        looks["model"] = lambda: model_at(settings.llm_url, settings.llm_api_key.get_secret_value(), min(MODEL_S, timeout_s))
    if flower_url:
        looks["flower"] = lambda: flower_at(flower_url, call_s)
    return looks


def _assembled(settings: Settings, found: Mapping[str, Any], late: tuple[str, ...], flower_url: str) -> Seen:
    shown, unlocked = found.get("host") or ((), ())
    beat = found.get("beat")
    waiting = with_told(found.get("queues") or Waiting(), found.get("nodes"))
    results, entries = found.get("kept results") or Kept(), found.get("kept entries") or Kept()
    servers = {name: found.get(name) for name in SERVERS}
    return Seen(
        settings=settings,
        **servers,
        waiting=waiting,
        kept_results=results,
        kept_entries=entries,
        log=found.get("log"),
        nodes=found.get("nodes"),
        beat=None if beat is None else replace(beat, unlocked=unlocked),
        flower=found.get("flower"),
        model=found.get("model"),
        showing=shown,
        variables=tuple(not_obeyed(settings)),
        late=late,
        unseen=tuple(_unseen(settings, found, flower_url)),
    )


def with_told(waiting: Waiting, nodes: Nodes | None) -> Waiting:
    """With what the workers tell of how long messages wait, where this user may not look at a message."""
    if LOOK_AT_ONE not in waiting.denied or nodes is None or not nodes.told:
        return waiting
    told = [item for node in nodes.told if node.product for item in node.waits_s.items()]
    oldest = {queue: max(wait_s for name, wait_s in told if name == queue) for queue, _ in told}
    return replace(waiting, oldest_s=oldest, denied=tuple(word for word in waiting.denied if word != LOOK_AT_ONE))


def _unseen(settings: Settings, found: Mapping[str, Any], flower_url: str) -> Iterator[str]:
    """What could not be looked at, and why."""
    known = [server for name in SERVERS if (server := found.get(name)) is not None and server.known]
    if not settings.broker_url.startswith("redis"):
        yield "broker: it is not Redis; look at its queues and policies with its own tools"
    if blind := [server.part for server in known if server.config is None]:
        yield f"CONFIG (save, timeout, bind, buffer limits): refused by {', '.join(blind)}"
    if blind := [server.part for server in known if not server.info]:
        yield f"INFO (memory, policy, role): refused by {', '.join(blind)}"
    waiting, nodes, beat, log = (found.get(name) for name in ("queues", "nodes", "beat", "log"))
    if waiting is not None and waiting.denied:
        denied = with_told(waiting, nodes).denied
        yield from [f"queues: {', '.join(denied)} refused to this user"] * bool(denied)
    if nodes is not None and nodes.denied:
        yield "nodes: remote control is refused to this user"
    if beat is not None and not beat.known:
        yield "beat: its lock and schedule are refused to this user"
    if log is not None and log.denied and not log.malformed:
        yield f"log: {log.denied}"
    if any(kept is not None and kept.denied for kept in (found.get("kept results"), found.get("kept entries"))):
        yield "keys without an end: SCAN is refused to this user"
    if not flower_url:
        yield "flower: its address is not known; give it by --flower"


def _at_once(looks: Mapping[str, Look], timeout_s: float) -> dict[str, Any]:
    """What came within the bound; None of a part that is away, which its server's own look says. Raises a bug of a look."""
    found: dict[str, Any] = {}
    failed: list[Exception] = []

    def run(name: str, look: Look) -> None:
        try:
            found[name] = look()
        except (RedisError, OSError):
            found[name] = None
        except Exception as error:  # noqa: BLE001 - raised again below, in the thread that asked
            failed.append(error)

    threads = [threading.Thread(target=run, args=item, name=f"look-{item[0]}", daemon=True) for item in looks.items()]
    for thread in threads:
        thread.start()
    ends_s = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, ends_s - time.monotonic()))
    if failed:
        raise failed[0]
    return dict(found)  # a thread that is late may add to the other


def _database(variable: str, url: str) -> int:
    try:
        return Address.parse(url).database
    except ValueError as error:  # an option that Celery alone knows
        raise ConfigurationError(f"{variable}: {error}") from None


def _with(url: str, call_s: float, look: Callable[[Any], Any]) -> Any:
    with closing(client_of(url, call_s)) as client:
        return look(client)


def _log(settings: Settings, call_s: float) -> Log | None:
    if not settings.cache_url:
        return None
    try:
        found: Log = _with(settings.cache_url, call_s, lambda client: log_at(client, settings.cache_namespace))
    except (RedisError, OSError):
        return None
    return found

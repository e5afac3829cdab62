"""Of the cache's server: that it gives up what is least asked for, and keeps nothing over a restart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from workers.doctor.checks.keeping import shown_bytes, used
from workers.doctor.finding import Finding, error, several, warning
from workers.doctor.seen import Seen, Server

FULL: Final = 0.95


def none(seen: Seen) -> Finding | None:
    if seen.settings.cache_url:
        return None
    why = "Each process has a cache of its own: the same answer is computed many times, and no figures are kept."
    return warning("cache", "none", "PERSONA_CACHE_URL is not set", why, "Set PERSONA_CACHE_URL, or start a stack: persona up")


def is_brokers(seen: Seen) -> Finding | None:
    if seen.cache is None or seen.broker is None or not seen.cache.known or seen.cache.identity != seen.broker.identity:
        return None
    why = "One server cannot both keep every task and give up entries: one of the two is lost when it is full."
    mend = "Start a second server for the cache, and name it in PERSONA_CACHE_URL"
    return error("cache", "is-brokers", f"{seen.cache.where} is the broker, too", why, mend)


def persists(server: Server) -> Finding | None:
    save = (server.config or {}).get("save", "").strip()
    files = [*(["appendonly yes"] if server.number("aof_enabled") else []), *([f"save {save}"] if save else [])]
    if not files:
        return None
    why = "After a restart it brings back entries whose log is gone: all are misses, and it pays for the file."
    mend = f"{server.cli} CONFIG SET {'appendonly no' if server.number('aof_enabled') else _NO_SAVE}"
    return warning("cache", "persists", ", ".join(files), why, mend)


def never_evicts(server: Server) -> Finding | None:
    if server.text("maxmemory_policy") != "noeviction" or not server.number("maxmemory"):
        return None
    why = "Once it is full it refuses entries and invalidations, which then are not durable."
    mend = f"{server.cli} CONFIG SET maxmemory-policy allkeys-lfu"
    return error("cache", "never-evicts", f"maxmemory-policy noeviction, {shown_bytes(server.number('maxmemory'))}", why, mend)


def unbounded(server: Server) -> Finding | None:
    if "maxmemory" not in server.info or server.number("maxmemory"):
        return None
    why = "It grows until its host has no memory left, and is killed."
    return warning("cache", "unbounded", "maxmemory 0", why, f"{server.cli} CONFIG SET maxmemory 384mb")


def evicts_blindly(server: Server) -> Finding | None:
    policy = server.text("maxmemory_policy")
    if policy in ("", "noeviction", "allkeys-lfu", "allkeys-lru", "volatile-lfu", "volatile-lru"):
        return None
    why = "It may evict the invalidation log before entries: then every entry becomes a miss at once."
    mend = f"{server.cli} CONFIG SET maxmemory-policy allkeys-lfu"
    return warning("cache", "evicts-blindly", f"maxmemory-policy {policy}", why, mend)


def full(server: Server) -> Finding | None:
    share = used(server)
    if share < FULL or server.text("maxmemory_policy") != "noeviction":
        return None
    why = "It refuses invalidations now: each process keeps its own until there is room, and others serve stale."
    mend = f"{server.cli} CONFIG SET maxmemory {shown_bytes(2 * server.number('maxmemory'))}"
    return error("cache", "full", f"{share:.0%} of {shown_bytes(server.number('maxmemory'))} used, noeviction", why, mend)


def endless(seen: Seen) -> Finding | None:
    kept = seen.kept_entries
    if not kept.endless_count:
        return None
    where = f"{kept.endless_count} of {kept.looked_at} names that were looked at, such as {several(list(kept.endless), 1)}"
    why = "They stay for ever: another program writes under this namespace, or a release did that is gone."
    mend = f"Delete them, or give the other program another namespace than {seen.settings.cache_namespace}"
    return warning("cache", "endless", where, why, mend)


_NO_SAVE: Final = 'save ""'
CHECKS: Final[tuple[Callable[[Server], Finding | None], ...]] = (persists, never_evicts, unbounded, evicts_blindly, full)
BY_ALL: Final[tuple[Callable[[Seen], Finding | None], ...]] = (none, is_brokers, endless)

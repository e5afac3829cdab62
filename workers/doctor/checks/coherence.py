"""Of the log and those that follow it: that nobody serves what was invalidated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pipeline.cache.coherence.identity import name_of
from pipeline.cache.coherence.tail import MAX_RECORDS
from workers.doctor.finding import Finding, error, several, warning
from workers.doctor.seen import Seen, Told

LONG: Final = 0.9
SKEW_S: Final = 2.0


def log_unreadable(seen: Seen) -> Finding | None:
    if seen.log is None or not seen.log.malformed:
        return None
    shown = f"its tail is {seen.log.tail!r}" if seen.log.tail else "its tail is of another type"
    why = "Another program uses the log's key: no invalidation can be kept, and none is known."
    mend = "Give one of the two another PERSONA_CACHE_NAMESPACE, and delete that key"
    return error("coherence", "log-unreadable", shown, why, mend)


def log_missing(seen: Seen) -> Finding | None:
    if seen.log is None or seen.log.denied or seen.log.tail is not None or not seen.log.alive:
        return None
    why = "Nodes are alive and the log is not there: the server drops it, and every entry becomes a miss each time."
    return warning(
        "coherence", "log-missing", f"no tail, {len(seen.log.alive)} nodes", why, "Look at the cache's maxmemory and policy"
    )


def log_of_another(seen: Seen) -> Finding | None:
    if seen.log is None or seen.log.of_here or not seen.log.alive:
        return None
    why = "The server was restarted from a file or promoted, and no node has begun the log anew: none reaches it."
    return warning("coherence", "log-of-another", f"epoch {seen.log.epoch}", why, "Restart the workers, and see their logs")


def log_long(seen: Seen) -> Finding | None:
    if seen.log is None or seen.log.records < LONG * MAX_RECORDS:
        return None
    why = "Beyond the most records the oldest go, and with them every entry that is older."
    mend = "Invalidate by pattern (persona:lua:*) rather than key by key"
    return warning("coherence", "log-long", f"{seen.log.records} of {MAX_RECORDS} records", why, mend)


def other_log(seen: Seen) -> Finding | None:
    if seen.log is None or not seen.log.epoch:
        return None
    found = [node.name for node in _here(seen) if node.epoch and node.epoch != seen.log.epoch]
    if not found:
        return None
    why = "These nodes follow the log of another server or database: what is invalidated here they serve on."
    return error("coherence", "other-log", several(found), why, "Set PERSONA_CACHE_URL alike everywhere")


def follows_none(seen: Seen) -> Finding | None:
    if seen.log is None:
        return None
    found = [node.name for node in _here(seen) if not node.epoch]
    if not found:
        return None
    why = "These nodes have never reached the log: they compute everything, and learn of no invalidation."
    return error("coherence", "follows-none", several(found), why, "Set PERSONA_CACHE_URL there, and see their logs")


def lags(seen: Seen) -> Finding | None:
    found = [f"{node.name} by {node.lags}" for node in _here(seen) if node.lags > 0]
    if not found:
        return None
    why = "These nodes do not know of the last invalidations, although the bound is over."
    return error("coherence", "lags", several(found), why, "Restart them, and see their logs for cache.*")


def silent(seen: Seen) -> Finding | None:
    if seen.log is None or seen.nodes is None or seen.nodes.away or seen.nodes.denied:
        return None
    told = {node.node for node in seen.nodes.told}
    # A pool of one thread answers only between its tasks; a web server's parent has no such id.
    found = [name_of(node) for node in seen.log.alive if node not in told]
    if not found:
        return None
    why = "They follow the log and do not answer remote control: busy in the solo pool, frozen, or on another broker."
    return warning("coherence", "silent", several(found), why, "celery -A persona_worker inspect ping")


def stale(seen: Seen) -> Finding | None:
    if seen.log is None or not seen.log.stale:
        return None
    why = "The auditor has found answers that were served although they were invalidated, beyond the bound."
    shown = f"{seen.log.stale} of {seen.log.checks} checks since the figures began"
    return error("coherence", "stale", shown, why, "Follow docs/operations.md, PersonaStaleServe")


def clocks(seen: Seen) -> Finding | None:
    found = [
        f"{node.name} {abs(node.skew_s):.1f} s {'ahead' if node.skew_s > 0 else 'behind'}"
        for node in ([] if seen.nodes is None else seen.nodes.told)
        if abs(node.skew_s) > SKEW_S
    ]
    if not found:
        return None
    why = "Tasks expire too soon or too late there, and waits are reckoned wrong."
    return warning("clocks", "nodes-skewed", several(found), why, "chronyc makestep, on those hosts")


def servers_apart(seen: Seen) -> Finding | None:
    known = [server for server in (seen.broker, seen.cache) if server is not None and server.known]
    if len(known) < 2:
        return None
    apart_s = abs(known[0].skew_s - known[1].skew_s) - sum(server.round_trip_s for server in known) / 2
    # Of one that disagrees with this machine alone, the server's own finding speaks.
    if apart_s <= SKEW_S:
        return None
    why = "Figures, the log and the queue are timed by clocks that disagree."
    return warning(
        "clocks", "servers-apart", f"broker and cache are {apart_s:.1f} s apart", why, "chronyc makestep, on their hosts"
    )


def _here(seen: Seen) -> list[Told]:
    """Those that are to follow this log; the namespaces of the others are a finding of their own."""
    if seen.nodes is None or not seen.settings.cache_url:
        return []
    return [node for node in seen.nodes.told if node.namespace == seen.settings.cache_namespace]


CHECKS: Final[tuple[Callable[[Seen], Finding | None], ...]] = (
    log_unreadable,
    log_missing,
    log_of_another,
    log_long,
    other_log,
    follows_none,
    lags,
    silent,
    stale,
    clocks,
    servers_apart,
)

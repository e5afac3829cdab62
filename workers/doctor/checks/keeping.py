"""Of the servers that are to lose nothing: the broker, and that of the results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from workers.doctor.finding import Finding, error, warning
from workers.doctor.seen import Seen, Server

NEAR: Final = 0.7


def evicts(server: Server) -> Finding | None:
    policy = server.text("maxmemory_policy")
    if policy in ("", "noeviction"):
        return None
    what = "tasks that wait" if server.part == "broker" else "results before their callers have them"
    why = f"When its memory is full it drops {what}, and tells nobody."
    mend = f"{server.cli} CONFIG SET maxmemory-policy noeviction"
    return error(server.part, "evicts", f"maxmemory-policy {policy}", why, mend)


def keeps_no_file(server: Server) -> Finding | None:
    if "aof_enabled" not in server.info or server.number("aof_enabled"):
        return None
    if server.config is None or server.config.get("save", "").strip():
        return None  # see `snapshots_only`
    lost = "every task that waits" if server.part == "broker" else "every result that is not yet read"
    mend = f"{server.cli} CONFIG SET appendonly yes"
    return error(server.part, "keeps-no-file", 'appendonly no, save ""', f"A restart of this server loses {lost}.", mend)


def snapshots_only(server: Server) -> Finding | None:
    if "aof_enabled" not in server.info or server.number("aof_enabled"):
        return None
    if server.config is not None and not server.config.get("save", "").strip():
        return None  # see `keeps_no_file`
    seen = "appendonly no" + (f", save {server.config.get('save')}" if server.config else "")
    why = "A crash of this server loses what came since its last snapshot, minutes of tasks."
    return warning(server.part, "snapshots-only", seen, why, f"{server.cli} CONFIG SET appendonly yes")


def cannot_write(server: Server) -> Finding | None:
    states = ("aof_last_write_status", "rdb_last_bgsave_status", "aof_last_bgrewrite_status")
    failed = [name for name in states if server.text(name) not in ("", "ok")]
    if not failed:
        return None
    why = "It cannot write its file: it refuses new tasks, and a restart loses what is not in it."
    return error(server.part, "cannot-write", f"{failed[0]} {server.text(failed[0])}", why, "Free its disk: df -h, on its host")


def never_syncs(server: Server) -> Finding | None:
    if not server.number("aof_enabled") or (server.config or {}).get("appendfsync") != "no":
        return None
    why = "When its host dies, up to half a minute of what it acknowledged is lost."
    return warning(server.part, "never-syncs", "appendfsync no", why, f"{server.cli} CONFIG SET appendfsync everysec")


def used(server: Server) -> float:
    """The share of its memory that counts for the limit; 0 without a limit."""
    most = server.number("maxmemory")
    return (server.number("used_memory") - server.number("mem_not_counted_for_evict")) / most if most else 0.0


def full(seen: Seen, server: Server) -> Finding | None:
    share = used(server)
    if share < seen.settings.queue_full_at:
        return None
    shown = f"{share:.0%} of {shown_bytes(server.number('maxmemory'))} used"
    what = "Clients queue nothing more" if server.part == "broker" else "Results are kept for 10 s at most"
    why = f"{what} from {seen.settings.queue_full_at:.0%} on (PERSONA_QUEUE_FULL_AT)."
    mend = f"{server.cli} CONFIG SET maxmemory {shown_bytes(2 * server.number('maxmemory'))}"
    return error(server.part, "full", shown, why, mend)


def nearly_full(seen: Seen, server: Server) -> Finding | None:
    share = used(server)
    if not min(NEAR, seen.settings.queue_full_at) <= share < seen.settings.queue_full_at:
        return None
    why = "Results are kept shorter by now, and soon no task is queued any more."
    mend = f"{server.cli} CONFIG SET maxmemory {shown_bytes(2 * server.number('maxmemory'))}"
    shown = f"{share:.0%} of {shown_bytes(server.number('maxmemory'))} used"
    return warning(server.part, "nearly-full", shown, why, mend)


def shown_bytes(count: int) -> str:
    return f"{count >> 20}mb" if count >= 1 << 20 else f"{count >> 10}kb"


CHECKS: Final[tuple[Callable[[Server], Finding | None], ...]] = (
    evicts,
    keeps_no_file,
    snapshots_only,
    cannot_write,
    never_syncs,
)
BY_SETTINGS: Final[tuple[Callable[[Seen, Server], Finding | None], ...]] = (full, nearly_full)

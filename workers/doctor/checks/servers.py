"""Of every server: that it answers, is the right one, lets the right ones in, and keeps connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from workers.doctor.finding import Finding, error, warning
from workers.doctor.seen import Server
from workers.install.rights import to_be_answered

OLDEST: Final = (6, 2)
LEAST_IDLE_S: Final = 300
"""A node's connections are used every few seconds; a program's may rest for minutes between two questions."""
LEAST_PUBSUB_BYTES: Final = 1_000_000
"""Two hundred notices of the longest kind."""
CLIENTS_SHARE: Final = 0.9
SKEW_S: Final = 2.0
"""What the queue's own reckoning bears between two clocks."""


def away(server: Server) -> Finding | None:
    if not server.away or server.crowded:
        return None
    why = {
        "broker": "Nothing is queued and no worker takes anything while it is away.",
        "results": "Nobody learns what came of a task while it is away.",
    }.get(server.part, "Answers are computed anew, and an invalidation is not durable while it is away.")
    return error(server.part, "away", f"{server.where}: {server.away}", why, f"{server.cli} PING")


def refuses_login(server: Server) -> Finding | None:
    if not server.login:
        return None
    why = "It lets nobody in by this URL, so that every program of this setting fails."
    mend = f"Set the user and password in {variable_of(server.part)}"
    return error(server.part, "refuses-login", f"{server.where}: {server.login}", why, mend)


def too_old(server: Server) -> Finding | None:
    version = server.text("redis_version")
    if not version or server.text("valkey_version") or _numbers(version) >= OLDEST:
        return None
    why = "It lacks the commands by which messages are claimed and the log is read."
    return error(server.part, "too-old", f"Redis {version}", why, "Install Redis 6.2 or later, or any Valkey")


def replica(server: Server) -> Finding | None:
    if server.text("role") != "slave":
        return None
    master = f"{server.text('master_host')}:{server.text('master_port')}"
    why = "A replica refuses every write: nothing is queued, kept or invalidated here."
    return error(
        server.part, "replica", f"role replica, of {master}", why, f"Name the master, {master}, in {variable_of(server.part)}"
    )


def cluster(server: Server) -> Finding | None:
    if not server.number("cluster_enabled") or server.part == "cache":
        return None
    why = "Celery's queue needs keys of several slots in one step, which a cluster refuses."
    return error(server.part, "cluster", "cluster_enabled 1", why, f"Name a server without cluster in {variable_of(server.part)}")


def cuts_idle(server: Server) -> Finding | None:
    idle_s = int((server.config or {}).get("timeout") or 0)
    if not 0 < idle_s < LEAST_IDLE_S:
        return None
    why = "It cuts connections that rest: a question sent just then fails, or waits for a new one."
    return warning(server.part, "cuts-idle", f"timeout {idle_s} s", why, f"{server.cli} CONFIG SET timeout 0")


def cuts_listeners(server: Server) -> Finding | None:
    hard, soft = pubsub_limits((server.config or {}).get("client-output-buffer-limit", ""))
    least = min((limit for limit in (hard, soft) if limit), default=0)
    if not 0 < least < LEAST_PUBSUB_BYTES:
        return None
    why = "It cuts a listener that is a moment behind, and what it was to be told is lost to it."
    mend = f'{server.cli} CONFIG SET client-output-buffer-limit "pubsub 32mb 8mb 60"'
    return warning(server.part, "cuts-listeners", f"client-output-buffer-limit pubsub {least} bytes", why, mend)


def clients_full(server: Server) -> Finding | None:
    most, now = server.number("maxclients"), server.number("connected_clients")
    why = "The next program or pool child cannot connect."
    if server.crowded:
        mend = "Stop what holds connections, or start it with a higher maxclients"
        return error(server.part, "clients-full", f"{server.where} takes no more connections", why, mend)
    if not most or now < CLIENTS_SHARE * most:
        return None
    mend = f"{server.cli} CONFIG SET maxclients {max(10_000, 4 * most)}"
    return error(server.part, "clients-full", f"{now} of {most} connections", why, mend)


def rights(server: Server) -> Finding | None:
    if not server.refused:
        return None
    seen = f"NOPERM: {', '.join(server.refused)}"
    mend = "Give the user the rights of its role in deploy/valkey/" + ("cache.acl" if server.part == "cache" else "broker.acl")
    if server.part == "results":
        if len(server.refused) == len(to_be_answered()):
            return None  # one that asks for nothing: an operator's
        why = "A program that asks under this user never gets its answers."
        return warning(server.part, "rights", seen, why, mend)
    why = "What this user needs is refused to it: tasks are not queued, or entries and invalidations are not kept."
    return error(server.part, "rights", seen, why, mend)


def is_open(server: Server) -> Finding | None:
    config = server.config or {}
    listens = any(not _is_local(address) for address in config.get("bind", "127.0.0.1").split() or ["*"])
    exposed = server.remote or (listens and config.get("protected-mode") == "no")
    if not (server.known and server.is_open and exposed):
        return None
    why = "Everyone who reaches its port reads what users wrote, and queues tasks."
    where = server.where if server.remote else f"bind {config.get('bind') or '*'}, protected-mode no"
    mend = f"{server.cli} CONFIG SET requirepass PASSWORD"
    return error(server.part, "open", f"no password is asked for, at {where}", why, mend)


def unencrypted(server: Server) -> Finding | None:
    if server.tls or not server.remote or not server.known:
        return None
    why = "Passwords and what users wrote cross the network as they are."
    mend = f"Serve TLS there, and write rediss:// in {variable_of(server.part)}"
    return warning(server.part, "unencrypted", f"redis:// to {server.where}", why, mend)


def unverified(server: Server) -> Finding | None:
    if server.verified:
        return None
    why = "Any program on the way may pose as the server, and read the password."
    mend = f"Set ssl_cert_reqs=required and ssl_ca_certs=FILE in {variable_of(server.part)}"
    return warning(server.part, "unverified", "its certificate is not checked (ssl_cert_reqs)", why, mend)


def skewed(server: Server) -> Finding | None:
    if abs(server.skew_s) - server.round_trip_s / 2 <= SKEW_S:
        return None
    ahead = "ahead of" if server.skew_s > 0 else "behind"
    why = "Due times, and how long something waits, are reckoned by two clocks that disagree."
    return warning(
        server.part, "skewed", f"its clock is {abs(server.skew_s):.1f} s {ahead} this machine's", why, "chronyc makestep, on both"
    )


CHECKS: Final[tuple[Callable[[Server], Finding | None], ...]] = (
    away,
    refuses_login,
    too_old,
    replica,
    cluster,
    cuts_idle,
    cuts_listeners,
    clients_full,
    rights,
    is_open,
    unencrypted,
    unverified,
    skewed,
)


def variable_of(part: str) -> str:
    return {"broker": "PERSONA_BROKER_URL", "results": "PERSONA_RESULT_URL"}.get(part, "PERSONA_CACHE_URL")


def pubsub_limits(value: str) -> tuple[int, int]:
    """The hard and the soft limit for listeners, in bytes; 0: none."""
    words = value.split()
    if "pubsub" not in words:
        return 0, 0
    hard, soft = [*words[words.index("pubsub") + 1 :], "0", "0"][:2]
    return (int(hard), int(soft)) if hard.isdigit() and soft.isdigit() else (0, 0)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())


def _is_local(address: str) -> bool:
    return address.lstrip("-") in ("127.0.0.1", "::1", "localhost")

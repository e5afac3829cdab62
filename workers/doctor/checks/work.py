"""Of each node: that Celery's settings are ours still, its user has its rights, and its command line no secret."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from workers.doctor.finding import Finding, error, several, warning
from workers.doctor.seen import Seen, Told

WITHOUT_LIMITS: Final = frozenset({"thread", "solo", "eventlet"})
"""Pools that end no task, whatever its time limits say. (gevent ends one at the hard limit, as soon as it waits.)"""
_OURS: Final = "Start it without another celeryconfig or app.conf.update"


def accepts_pickle(seen: Seen) -> Finding | None:
    found = _those(
        seen, lambda node: bool({"pickle", "yaml"} & {*node.accepts} or "application/x-python-serialize" in node.accepts)
    )
    if not found:
        return None
    why = "Whatever can write to the broker runs code in this worker."
    return error("nodes", "accepts-pickle", f"accept_content has pickle at {several(found)}", why, _OURS)


def acks_early(seen: Seen) -> Finding | None:
    found = _those(seen, lambda node: not node.acks_late)
    if not found:
        return None
    why = "A task that runs when its worker dies is lost."
    return error("nodes", "acks-early", f"task_acks_late off at {several(found)}", why, _OURS)


def drops_lost(seen: Seen) -> Finding | None:
    found = _those(seen, lambda node: node.acks_late and not node.returns_lost)
    if not found:
        return None
    why = "A task is given up when its pool child is killed, for its memory say."
    return error("nodes", "drops-lost", f"task_reject_on_worker_lost off at {several(found)}", why, _OURS)


def results_without_end(seen: Seen) -> Finding | None:
    found = _those(seen, lambda node: not node.result_expires_s)
    if not found:
        return None
    why = "Its results are never removed, and fill the server until it refuses tasks."
    return error("nodes", "results-without-end", f"result_expires none at {several(found)}", why, _OURS)


def results_too_short(seen: Seen) -> Finding | None:
    ttl_s = seen.settings.result_ttl_s
    found = _those(seen, lambda node: 0 < node.result_expires_s != ttl_s)
    if not found:
        return None
    shown = f"result_expires other than {ttl_s} s at {several(found)}"
    why = "A caller that comes back within the time that this machine promises finds nothing."
    return warning("nodes", "results-unlike", shown, why, "Set PERSONA_RESULT_TTL_S alike everywhere")


def takes_ahead(seen: Seen) -> Finding | None:
    found = [f"{node.prefetch} at {node.name}" for node in _products(seen) if node.prefetch != 1]
    if not found:
        return None
    why = "It takes tasks that wait behind its own, while other workers are free."
    return warning("nodes", "takes-ahead", f"prefetch multiplier {several(found)}", why, "Start it with --prefetch-multiplier=1")


def no_limits(seen: Seen) -> Finding | None:
    found = [f"{node.name} ({node.pool})" for node in _products(seen) if node.pool in WITHOUT_LIMITS]
    if not found:
        return None
    why = "A task that hangs holds its slot for ever: this pool ends none at its time limit."
    return warning("nodes", "no-limits", several(found), why, "Start it with --pool=prefork")


def no_limit_set(seen: Seen) -> Finding | None:
    found = _those(seen, lambda node: not node.limit_s and node.pool not in WITHOUT_LIMITS)
    if not found:
        return None
    why = "A task that hangs holds its slot for ever."
    return error("nodes", "no-limit-set", f"task_time_limit none at {several(found)}", why, _OURS)


def runs_twice(seen: Seen) -> Finding | None:
    found = _those(seen, lambda node: node.fetch != "claims" and 0 < node.visible_s <= node.limit_s)
    if not found:
        return None
    why = "A task that still runs is given to a second worker."
    shown = f"visibility_timeout at or below task_time_limit at {several(found)}"
    return error("nodes", "runs-twice", shown, why, _OURS)


def rights(seen: Seen) -> Finding | None:
    found = [f"{node.name} ({', '.join(node.refused)})" for node in _products(seen) if node.refused]
    if not found:
        return None
    why = "The broker refuses this worker what it needs to claim, acknowledge or give back tasks."
    mend = "Give its user the rights of `worker` in deploy/valkey/broker.acl"
    return error("nodes", "rights", f"NOPERM at {several(found, 2)}", why, mend)


def shows_secret(seen: Seen) -> Finding | None:
    found = [node.name for node in ([] if seen.nodes is None else seen.nodes.told) if node.shows_secret]
    shown = [*found, *(name for name in seen.showing)]
    if not shown:
        return None
    why = "Every user of that host can read it in the list of processes."
    mend = "Pass it by the environment, or as PERSONA_..._FILE"
    return error("host", "shows-secret", f"a password is on the command line of {several(shown)}", why, mend)


def _products(seen: Seen) -> list[Told]:
    return [] if seen.nodes is None else [node for node in seen.nodes.told if node.product]


def _those(seen: Seen, wrong: Callable[[Told], bool]) -> list[str]:
    return [node.name for node in _products(seen) if wrong(node)]


CHECKS: Final[tuple[Callable[[Seen], Finding | None], ...]] = (
    accepts_pickle,
    acks_early,
    drops_lost,
    results_without_end,
    results_too_short,
    takes_ahead,
    no_limits,
    no_limit_set,
    runs_twice,
    rights,
    shows_secret,
)

"""Of what waits at the broker: that somebody takes it, and takes it in time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from workers.doctor.finding import Finding, counted, error, several, warning
from workers.doctor.seen import Seen, Told
from workers.queue.names import BULK_QUEUE, MAINTENANCE_QUEUE, QUEUES

LONG_S: Final = 60.0
"""A caller that waits has given up by then, more often than not."""
UNHURRIED: Final = frozenset({BULK_QUEUE, MAINTENANCE_QUEUE})
"""Nobody waits for these: they may stand for as long as a result is kept."""
_CLAIMS: Final = "Start a worker: celery -A persona_worker worker"


def unread(seen: Seen) -> Finding | None:
    if seen.nodes is None or not _ours(seen):
        return None  # see `nodes.none`
    read = {queue for node in _ours(seen) for queue in node.queues}
    lacking = [queue for queue in QUEUES if queue not in read]
    if not lacking:
        return None
    waits = {queue: sum(count for (name, _), count in seen.waiting.lists.items() if name == queue) for queue in lacking}
    shown = several([f"{queue} ({waits[queue]} wait)" if waits[queue] else queue for queue in lacking])
    why = "What is queued there waits for ever."
    mend = f"Start a worker without -Q, or with -Q {','.join(lacking)}"
    return error("queues", "unread", f"no worker reads {shown}", why, mend)


def unread_priority(seen: Seen) -> Finding | None:
    ours = _ours(seen)
    steps = {step for node in ours for step in node.steps}
    if not steps:
        return None
    lost = [
        f"{queue} at priority {step} ({count} wait)" for (queue, step), count in seen.waiting.lists.items() if step not in steps
    ]
    if not lost:
        return None
    why = f"Workers read the priorities {', '.join(map(str, sorted(steps)))} alone: another producer's steps are others."
    mend = "Set broker_transport_options priority_steps alike at the producer"
    return error("queues", "unread-priority", several(lost), why, mend)


def orphans(seen: Seen) -> Finding | None:
    found = seen.waiting.orphans
    if not found:
        return None
    count = sum(orphan.claims for orphan in found)
    longest = max((orphan.silent_s for orphan in found if orphan.silent_s is not None), default=None)
    since = f", silent for {longest:.0f} s" if longest is not None else ", on no list of nodes"
    shown = f"{count} claimed by {several([orphan.node.rpartition('/')[0] for orphan in found], 1)}{since}"
    why = "A worker died with these tasks, and no other that claims is there to give them back."
    return error("queues", "orphans", shown, why, _CLAIMS)


def overdue(seen: Seen) -> Finding | None:
    waiting = seen.waiting
    if not waiting.overdue:
        return None
    since = f", the first for {waiting.overdue_s:.0f} s" if waiting.overdue_s else ""  # it may not be known
    shown = f"{waiting.overdue} of {waiting.aside} delayed tasks{since}"
    why = "Delayed tasks are past their time, and no worker puts them back into their queue."
    return error("queues", "overdue", shown, why, _CLAIMS)


def dead_letters(seen: Seen) -> Finding | None:
    if not seen.waiting.letters:
        return None
    why = "No worker could take these messages; they are dropped a day after the last one came."
    return warning("queues", "dead-letters", counted(seen.waiting.letters, "dead letter"), why, "persona dead-letters")


def waits_long(seen: Seen) -> Finding | None:
    limits = {queue: seen.settings.result_ttl_s if queue in UNHURRIED else LONG_S for queue in seen.waiting.oldest_s}
    long = [f"{queue} for {wait_s:.0f} s" for queue, wait_s in seen.waiting.oldest_s.items() if wait_s > limits[queue]]
    if not long:
        return None
    why = "Callers of these tasks have given up, or soon will: the workers do not keep up."
    return warning(
        "queues", "waits-long", f"the next task waits in {several(long)}", why, "Start more workers: see persona stats"
    )


def taken_by_strangers(seen: Seen) -> Finding | None:
    strangers = [] if seen.nodes is None else seen.nodes.strangers
    found = [
        f"{one.name} ({', '.join(sorted({*one.queues} & {*QUEUES[:3]}))})" for one in strangers if {*one.queues} & {*QUEUES[:3]}
    ]
    if not found:
        return None
    why = "A worker that does not know our tasks takes them, and drops them."
    mend = "Stop it, or start it with -Q and queues of its own"
    return error("queues", "taken-by-strangers", several(found), why, mend)


def endless_results(seen: Seen) -> Finding | None:
    kept = seen.kept_results
    if not kept.endless_count:
        return None
    why = "Results that nobody removes fill the server, until it refuses tasks."
    mend = "Set result_expires in the app that writes them; ours: PERSONA_RESULT_TTL_S"
    return warning("results", "endless", f"{kept.endless_count} of {kept.looked_at} results have no end", why, mend)


def _ours(seen: Seen) -> list[Told]:
    return [] if seen.nodes is None else [node for node in seen.nodes.told if node.product]


CHECKS: Final[tuple[Callable[[Seen], Finding | None], ...]] = (
    unread,
    unread_priority,
    orphans,
    overdue,
    dead_letters,
    waits_long,
    taken_by_strangers,
    endless_results,
)

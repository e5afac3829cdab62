"""Of the nodes together: that they are there, and set alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

from workers.doctor.finding import Finding, counted, error, several, warning
from workers.doctor.seen import Seen, Told


def none(seen: Seen) -> Finding | None:
    if seen.nodes is None or seen.nodes.away or seen.nodes.denied or any(node.product for node in seen.nodes.told):
        return None
    waits = sum(seen.waiting.lists.values())
    meanwhile = f", while {counted(waits, 'task')} wait{'s' if waits == 1 else ''}" if waits else ""
    shown = "no worker answers remote control" + meanwhile
    why = "Nobody takes what is queued, and no delayed or orphaned task comes back."
    return error("nodes", "none", shown, why, "celery -A persona_worker worker")


def unasked(seen: Seen) -> Finding | None:
    if seen.nodes is None or not seen.nodes.away or (seen.broker is not None and not seen.broker.known):
        return None  # the broker's own finding says it
    why = "Nothing is known of the nodes."
    return error("nodes", "unasked", f"remote control: {seen.nodes.away}", why, "celery -A persona_worker inspect ping")


def bound(seen: Seen) -> Finding | None:
    return _unlike(
        seen,
        "bound",
        lambda node: f"{node.bound_s:g} s",
        f"{seen.settings.staleness_bound_s:g} s",
        "A node with a longer bound serves what others hold to be gone.",
        "PERSONA_STALENESS_BOUND_S",
    )


def namespace(seen: Seen) -> Finding | None:
    return _unlike(
        seen,
        "namespace",
        lambda node: node.namespace,
        seen.settings.cache_namespace,
        "What is invalidated in one namespace is served on in the other.",
        "PERSONA_CACHE_NAMESPACE",
    )


def retention(seen: Seen) -> Finding | None:
    return _unlike(
        seen,
        "retention",
        lambda node: f"{node.max_ttl_s:g} s",
        f"{seen.settings.max_ttl_s:g} s",
        "One process keeps entries for longer than another lets the log remember.",
        "PERSONA_MAX_TTL_S",
    )


def model(seen: Seen) -> Finding | None:
    ours = _products(seen)
    ways: tuple[Callable[[Told], str], ...] = (lambda node: node.model, lambda node: node.endpoint, lambda node: node.sampling)
    unlike = next((way for way in ways if len({way(node) for node in ours}) > 1), None)
    if unlike is None:
        return None
    why = "Answers of one are cached and served as those of the other."
    return error("nodes", "model", _groups(ours, unlike), why, "Set PERSONA_LLM_URL, _MODEL, _TEMPERATURE and _MAX_TOKENS alike")


def release(seen: Seen) -> Finding | None:
    ours = _products(seen)
    if len({node.release for node in ours}) < 2:
        return None
    why = "Right during a deploy; left so, tasks and entries of one release meet the rules of the other."
    return warning(
        "nodes", "release", _groups(ours, lambda node: node.release or "unknown"), why, "Finish the deploy: restart them"
    )


def pops(seen: Seen) -> Finding | None:
    found = [node.name for node in _products(seen) if node.fetch != "claims"]
    if not found:
        return None
    why = "A message that a worker has just popped is lost when it dies."
    return warning("nodes", "pops", f"PERSONA_FETCH=pop at {several(found)}", why, "Set PERSONA_FETCH=claims there")


def _products(seen: Seen) -> list[Told]:
    return [] if seen.nodes is None else [node for node in seen.nodes.told if node.product]


def _unlike(seen: Seen, name: str, of: Callable[[Told], str], here: str, why: str, variable: str) -> Finding | None:
    """Of all that share the cache: of other apps' nodes, those in this namespace."""
    told = [] if seen.nodes is None else seen.nodes.told
    told = [node for node in told if node.product or node.namespace == seen.settings.cache_namespace]
    unlike = [node for node in told if of(node) != here]
    if not unlike:
        return None
    return error("nodes", name, f"{_groups(unlike, of)}; {here} here", why, f"Set {variable} alike everywhere")


def _groups(told: list[Told], of: Callable[[Told], Any]) -> str:
    """Each value with the nodes that have it."""
    groups: dict[str, list[str]] = defaultdict(list)
    for node in told:
        groups[str(of(node))].append(node.name)
    return ", ".join(f"{value} at {several(names, 2)}" for value, names in sorted(groups.items()))


CHECKS: Final[tuple[Callable[[Seen], Finding | None], ...]] = (
    none,
    unasked,
    bound,
    namespace,
    retention,
    model,
    release,
    pops,
)

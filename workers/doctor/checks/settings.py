"""Of the settings here: that they do not contradict each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pipeline.keys import RESPONSE_TTL_S
from workers.doctor.finding import Finding, error, several, warning
from workers.doctor.seen import Seen

TASK_S: Final = 85
"""The hard limit of a task: Celery's `task_time_limit` as we set it."""


def foreign_variables(seen: Seen) -> Finding | None:
    if not seen.variables:
        return None
    why = "They name another server than PERSONA_ variables do, and are not obeyed: programs may be on two brokers."
    return warning("settings", "foreign-variables", several(list(seen.variables)), why, f"unset {' '.join(seen.variables)}")


def results_end_early(seen: Seen) -> Finding | None:
    ttl_s = seen.settings.result_ttl_s
    if ttl_s >= TASK_S:
        return None
    why = f"A result may be gone before its caller looks: a task takes up to {TASK_S} s, and equal requests join it."
    return warning("settings", "results-end-early", f"PERSONA_RESULT_TTL_S={ttl_s}", why, "Set PERSONA_RESULT_TTL_S=3600")


def bound_below_timeout(seen: Seen) -> Finding | None:
    settings = seen.settings
    if not settings.cache_url or settings.staleness_bound_s > settings.cache_timeout_s:
        return None
    shown = f"PERSONA_STALENESS_BOUND_S={settings.staleness_bound_s:g}, PERSONA_CACHE_TIMEOUT_S={settings.cache_timeout_s:g}"
    why = "One slow call outlasts the lease of L1: under load it is bypassed, and all ask the server."
    return warning("settings", "bound-below-timeout", shown, why, "Set PERSONA_CACHE_TIMEOUT_S to half of the bound or less")


def renewed_too_late(seen: Seen) -> Finding | None:
    settings = seen.settings
    if not settings.preload_budget or settings.preload_interval_s < RESPONSE_TTL_S:
        return None
    why = f"An answer lives for {RESPONSE_TTL_S} s: the hottest end before the next preload renews them."
    shown = f"PERSONA_PRELOAD_INTERVAL_S={settings.preload_interval_s:g}"
    return warning("settings", "renewed-too-late", shown, why, "Set PERSONA_PRELOAD_INTERVAL_S=300, or PERSONA_PRELOAD_BUDGET=0")


def lock_outlasts_interval(seen: Seen) -> Finding | None:
    settings = seen.settings
    if settings.beat_lock_s <= 2 * settings.preload_interval_s:
        return None
    shown = f"PERSONA_BEAT_LOCK_S={settings.beat_lock_s}, PERSONA_PRELOAD_INTERVAL_S={settings.preload_interval_s:g}"
    why = "When a beat dies, several turns are missed before its spare stands in."
    return warning("settings", "lock-outlasts-interval", shown, why, "Set PERSONA_BEAT_LOCK_S=60 or less")


def model_unused(seen: Seen) -> Finding | None:
    if not (seen.settings.responder and seen.settings.llm_url):
        return None
    why = "The responder comes first: the model is never asked."
    shown = f"PERSONA_RESPONDER={seen.settings.responder}, and PERSONA_LLM_URL is set"
    return warning("settings", "model-unused", shown, why, "unset one of PERSONA_RESPONDER and PERSONA_LLM_URL")


def shares_a_database(seen: Seen) -> Finding | None:
    settings = seen.settings
    if not settings.cache_url or settings.result_backend_url.partition("?")[0] != settings.cache_url.partition("?")[0]:
        return None
    why = "Results lie among entries that are evicted: callers wait for answers that are gone."
    mend = "Set PERSONA_RESULT_URL to a database of the broker"
    return error("settings", "shares-a-database", "PERSONA_RESULT_URL is PERSONA_CACHE_URL", why, mend)


def unaudited(seen: Seen) -> Finding | None:
    settings = seen.settings
    if not settings.cache_url or (settings.audit_per_s and settings.figures):
        return None
    shown = "PERSONA_FIGURES=false" if settings.audit_per_s else "PERSONA_AUDIT_PER_S=0"
    why = "Nobody would notice that a stale answer is served."
    return warning("settings", "unaudited", shown, why, "Set PERSONA_AUDIT_PER_S=20 and PERSONA_FIGURES=true")


CHECKS: Final[tuple[Callable[[Seen], Finding | None], ...]] = (
    foreign_variables,
    results_end_early,
    bound_below_timeout,
    renewed_too_late,
    lock_outlasts_interval,
    model_unused,
    shares_a_database,
    unaudited,
)

"""Of Flower and the model's endpoint."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from workers.doctor.finding import Finding, error, several, warning
from workers.doctor.loopback import is_local_url
from workers.doctor.seen import Seen

DENIED: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


def flower_open(seen: Seen) -> Finding | None:
    if seen.flower is None or seen.flower.status != HTTPStatus.OK:
        return None
    why = "Everyone who reaches it sees every task, and may end or revoke them."
    mend = "Start it by celery -A persona_worker flower, with FLOWER_BASIC_AUTH=user:password"
    return error("flower", "open", f"{seen.flower.url} is shown without a login", why, mend)


def flower_away(seen: Seen) -> Finding | None:
    if seen.flower is None or not seen.flower.away:
        return None
    why = "Nobody sees the fleet, and nothing tells Prometheus."
    return warning("flower", "away", f"{seen.flower.url}: {seen.flower.away}", why, "celery -A persona_worker flower")


def model_away(seen: Seen) -> Finding | None:
    if seen.model is None or not seen.model.away:
        return None
    why = "Every answer that is not in the cache fails, or is served stale."
    mend = "Start the endpoint, or set PERSONA_LLM_URL"
    return error("model", "away", f"{seen.model.url}: {seen.model.away}", why, mend)


def model_fails(seen: Seen) -> Finding | None:
    if seen.model is None or seen.model.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return None
    why = "The endpoint fails by itself: so does every answer that is not in the cache."
    return error("model", "fails", f"{seen.model.url}: status {seen.model.status}", why, "See the endpoint's own log")


def model_refuses(seen: Seen) -> Finding | None:
    if seen.model is None or seen.model.status not in DENIED:
        return None
    has = bool(seen.settings.llm_api_key.get_secret_value())
    shown = f"status {seen.model.status}, {'with the key that is set' if has else 'and no key is set'}"
    why = "The endpoint lets nobody in by this key: every answer that is not in the cache fails."
    return error("model", "refuses-key", shown, why, "Set PERSONA_LLM_API_KEY, or PERSONA_LLM_API_KEY_FILE")


def model_unknown(seen: Seen) -> Finding | None:
    if seen.model is None or not seen.model.models or seen.settings.llm_model in seen.model.models:
        return None
    shown = f"{seen.settings.llm_model} is not among {several(list(seen.model.models))}"
    why = "The endpoint does not offer that model, and refuses what asks for it."
    return warning("model", "unknown", shown, why, "Set PERSONA_LLM_MODEL to one of these")


def model_in_clear(seen: Seen) -> Finding | None:
    url = seen.settings.llm_url
    if not url.startswith("http://") or is_local_url(url) or not seen.settings.llm_api_key.get_secret_value():
        return None
    why = "The key and what users wrote cross the network as they are."
    return warning("model", "in-clear", "PERSONA_LLM_URL is http:// to another host", why, "Write https:// in PERSONA_LLM_URL")


CHECKS: Final[tuple[Callable[[Seen], Finding | None], ...]] = (
    flower_open,
    flower_away,
    model_away,
    model_fails,
    model_refuses,
    model_unknown,
    model_in_clear,
)

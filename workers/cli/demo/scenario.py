"""The demonstration's run on a started stack: traffic, then an invalidation that must be seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Final

import msgspec

from pipeline.models import PersonaRequest, PersonaResponse
from workers.cli.terminal.figures import COMPUTED, Figures, Sample, figures_of
from workers.client import PersonaClient, Progress

TIMEOUT_S: Final = 240.0
"""For one answer, from when it is the oldest on its way. On a busy machine the local model is slow: late is not failed."""
MARGIN_S: Final = 1.0  # beyond the staleness bound: a request's own way to the worker
ASK_EVERY_S: Final = 0.02
FAVOURITE: Final = "Lua"


class Exchange(msgspec.Struct, frozen=True):
    """A request and its answer."""

    request: PersonaRequest
    response: PersonaResponse


class Traffic(msgspec.Struct, frozen=True):
    """The outcome of the requests. `errors` holds one message for each that failed."""

    exchanges: tuple[Exchange, ...]
    errors: tuple[str, ...]
    figures: Figures


class Recomputation(msgspec.Struct, frozen=True):
    """An invalidation, and one request asked before and after it.

    `fresh_after_ms`: the time from the invalidation's return to the sending of the first request that was computed again; None
    if there was none within the staleness bound and a margin. `old_answers`: how many came from a cache meanwhile.
    """

    pattern: str
    request: PersonaRequest
    before: PersonaResponse
    durable: bool
    invalidate_ms: float
    bound_ms: float
    old_answers: int
    fresh_after_ms: float | None
    after: PersonaResponse | None


def send(
    client: PersonaClient,
    requests: Sequence[PersonaRequest],
    *,
    in_flight: int,
    on_progress: Callable[[Progress], None],
) -> Traffic:
    """Send all of them, `in_flight` at once."""
    exchanges, errors = [], []
    started = time.perf_counter()
    # Closed at once on an interruption: queued tasks are revoked while the broker is there.
    with closing(
        client.map(requests, concurrency=in_flight, timeout_s=TIMEOUT_S, on_progress=on_progress)  # type: ignore[type-var]  # a generator
    ) as outcomes:
        for outcome in outcomes:
            if outcome.response is not None:
                exchanges.append(Exchange(outcome.request, outcome.response))
            else:
                errors.append(str(outcome.error))
    elapsed_s = time.perf_counter() - started
    samples = [Sample(each.response.cached, each.response.execution_time_ms) for each in exchanges]
    return Traffic(tuple(exchanges), tuple(errors), figures_of(samples, failed=len(errors), elapsed_s=elapsed_s))


def invalidate_and_ask_again(client: PersonaClient, exchange: Exchange) -> Recomputation:
    """Invalidate all answers of the persona that answered, and ask the same until the answer is computed again."""
    request, pattern = exchange.request, f"persona:{exchange.response.persona.lower()}:*"
    before = client.submit_request(request).result(TIMEOUT_S)
    bound_s = client.settings.staleness_bound_s
    started = time.perf_counter()
    made = client.invalidate(pattern)
    returned = time.perf_counter()
    old_answers, after, fresh_after_ms = 0, None, None
    while after is None and (sent := time.perf_counter()) - returned <= bound_s + MARGIN_S:
        response = client.submit_request(request).result(TIMEOUT_S)
        if response.cached == COMPUTED:
            after, fresh_after_ms = response, (sent - returned) * 1000
        else:
            old_answers += 1
            time.sleep(ASK_EVERY_S)
    return Recomputation(
        pattern=pattern,
        request=request,
        before=before,
        durable=made.durable,
        invalidate_ms=(returned - started) * 1000,
        bound_ms=bound_s * 1000,
        old_answers=old_answers,
        fresh_after_ms=fresh_after_ms,
        after=after,
    )


def to_ask_again(exchanges: Sequence[Exchange]) -> Exchange | None:
    """One of Lua's that all users may share, if there is one; else one of any persona; None if none was cacheable."""
    shared = [each for each in exchanges if each.request.use_cache and not _is_personal(each.request)]
    return next((each for each in shared if each.response.persona == FAVOURITE), shared[0] if shared else None)


def examples_of(exchanges: Sequence[Exchange]) -> list[Exchange]:
    """Some to show: two in English, by two personas if possible, one in Korean, and one that a cache answered."""
    computed = [each for each in exchanges if each.response.cached == COMPUTED]
    english = [each for each in computed if each.response.language == "en"]
    shown = english[:1]
    others = [each for each in english[1:] if each.response.persona != english[0].response.persona]
    shown += (others or english[1:])[:1]
    shown += [each for each in computed if each.response.language == "ko" and not _asks_for_language(each.request)][:1]
    shown += [each for each in exchanges if each.response.cached != COMPUTED][:1]
    return shown


def problems_of(traffic: Traffic, again: Recomputation | None) -> list[str]:
    """Every condition that was not met, as a sentence; empty if the demonstration holds."""
    problems = []
    figures = traffic.figures
    if figures.failed:
        problems.append(f"{figures.failed} of {figures.requests} requests failed, the first with: {traffic.errors[0]}")
    if not figures.saved:
        problems.append("no request was answered from a cache; do any of them repeat?")
    if again is None:
        problems.append("no answer could be invalidated: none was cached for all users")
        return problems
    if again.before.cached == COMPUTED:
        problems.append(f"the request to ask again was not cached before {again.pattern} was invalidated")
    if not again.durable:
        problems.append(f"the invalidation of {again.pattern} was not durable: the cache server is out of reach")
    if again.after is None:
        waited_s = again.bound_ms / 1000 + MARGIN_S
        problems.append(f"{again.pattern} was invalidated, but no answer was computed again within {waited_s:g} s")
    return problems


def as_document(traffic: Traffic, again: Recomputation | None) -> dict[str, Any]:
    """The whole outcome, for JSON."""
    return {
        "figures": msgspec.to_builtins(traffic.figures),
        "examples": [msgspec.to_builtins(each) for each in examples_of(traffic.exchanges)],
        "invalidation": msgspec.to_builtins(again),
    }


def _is_personal(request: PersonaRequest) -> bool:
    return request.context is not None and request.context.is_personal


def _asks_for_language(request: PersonaRequest) -> bool:
    return request.context is not None and request.context.language is not None

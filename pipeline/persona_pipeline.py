"""The persona pipeline without a cache: route, build the template, compose the prompt, let a responder answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec

from pipeline.models import ChatContext, PersonaRequest, PersonaResponse, ResonanceKey
from pipeline.personas import Catalog, PersonaInfo, catalog_from
from pipeline.prompts import PromptTemplate, build_template, compose
from pipeline.responders import Responder, responder_from
from pipeline.routing import Router, Routing
from pipeline.settings import get_settings


class PersonaPipeline:
    """Computes every answer anew. Holds no state between calls: any number of threads may share one.

    The stages are methods, so that a pipeline with a cache keeps the same stages and caches between them.
    """

    def __init__(self, catalog: Catalog, responder: Responder, *, clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock` gives seconds and never goes back; it measures `execution_time_ms`."""
        self._catalog = catalog
        self._responder = responder
        self._clock = clock
        self._router = Router(catalog)

    @property
    def catalog(self) -> Catalog:
        return self._catalog

    @property
    def responder(self) -> Responder:
        return self._responder

    def process(
        self,
        user_input: str,
        resonance_key: str,
        context: ChatContext | dict[str, Any] | None = None,
        use_cache: bool = True,
        max_age_s: float | None = None,
    ) -> PersonaResponse:
        """Answer one input. Raises InvalidRequestError, and the ModelErrors of the responder.

        There is no cache here; `use_cache` and `max_age_s` are taken so that a pipeline with one can stand in for this.
        """
        return self.process_request(PersonaRequest.create(user_input, resonance_key, context, use_cache, max_age_s))

    def process_request(self, request: PersonaRequest) -> PersonaResponse:
        """Answer a validated request. `execution_time_ms` is the time this call took."""
        started = self._clock()
        routing = self.route(request.resonance)
        template = self.template(self.info(routing.slug), request.resonance)
        response = self.answer(request, routing, template)
        execution_time_ms = (self._clock() - started) * 1000
        return msgspec.structs.replace(response, content=str(response.content), execution_time_ms=execution_time_ms)

    def route(self, key: ResonanceKey) -> Routing:
        """Which persona answers this key."""
        return self._router.route(key)

    def info(self, slug: str) -> PersonaInfo:
        """What a prompt needs of that persona. Raises InvalidRequestError if there is none of that slug."""
        return self._catalog.get(slug).info

    def template(self, info: PersonaInfo, key: ResonanceKey) -> PromptTemplate:
        """What that persona is told for this key, whatever the request."""
        return build_template(info, key)

    def answer(self, request: PersonaRequest, routing: Routing, template: PromptTemplate) -> PersonaResponse:
        """The responder's answer to a routed request. Its `execution_time_ms` is 0: only the caller knows the whole.
        Its content may be a CutShort, which is not to be kept."""
        prompt = compose(template, request)
        return PersonaResponse(
            content=self._responder.respond(prompt),
            persona=routing.persona,
            confidence=routing.confidence,
            reason=routing.reason,
            resonance_key=routing.resonance_key,
            scores=routing.scores,
            language=prompt.language,
            model=self._responder.model,
        )


@lru_cache(maxsize=1)
def get_pipeline() -> PersonaPipeline:
    """This process's pipeline, built from its settings at the first call.

    Threads that race for the first call may each build one; every one of them is good, and one of them stays. Raises
    ConfigurationError naming the variable.
    """
    settings = get_settings()
    return PersonaPipeline(catalog_from(settings), responder_from(settings))

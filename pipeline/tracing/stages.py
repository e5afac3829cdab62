"""The pipeline's stages with a span for each that runs. The spans hold no word of the request, of the prompt or of the answer."""

from __future__ import annotations

from urllib.parse import urlsplit

import msgspec

from pipeline.models import PersonaRequest, PersonaResponse, ResonanceKey
from pipeline.persona_pipeline import PersonaPipeline
from pipeline.personas import PersonaInfo
from pipeline.prompts import Prompt, PromptTemplate
from pipeline.responders import ChatResponder, CutShort, Responder
from pipeline.routing import Routing
from pipeline.tracing.spans import Tracer

_FINGERPRINT = msgspec.json.Decoder(tuple[str, str, str, int, float])


class TracedPipeline(PersonaPipeline):
    """That pipeline, told of. A stage that the cache answers does not run, and has no span."""

    def __init__(self, pipeline: PersonaPipeline, tracer: Tracer) -> None:
        super().__init__(pipeline.catalog, TracedResponder.of(pipeline.responder, tracer))
        self._tracer = tracer

    def route(self, key: ResonanceKey) -> Routing:
        with self._tracer.step("persona.route"):
            return super().route(key)

    def template(self, info: PersonaInfo, key: ResonanceKey) -> PromptTemplate:
        with self._tracer.step("persona.template"):
            return super().template(info, key)

    def answer(self, request: PersonaRequest, routing: Routing, template: PromptTemplate) -> PersonaResponse:
        with self._tracer.step("persona.answer") as step:
            step.note("persona.slug", routing.slug)
            return super().answer(request, routing, template)


class TracedResponder:
    """That responder, told of; a model's endpoint is told of the trace."""

    def __init__(self, responder: Responder, tracer: Tracer) -> None:
        self._responder = responder
        self._tracer = tracer
        self._server = ""
        if isinstance(responder, ChatResponder):
            responder.headers_of_call = tracer.headers
            parts = urlsplit(_FINGERPRINT.decode(responder.fingerprint)[1])
            self._server = parts.hostname or ""

    @classmethod
    def of(cls, responder: Responder, tracer: Tracer) -> TracedResponder:
        return responder if isinstance(responder, TracedResponder) else cls(responder, tracer)

    @property
    def model(self) -> str:
        return self._responder.model

    @property
    def fingerprint(self) -> str:
        return self._responder.fingerprint

    def respond(self, prompt: Prompt) -> str:
        with self._tracer.step("persona.model", "client") as step:
            step.note("gen_ai.request.model", self._responder.model)
            if self._server:
                step.note("server.address", self._server)
            answer = self._responder.respond(prompt)
            if isinstance(answer, CutShort):
                step.note("persona.cut_short", True)
            return answer

"""Responders answer a composed prompt: a model behind an OpenAI-compatible endpoint or, if none is configured, the prompt itself.

Knows no cache. Logs neither prompts nor answers, and no key.
"""

from __future__ import annotations

from typing import Protocol

from pipeline.prompts import Prompt
from pipeline.responders.chat import ChatResponder
from pipeline.responders.failures import CutShort
from pipeline.settings import Settings

__all__ = ["ChatResponder", "CutShort", "PromptResponder", "Responder", "responder_from"]


class Responder(Protocol):
    """The pipeline's last stage. Any number of threads may share one; a forked child may use its parent's."""

    @property
    def model(self) -> str:
        """The name that a response shows."""

    @property
    def fingerprint(self) -> str:
        """Differs between responders that answer a prompt differently: a part of cache keys. Holds no key or password."""

    def respond(self, prompt: Prompt) -> str:
        """The answer, never empty; a CutShort is given to the caller, and not kept. Raises TransientModelError if another try
        may help, else PermanentModelError."""


class PromptResponder:
    """Answers with the composed prompt as readable text: the pipeline's answers when no model is configured.

    Equal prompts give equal texts.
    """

    model = "prompt"
    fingerprint = "prompt"

    def respond(self, prompt: Prompt) -> str:
        turns = [
            ("system", prompt.system),
            *((turn.role, turn.content) for turn in prompt.history),
            ("user", prompt.user),
        ]
        return "\n\n".join(f"[{role}]\n{text}" for role, text in turns)


def responder_from(settings: Settings) -> Responder:
    """The responder of these settings; connects to nothing. Raises ConfigurationError naming the variable.

    One that PERSONA_RESPONDER names comes before the model of PERSONA_LLM_URL.
    """
    if settings.responder:
        from pipeline.responders.named import named_responder

        return named_responder(settings)
    if not settings.llm_url:
        return PromptResponder()
    return ChatResponder(
        base_url=settings.llm_url,
        model=settings.llm_model,
        api_key=settings.llm_api_key.get_secret_value(),
        deadline_s=settings.llm_timeout_s,
        max_tokens=settings.llm_max_tokens,
        temperature=settings.llm_temperature,
        max_bytes=settings.result_max_kb * 1024,
    )

"""Composes a model's prompt from a persona, a resonance key and a request."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

import msgspec

from pipeline.models import INTENTS, PACES, TONES, Language, Message, PersonaRequest, ResonanceKey
from pipeline.personas import PersonaInfo, Texts
from pipeline.personas.table import Table

PROMPT_VERSION: Final = "1"
"""Part of every template's version: raise it when the code below composes the same texts differently."""

MAX_HISTORY: Final = 6
"""How many of the last messages go into a prompt; a small model loses the thread of more."""

# Jamo (old, extended, for compatibility), syllables, and the half-width forms that NFC leaves as they are.
_HANGUL: Final = re.compile("[\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff\uffa0-\uffdc]")
_NAME_LINE: Final = {"en": "The user's name is", "ko": "사용자의 이름:"}


class PromptTemplate(msgspec.Struct, frozen=True):
    """The part of a prompt that is known before the request: the persona (`system`) and its manner (`guidance`).

    `version` changes with the persona's file, the guidance texts and PROMPT_VERSION.
    """

    persona: str
    resonance_key: str
    version: str
    system: Texts
    guidance: Texts


class Prompt(msgspec.Struct, frozen=True):
    """The messages to a model, in the order in which a chat takes them. `user` is the request's input to the letter."""

    system: str
    history: tuple[Message, ...]
    user: str
    language: Language


class Guidance(msgspec.Struct, frozen=True):
    """How to answer each tone, pace and intent, in words; in the order of TONES, PACES and INTENTS."""

    tone: tuple[Texts, ...]
    pace: tuple[Texts, ...]
    intent: tuple[Texts, ...]

    def of(self, key: ResonanceKey) -> Texts:
        """One text for the three parts of the key."""
        parts = (
            self.tone[TONES.index(key.tone)],
            self.pace[PACES.index(key.pace)],
            self.intent[INTENTS.index(key.intent)],
        )
        return Texts(en=" ".join(part.en for part in parts), ko=" ".join(part.ko for part in parts))


def load_guidance(file: Traversable | None = None) -> Guidance:
    """The guidance texts of a file, by default the package's own. Raises ConfigurationError naming file and field."""
    table = Table.of_file(file or files("pipeline") / "guidance.toml", Guidance.__struct_fields__)
    parts = (("tone", TONES), ("pace", PACES), ("intent", INTENTS))
    return Guidance(*(tuple(map(table.table(part, words).texts, words)) for part, words in parts))


def template_version(info: PersonaInfo) -> str:
    """The version of every template of this persona, whatever the resonance key."""
    parts = (PROMPT_VERSION, info.version, _guidance_version())
    return f"{PROMPT_VERSION}-{_digest(msgspec.json.encode(parts))}"


def build_template(info: PersonaInfo, key: ResonanceKey) -> PromptTemplate:
    return PromptTemplate(
        persona=info.slug,
        resonance_key=str(key),
        version=template_version(info),
        system=info.prompts,
        guidance=_guidance().of(key),
    )


def language_of(request: PersonaRequest) -> Language:
    """The language asked for, else Korean if the input has any Hangul, else English."""
    if request.context is not None and request.context.language is not None:
        return request.context.language
    return "ko" if _HANGUL.search(request.user_input) else "en"


def compose(template: PromptTemplate, request: PersonaRequest) -> Prompt:
    """The prompt of one request. The last MAX_HISTORY messages go in.

    The user's text is never a format string: braces, percent signs and the like come through as they are.
    """
    language = language_of(request)
    lines = [template.system.of(language), template.guidance.of(language)]
    history: tuple[Message, ...] = ()
    if request.context is not None:
        history = request.context.history[-MAX_HISTORY:]
        if request.context.user_name:
            # On one line: a name must not pass for a paragraph of instructions.
            lines.append(f'{_NAME_LINE[language]} "{" ".join(request.context.user_name.split())}".')
    return Prompt(system="\n\n".join(lines), history=history, user=request.user_input, language=language)


@lru_cache(maxsize=1)
def _guidance() -> Guidance:
    return load_guidance()


@lru_cache(maxsize=1)
def _guidance_version() -> str:
    return _digest(msgspec.json.encode(_guidance()))


def _digest(text: bytes) -> str:
    return hashlib.blake2b(text, digest_size=16).hexdigest()

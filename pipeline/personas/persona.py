"""The data of one persona. Deeply immutable and plain JSON, so that a cached copy can be shared."""

from __future__ import annotations

import msgspec

from pipeline.models import INTENTS, PACES, TONES, Language, ResonanceKey


class Texts(msgspec.Struct, frozen=True):
    """One text in every language that the pipeline answers in."""

    en: str
    ko: str

    def of(self, language: Language) -> str:
        return self.ko if language == "ko" else self.en


class PersonaInfo(msgspec.Struct, frozen=True):
    """The part of a persona that a prompt needs, and that is cached.

    `slug` is the name in lower case, as cache keys have it. `version` is a digest of everything in the persona's file:
    it changes with any edit except in comments and white space.
    """

    name: str
    slug: str
    version: str
    summary: Texts
    traits: tuple[str, ...]
    strengths: tuple[str, ...]
    prompts: Texts


class Affinities(msgspec.Struct, frozen=True):
    """How close a persona is to each word of a resonance key, 0.0-1.0, in the order of TONES, PACES and INTENTS."""

    tone: tuple[float, ...]
    pace: tuple[float, ...]
    intent: tuple[float, ...]

    def to(self, key: ResonanceKey) -> tuple[float, float, float]:
        """The affinities to the key's tone, pace and intent."""
        return (
            self.tone[TONES.index(key.tone)],
            self.pace[PACES.index(key.pace)],
            self.intent[INTENTS.index(key.intent)],
        )


class Persona(msgspec.Struct, frozen=True):
    """A persona as its file describes it. Of two that fit a key equally well, the lower `order` answers."""

    info: PersonaInfo
    order: int
    affinities: Affinities

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def slug(self) -> str:
        return self.info.slug

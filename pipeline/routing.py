"""Which persona answers a resonance key, and why."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

import msgspec

from pipeline.models import PersonaScore, ResonanceKey
from pipeline.personas import Catalog, Persona

PARTS: Final = ("tone", "pace", "intent")
# Decimals, here and below: in binary, 0.5 x 0.7 + 0.3 x 0.9 is not always what it is on paper, and ties would be missed.
WEIGHTS: Final = (Decimal("0.5"), Decimal("0.3"), Decimal("0.2"))
LEAD_WEIGHT: Final = Decimal("0.3")
SCORE_WEIGHT: Final = Decimal("0.7")
DIGITS: Final = 4


class Routing(msgspec.Struct, frozen=True):
    """The persona that answers a resonance key.

    `persona` is the name to show, `slug` the one in keys, `catalog` the version of the catalog that was used.
    `confidence` and `scores` are 0.0-1.0, rounded to 4 digits. `scores` has every persona, best first. `reason` is one
    English sentence naming the parts of the key in which no persona is closer.
    """

    resonance_key: str
    persona: str
    slug: str
    confidence: float
    reason: str
    scores: tuple[PersonaScore, ...]
    catalog: str


class Router:
    """Routes by affinity: score = 0.5 tone + 0.3 pace + 0.2 intent; the best score answers, ties go by catalog order.

    Confidence = 0.3 (first - second) + 0.7 first, with 0 for a second that does not exist. The same catalog gives the
    same routing for a key in every process.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._catalog_version = catalog.version

    def route(self, key: ResonanceKey) -> Routing:
        affinities = [persona.affinities.to(key) for persona in self._catalog]
        scored = [(persona, _score(to_key)) for persona, to_key in zip(self._catalog, affinities, strict=True)]
        scored.sort(key=lambda pair: -pair[1])  # stable, so that ties keep the catalog's order
        best, first = scored[0]
        second = scored[1][1] if len(scored) > 1 else Decimal(0)
        return Routing(
            resonance_key=str(key),
            persona=best.name,
            slug=best.slug,
            confidence=_rounded(LEAD_WEIGHT * (first - second) + SCORE_WEIGHT * first),
            reason=_reason(key, best, [max(part) for part in zip(*affinities, strict=True)]),
            scores=tuple(PersonaScore(persona.name, _rounded(score)) for persona, score in scored),
            catalog=self._catalog_version,
        )


def _score(affinities: tuple[float, float, float]) -> Decimal:
    # Through the shortest text of the float, which is what the persona's file says.
    return sum((weight * Decimal(repr(share)) for weight, share in zip(WEIGHTS, affinities, strict=True)), Decimal(0))


def _rounded(score: Decimal) -> float:
    return float(round(score, DIGITS))


def _reason(key: ResonanceKey, persona: Persona, closest: list[float]) -> str:
    words = (key.tone, key.pace, key.intent)
    spoke = [
        f"{part} '{word}'"
        for part, word, share, most in zip(PARTS, words, persona.affinities.to(key), closest, strict=True)
        if share == most
    ]
    if not spoke:
        return f"{persona.name} fits tone, pace and intent best taken together, though others are closer in each."
    *earlier, last = spoke
    return f"{persona.name} is closest in {', '.join(earlier) + ' and ' if earlier else ''}{last}."

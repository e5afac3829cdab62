"""The keys of the workload, what each is computed from, and what a pattern means. Kept apart from the package's own
matching: the checker must not err where the cache errs."""

from __future__ import annotations

import fnmatch
import random
from typing import Final

RESONANCES: Final = ("r0", "r1", "r2")
PERSONAS: Final = ("p0", "p1")
VARIANTS: Final = ("d0", "d1")
"""`d1` is personal: it depends on a user, too."""

ROUTINGS: Final = tuple(f"routing:{resonance}" for resonance in RESONANCES)
INFOS: Final = tuple(f"persona:{persona}:info" for persona in PERSONAS)
TEMPLATES: Final = tuple(f"prompt:{persona}:{resonance}" for persona in PERSONAS for resonance in RESONANCES)
RESPONSES: Final = tuple(
    f"persona:{persona}:{resonance}:{variant}" for persona in PERSONAS for resonance in RESONANCES for variant in VARIANTS
)
USERS: Final = tuple(f"user:{persona}" for persona in PERSONAS)
"""Never cached: keys that only occur as dependencies."""
ITEMS: Final = tuple(f"item:{number}" for number in range(4))
"""The keys that are also set and deleted."""

CACHED: Final = ROUTINGS + INFOS + TEMPLATES + RESPONSES + ITEMS
KEYS: Final = CACHED + USERS

_PREFIXES: Final = (
    "routing:*",
    "prompt:p0:*",
    "prompt:p1:*",
    "persona:p0:*",
    "persona:p1:*",
    "persona:p0:r1:*",
    "user:*",
    "item:*",
)
_GLOBS: Final = (
    "persona:*:r1:*",
    "persona:?1:r[02]:d1",
    "prompt:*:r2",
    "persona:*:info",
    "r*:r0",
    "*:p[^1]*",
    "user:p?",
    "item:[0-1]",
)


def meant_by(pattern: str) -> tuple[str, ...]:
    """The keys that match. `*` crosses colons; `[^...]` is a negation."""
    shell = pattern.replace("[^", "[!")
    return tuple(key for key in KEYS if fnmatch.fnmatchcase(key, shell))


def any_pattern(rng: random.Random) -> str:
    """A key half of the time (one in three of them only a dependency), else a prefix or a glob; seldom everything."""
    chance = rng.random()
    if chance < 0.35:
        return rng.choice(CACHED)
    if chance < 0.5:
        return rng.choice(USERS)
    if chance < 0.75:
        return rng.choice(_PREFIXES)
    if chance < 0.97:
        return rng.choice(_GLOBS)
    return "*"

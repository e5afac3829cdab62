"""The keys of the workload, what each is computed from, and what a pattern means. Kept apart from the package's own
matching: the checker must not err where the cache errs."""

from __future__ import annotations

import fnmatch
import random
from functools import cache
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

LEAVES: Final = tuple(f"leaf:{number}" for number in range(120))
"""Many, read in one go."""
CHAINS: Final = tuple(f"chain{number}:{place}" for number in range(3) for place in "abc")
"""Each `b` is computed from its `a` and names that as its dependency, each `c` from its `b` and names only that."""

CACHED: Final = ROUTINGS + INFOS + TEMPLATES + RESPONSES + ITEMS
KEYS: Final = CACHED + USERS + LEAVES + CHAINS

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
_LEAVES: Final = ("leaf:*", "leaf:*", "leaf:?", "leaf:[1-3]?", "l*f:*5")
_CHAINS: Final = ("chain?:a", "chain0:*", "chain[12]:[ab]")
_PADDINGS: Final = 5000


@cache
def meant_by(pattern: str) -> tuple[str, ...]:
    """The keys that match. `*` crosses colons; `[^...]` is a negation."""
    shell = pattern.replace("[^", "[!")
    return tuple(key for key in KEYS if fnmatch.fnmatchcase(key, shell))


def padding(rng: random.Random, count: int) -> list[str]:
    """Patterns that mean none of these keys, nor any other, and are as good as any to a log."""
    first = rng.randrange(_PADDINGS)
    places = [(first + number) % _PADDINGS for number in range(count)]
    return [f"padding:{place}:*" if place % 7 == 0 else f"padding:{place}" for place in places]


def any_pattern(rng: random.Random) -> str:
    """A key half of the time (one in three of them only a dependency), else a prefix or a glob; seldom everything."""
    if rng.random() < 0.12:
        return rng.choice(_LEAVES)
    if rng.random() < 0.12:
        return rng.choice(CHAINS + _CHAINS)
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

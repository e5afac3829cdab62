"""What a read returns when there is nothing: a sentinel of its own, since `None` is a value like any other."""

from __future__ import annotations

import enum
from typing import Final, Literal


class Miss(enum.Enum):
    """The type of `MISS`. It is false, so that `if not value` reads as one expects."""

    MISS = "MISS"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "MISS"


MISS: Final = Miss.MISS
MissType = Literal[Miss.MISS]

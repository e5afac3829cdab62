"""Of that which is asked about nothing is known."""

from __future__ import annotations

from typing import Literal


class NothingKnownError(Exception):
    """Its text says where was looked. `kind`: what was looked for."""

    def __init__(self, kind: Literal["key", "task"], words: str) -> None:
        super().__init__(words)
        self.kind = kind

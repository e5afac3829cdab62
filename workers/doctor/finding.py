"""What a check says."""

from __future__ import annotations

from typing import Literal

import msgspec

Severity = Literal["error", "warning"]


class Finding(msgspec.Struct, frozen=True):
    """`error`: data is lost or stale answers are served, now or at the next fault. `warning`: something is worse than it need be.
    `name` is that of the check. `seen`: what was observed. `why`: one sentence. `mend`: a command or a setting."""

    severity: Severity
    part: str
    name: str
    seen: str
    why: str
    mend: str


def error(part: str, name: str, seen: str, why: str, mend: str) -> Finding:
    return Finding("error", part, name, seen, why, mend)


def warning(part: str, name: str, seen: str, why: str, mend: str) -> Finding:
    return Finding("warning", part, name, seen, why, mend)


def counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def several(items: list[str], most: int = 3) -> str:
    """The first of them, and how many more."""
    more = len(items) - most
    return ", ".join(items[:most]) + (f" and {more} more" if more > 0 else "")

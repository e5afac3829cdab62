"""A trace as text: each event, and what it changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from model.state import State

_UNTOLD = frozenset({"must", "must_l1", "here", "elapsed", "left", "own", "applied", "told", "epochs", "outdated"})
"""What is counted for the promises and the bounds alone, or follows from the rest."""


def told(trace: tuple[tuple[str, State], ...]) -> Iterator[str]:
    """The lines of a trace."""
    for number, (name, state) in enumerate(trace):
        yield f"{number:3}  {name}"
        if number:
            for change in changes("", trace[number - 1][1], state):
                yield f"       {change}"


def changes(path: str, before: Any, after: Any) -> Iterator[str]:
    """Each field that differs, by its path."""
    if before == after:
        return
    if isinstance(before, msgspec.Struct) and type(before) is type(after):
        for field in before.__struct_fields__:
            if field not in _UNTOLD:
                yield from changes(f"{path}.{field}" if path else field, getattr(before, field), getattr(after, field))
    elif isinstance(before, tuple) and isinstance(after, tuple) and len(before) == len(after) and _structs((*before, *after)):
        for place, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from changes(f"{path}[{place}]", one, other)
    else:
        yield f"{path}: {_short(before)} -> {_short(after)}"


def _structs(parts: tuple[Any, ...]) -> bool:
    return any(isinstance(part, msgspec.Struct) for part in parts)


def _short(part: Any) -> str:
    if not isinstance(part, msgspec.Struct):
        return "none" if part is None else str(part)
    fields = ", ".join(f"{name} {getattr(part, name)}" for name in part.__struct_fields__ if name not in _UNTOLD)
    return f"({fields})"

"""Lua on the server: each script a file in `lua/`, sent once and called by its digest after."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from pipeline.cache.server.commands import Commands, Word

T = TypeVar("T")


class Script(NamedTuple):
    """A script by the name that a refusal is told by."""

    name: str
    source: str
    digest: str

    @classmethod
    def read(cls, beside: str, *names: str) -> Script:
        """`lua/<name>.lua` beside a module's `__file__`; of several, one after the other.

        As plain files, and not by importlib.resources, which imports: a signal handler in the middle of that, or a child that
        is forked, would meet the import's lock."""
        folder = Path(beside).with_name("lua")
        source = "".join((folder / f"{name}.lua").read_text(encoding="utf-8") for name in names)
        # SHA-1 is what EVALSHA is asked by; nothing is kept secret by it.
        return cls(names[-1], source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())

    def run(self, client: Commands, keys: Iterable[Word], arguments: Iterable[Word], check: Callable[[Any], T]) -> T:
        """What it returns, which `check` judges: see `commands`."""
        return client.run_script(*self, keys, arguments, check)


def run_script(client: Commands, name: str, keys: list[bytes], arguments: list[Any], check: Callable[[Any], T]) -> T:
    """What `lua/<name>.lua` of the cache returns, which `check` judges."""
    return _script(name).run(client, keys, arguments, check)


_OF_THE_LOG: Final = frozenset({"append", "read", "beat"})
"""Scripts that lua/history.lua stands before."""


@cache
def _script(name: str) -> Script:
    return Script.read(__file__, *(("history", name) if name in _OF_THE_LOG else (name,)))

"""Lua on the server: each script a file in `lua/`, sent once and called by its digest after."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import cache
from importlib.resources import files
from typing import Any, Final, NamedTuple, TypeVar

from pipeline.cache.server.commands import Commands, Word

T = TypeVar("T")


class Script(NamedTuple):
    """A script by the name that a refusal is told by."""

    name: str
    source: str
    digest: str

    @classmethod
    def read(cls, package: str, *names: str) -> Script:
        """`lua/<name>.lua` of a package; of several, one after the other. Read it before a thread needs it: what a thread
        imports, a child that is forked at that moment cannot."""
        source = "".join(files(package).joinpath(f"lua/{name}.lua").read_text() for name in names)
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
    return Script.read("pipeline.cache.server", *(("history", name) if name in _OF_THE_LOG else (name,)))

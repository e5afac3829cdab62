"""Lua on the server: each script a file in `lua/`, sent once and called by its digest after."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple, TypeVar

from pipeline.cache.commands import Commands, Word

T = TypeVar("T")


class Script(NamedTuple):
    """A script by the name that a refusal is told by."""

    name: str
    source: str
    digest: str

    @classmethod
    def read(cls, package: str, name: str) -> Script:
        """`lua/<name>.lua` of a package. Read it before a thread needs it: what a thread imports, a child that is forked at that
        moment cannot."""
        source = files(package).joinpath(f"lua/{name}.lua").read_text()
        # SHA-1 is what EVALSHA is asked by; nothing is kept secret by it.
        return cls(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())

    def run(self, client: Commands, keys: Iterable[Word], arguments: Iterable[Word], check: Callable[[Any], T]) -> T:
        """What it returns, which `check` judges: see `commands`."""
        return client.run_script(*self, keys, arguments, check)


def run_script(client: Commands, name: str, keys: list[bytes], arguments: list[Any], check: Callable[[Any], T]) -> T:
    """What `lua/<name>.lua` of the cache returns, which `check` judges."""
    return _script(name).run(client, keys, arguments, check)


@cache
def _script(name: str) -> Script:
    return Script.read("pipeline.cache", name)

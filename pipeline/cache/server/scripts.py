"""Lua on the server: each script is a file in `lua/`, sent once and then called by its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from pipeline.cache.server.commands import Commands, Pipeline, Word

T = TypeVar("T")


class Script(NamedTuple):
    """A script, with the name under which a refusal is reported."""

    name: str
    source: str
    digest: str

    @classmethod
    def read(cls, beside: str, *names: str) -> Script:
        """`lua/<name>.lua` beside a module's `__file__`; several names are joined in order.

        Read as plain files: importlib.resources imports, and a signal handler in the middle of that, or a forked child, would
        meet the import's lock."""
        folder = Path(beside).with_name("lua")
        source = "".join((folder / f"{name}.lua").read_text(encoding="utf-8") for name in names)
        return cls.of(names[-1], source)

    @classmethod
    def of(cls, name: str, source: str) -> Script:
        # EVALSHA needs SHA-1; it protects nothing.
        return cls(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())

    def flagged(self, *flags: str) -> Script:
        """The same for a server that is in a state in which it refuses scripts without these flags. Redis 6.2 knows none, and
        refuses this one."""
        return self.of(self.name, f"#!lua flags={','.join(flags)}\n{self.source}")

    def run(self, client: Commands, keys: Iterable[Word], arguments: Iterable[Word], check: Callable[[Any], T]) -> T:
        """The script's result, which `check` judges: see `commands`."""
        return client.run_script(*self, keys, arguments, check)


def run_script(client: Commands, name: str, keys: list[bytes], arguments: list[Any], check: Callable[[Any], T]) -> T:
    """The result of the cache's `lua/<name>.lua`, which `check` judges."""
    return _script(name).run(client, keys, arguments, check)


def add_script(pipe: Pipeline, name: str, keys: list[bytes], arguments: list[Any], check: Callable[[Any], T]) -> T:
    """As `run_script`, among the commands of one round trip. The server may not know the script yet, and then refuses it: its
    source is sent with the commands once more. So the script must be the first of them, and those behind it only read."""
    return pipe.script(*_script(name), keys, arguments, check)


def add_known_script(pipe: Pipeline, name: str, keys: list[bytes], arguments: list[Any], check: Callable[[Any], T]) -> T:
    """As `add_script`, behind other commands. To a server that does not know it nothing is sent once more: `execute` raises
    ReplyError with the code NOSCRIPT, and the other commands are done."""
    _, _, digest = script = _script(name)
    return pipe.evalsha(script.name, digest, keys, arguments, check)


_OF_THE_LOG: Final = frozenset({"append", "read", "beat"})
"""Scripts that lua/history.lua is put before."""


@cache
def _script(name: str) -> Script:
    return Script.read(__file__, *(("history", name) if name in _OF_THE_LOG else (name,)))

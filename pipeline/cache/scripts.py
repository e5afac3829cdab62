"""Lua on the server: each script a file in `lua/`, sent once and called by its digest after."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any, Final

import redis


def run_script(client: redis.Redis, name: str, keys: list[bytes], arguments: list[Any]) -> Any:
    """What `lua/<name>.lua` returns."""
    source, digest = _script(name)
    try:
        return client.evalsha(digest, len(keys), *keys, *arguments)
    except redis.exceptions.NoScriptError:
        return client.eval(source, len(keys), *keys, *arguments)


_OF_THE_LOG: Final = frozenset({"append", "read", "beat"})
"""Scripts that lua/history.lua stands before."""


@cache
def _script(name: str) -> tuple[str, str]:
    parts = ("history", name) if name in _OF_THE_LOG else (name,)
    source = "".join(files("pipeline.cache").joinpath(f"lua/{part}.lua").read_text() for part in parts)
    # SHA-1 is what EVALSHA is asked by; nothing is kept secret by it.
    return source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

"""Lua on the server: each script a file in `lua/`, sent once and called by its digest after."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

import redis


def run_script(client: redis.Redis, name: str, keys: list[bytes], arguments: list[Any]) -> Any:
    """What `lua/<name>.lua` returns."""
    source, digest = _script(name)
    try:
        return client.evalsha(digest, len(keys), *keys, *arguments)
    except redis.exceptions.NoScriptError:
        return client.eval(source, len(keys), *keys, *arguments)


@cache
def _script(name: str) -> tuple[str, str]:
    source = files("pipeline.cache").joinpath(f"lua/{name}.lua").read_text()
    # SHA-1 is what EVALSHA is asked by; nothing is kept secret by it.
    return source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

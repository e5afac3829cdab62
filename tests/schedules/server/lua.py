"""The cache's own Lua, run in this process by lupa: the scripts are not written twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from lupa import lua51

Call = Callable[[list[bytes]], Any]

_PRELUDE: Final = b"""
local call, sha1hex, encode = ...
redis = {call = function(...) return call(...) end, sha1hex = sha1hex}
redis.pcall = function(...)
    local fine, reply = pcall(call, ...)
    return fine and reply or {err = tostring(reply)}
end
cjson = {encode = encode}
"""


class Status(bytes):
    """A reply that is a status, such as OK, and not a text."""


class Script:
    """A script that was compiled. One at a time runs, as on a server."""

    def __init__(self, lua: _Lua, source: bytes) -> None:
        self.digest = hashlib.sha1(source, usedforsecurity=False).hexdigest().encode()
        self._lua = lua
        self._function = lua.runtime.execute(b"return function(KEYS, ARGV) " + source + b"\nend")

    def run(self, call: Call, keys: Sequence[bytes], arguments: Sequence[bytes]) -> Any:
        """The reply. Raises what `call` raises."""
        table = self._lua.runtime.table_from
        self._lua.call = call
        return self._lua.reply(self._function(table(keys), table(arguments)))


class _Lua:
    """A Lua of this process. `call` is the server that the running script belongs to."""

    def __init__(self) -> None:
        self.call: Call = lambda _: None
        self.runtime = lua51.LuaRuntime(encoding=None, unpack_returned_tuples=False, register_eval=False)
        self._type = lua51.lua_type
        # A chunk's upvalues last as long as the runtime.
        load = self.runtime.eval(b"function(source, ...) return assert(loadstring(source))(...) end")
        load(_PRELUDE, self._called, self._sha1hex, self._encoded)

    def _called(self, *words: Any) -> Any:
        return self._given(self.call([_word(word) for word in words]))

    def _given(self, reply: Any) -> Any:
        """A reply as a script sees it."""
        if reply is None:
            return False
        if isinstance(reply, list):
            return self.runtime.table_from([self._given(item) for item in reply])
        if isinstance(reply, Status):
            return self.runtime.table_from({b"ok": bytes(reply)})
        return reply

    def reply(self, result: Any) -> Any:
        """A script's result as a client sees it."""
        if result is None or result is False:
            return None
        if result is True:
            return 1
        if isinstance(result, float):
            return int(result)
        if self._type(result) == "table":
            if result[b"ok"] is not None:
                return Status(result[b"ok"])
            return [self.reply(result[place]) for place in range(1, len(result) + 1)]
        return result

    @staticmethod
    def _sha1hex(text: bytes) -> bytes:
        return hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()

    @staticmethod
    def _encoded(table: Any) -> bytes:
        return json.dumps([table[place].decode("utf-8", "replace") for place in range(1, len(table) + 1)]).encode()


def _word(word: Any) -> bytes:
    if isinstance(word, bytes):
        return word
    return b"%d" % word if word == int(word) else repr(word).encode()


@cache
def _lua() -> _Lua:
    return _Lua()


@cache
def compiled(source: bytes) -> Script:
    """The script, compiled once in this process."""
    return Script(_lua(), source)

"""Every name that the cache gives to something in Redis. No other module builds one.

The entry of key K is `<namespace>:2:e:K`. 2 is the version of the envelope: a release with another version starts with an empty
cache instead of reading entries that it does not understand. The log's keys share a hash tag: one slot of a cluster.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from typing import Final

from pipeline.cache.errors import InvalidPatternError
from pipeline.cache.patterns.pattern import escape

ENVELOPE_VERSION: Final = 2
MAX_KEY_BYTES: Final = 256
"""Half of a pattern's limit: a key with each of its characters escaped is still a pattern."""


_PLAIN: Final = frozenset(string.ascii_letters + string.digits + "_.-")


def root_of(namespace: str) -> str:
    """The beginning of every name of a namespace. No other namespace's begins with it: any character but ASCII letters, digits,
    `_`, `.` and `-` is written as `%` and the hexadecimal of its UTF-8."""
    return "".join(char if char in _PLAIN else "".join(f"%{byte:02X}" for byte in char.encode()) for char in namespace)


class KeySpace:
    """The names under one namespace, as bytes, which need no encoding when they are sent."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        root = f"{root_of(namespace)}:{ENVELOPE_VERSION}"
        self._entry_prefix = f"{root}:e:".encode()
        self._lease_prefix = f"{root}:l:".encode()
        self._told_prefix = f"{root}:d:".encode()
        self._in_flight_prefix = f"{root}:t:".encode()
        self._refreshed_prefix = f"{root}:r:".encode()
        self._escaped_entry_prefix = escape(f"{root}:e:")
        self.tail = f"{{{root}:log}}:tail".encode()
        self.records = f"{{{root}:log}}:records".encode()
        self.marks = f"{{{root}:log}}:marks".encode()
        self.moments = f"{{{root}:log}}:moments".encode()
        self.nodes = f"{{{root}:log}}:nodes".encode()
        self.sweep = f"{{{root}:log}}:sweep".encode()
        self.probe = f"{root}:probe".encode()
        self._acknowledgements = f"{{{root}:log}}:ack:"
        self._notices = f"{{{root}:log}}:notices"

    def entry(self, key: str) -> bytes:
        return self._entry_prefix + key.encode(errors="surrogatepass")  # a text that cannot be a key is never written: a miss

    def key_of(self, entry: bytes) -> str:
        """The key whose entry has that name; the inverse of `entry`."""
        return entry.removeprefix(self._entry_prefix).decode(errors="replace")

    def lease(self, key: str) -> bytes:
        """The lease of the process that computes the key now."""
        return self._lease_prefix + key.encode()

    def in_flight(self, key: str) -> bytes:
        """The task that is queued or running for the key."""
        return self._in_flight_prefix + key.encode()

    def told(self, owner: str) -> bytes:
        """Where the owner of a lease tells those that wait for it that it is done."""
        return self._told_prefix + owner.encode(errors="surrogateescape")

    def refreshed(self, key: str) -> bytes:
        """The mark that the key was sent to be computed anew a moment ago."""
        return self._refreshed_prefix + key.encode()

    def acknowledgements(self, invalidation_id: str) -> bytes:
        return (self._acknowledgements + invalidation_id).encode()

    def notices(self, database: int) -> bytes:
        """The channel on which the server tells of what is appended to the log. A server's channels are those of all its
        databases: hence the number."""
        return f"{self._notices}@{database}".encode()

    def entries_matching(self, pattern: str) -> bytes:
        """The `SCAN MATCH` argument for the entries whose keys match `pattern`."""
        return (self._escaped_entry_prefix + pattern).encode()


def check_text(key: object) -> None:
    """Raises InvalidPatternError for a key that is not text. A text that cannot be a key is only a miss to a read."""
    if not isinstance(key, str):
        raise InvalidPatternError(f"key: expected text, got {type(key).__name__}")


def check_key(key: object) -> str:
    """Returns `key`. Raises InvalidPatternError when it is not text, empty, or over 256 bytes of UTF-8."""
    if not isinstance(key, str):
        raise InvalidPatternError(f"key: expected text, got {type(key).__name__}")
    if not key:
        raise InvalidPatternError("key: is empty")
    if key.isascii():  # a flag of the text itself: only other keys are encoded twice
        size = len(key)
    else:
        try:
            size = len(key.encode())
        except UnicodeEncodeError:
            raise InvalidPatternError("key: is not valid Unicode") from None
    if size > MAX_KEY_BYTES:
        raise InvalidPatternError(f"key: has {size} bytes; allowed are up to {MAX_KEY_BYTES}")
    return key


def check_deps(deps: Iterable[str]) -> tuple[str, ...]:
    """The keys that an entry depends on. Raises InvalidPatternError for an invalid key, or if a single string is passed."""
    if isinstance(deps, str):
        raise InvalidPatternError("deps: expected several keys, got a text; write (key,) for one")
    return tuple(check_key(dep) for dep in deps)

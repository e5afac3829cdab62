"""The errors of the cache. None of them is raised by a read: a read that cannot be served is a miss."""

from __future__ import annotations


class CacheError(Exception):
    """Root of what the cache raises on purpose."""


class UncacheableValueError(CacheError, TypeError):
    """A value that JSON cannot carry. The message names where in the value it is."""


class UncacheableFunctionError(CacheError, TypeError):
    """A function whose calls cannot be told apart by a key, or that has not done its work when it returns. The message says what
    to write."""


class InvalidPatternError(CacheError, ValueError):
    """A pattern or key that cannot be one: empty, too long, not text, or with an open bracket."""


class SharedTierUnavailableError(CacheError, ConnectionError):
    """Redis did not answer in time, or refused. Stays inside the cache: a caller sees a miss, or `durable=False`."""

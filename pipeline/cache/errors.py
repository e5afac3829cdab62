"""The errors of the cache. A read raises none of them because of what it finds: one that cannot be served is a miss."""

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


class CyclicComputationError(CacheError, RuntimeError):
    """Computations of several threads wait for each other. The message names their keys, in the order in which they wait."""


class SharedTierUnavailableError(CacheError, ConnectionError):
    """Redis did not answer in time, or refused. Stays inside the cache: a caller sees a miss, or `durable=False`."""


class ReentrantUseError(SharedTierUnavailableError):
    """A signal handler or finalizer asked for what its own thread was in the middle of changing. A read is a miss then; only who
    invalidates sees this, and may have been heard by the others."""

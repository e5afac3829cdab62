"""The errors of the cache. A read raises none of them because of the entry it finds: one that cannot be served is a miss."""

from __future__ import annotations


class CacheError(Exception):
    """Base class of every error that the cache raises on purpose."""


class UncacheableValueError(CacheError, TypeError):
    """A value that JSON cannot carry. The message names the place within the value."""


class UncacheableFunctionError(CacheError, TypeError):
    """A function whose calls a key cannot tell apart, or which returns before its work is done. The message says what to write
    instead."""


class InvalidPatternError(CacheError, ValueError):
    """A malformed pattern or key: empty, too long, not text, or with an open bracket."""


class CyclicComputationError(CacheError, RuntimeError):
    """Computations of several threads wait for each other. The message names their keys, in the order of the waits."""


class SharedTierUnavailableError(CacheError, ConnectionError):
    """Redis did not answer in time, or refused. Stays inside the cache: a caller sees a miss, or `durable=False`."""


class ReentrantUseError(SharedTierUnavailableError):
    """A signal handler or finalizer needed state that its own thread was changing at that moment. A read is a miss then. Only an
    invalidation raises this, and other processes may have heard of it all the same."""

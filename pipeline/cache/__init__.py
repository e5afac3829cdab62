"""A coherent two-tier cache: values, the keys they depend on, and the invalidation of both.

Knows nothing of personas. Imports itself, msgspec and the standard library, and no Redis client.
"""

from pipeline.cache.aio.face import AsyncCache
from pipeline.cache.coherence.process import Invalidation
from pipeline.cache.decorators.decorator import cached
from pipeline.cache.decorators.default import provide_default_cache
from pipeline.cache.decorators.faces import AsyncCachedFunction, CachedFunction
from pipeline.cache.decorators.invalidation import invalidate_cache
from pipeline.cache.entry import MISS, AsOf
from pipeline.cache.errors import (
    CacheError,
    CyclicComputationError,
    InvalidPatternError,
    ReentrantUseError,
    SharedTierUnavailableError,
    UncacheableFunctionError,
    UncacheableValueError,
)
from pipeline.cache.grace import Grace
from pipeline.cache.kind import Kind
from pipeline.cache.memory.local import LocalCache
from pipeline.cache.patterns.segments import key_of, pattern_for
from pipeline.cache.server.shared import RedisCache
from pipeline.cache.tiers import Found
from pipeline.cache.two_tier import TwoTierCache

__all__ = [
    "MISS",
    "AsOf",
    "AsyncCache",
    "AsyncCachedFunction",
    "CacheError",
    "CachedFunction",
    "CyclicComputationError",
    "Found",
    "Grace",
    "InvalidPatternError",
    "Invalidation",
    "Kind",
    "LocalCache",
    "RedisCache",
    "ReentrantUseError",
    "SharedTierUnavailableError",
    "TwoTierCache",
    "UncacheableFunctionError",
    "UncacheableValueError",
    "cached",
    "invalidate_cache",
    "key_of",
    "pattern_for",
    "provide_default_cache",
]

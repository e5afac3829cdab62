"""A coherent two-tier cache. Knows nothing of personas: it imports itself, msgspec and the standard library."""

from pipeline.cache.coherence import Invalidation
from pipeline.cache.decorators import cached, invalidate_cache, provide_default_cache
from pipeline.cache.entry import AsOf
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
from pipeline.cache.local import LocalCache
from pipeline.cache.miss import MISS
from pipeline.cache.segments import key_of, pattern_for
from pipeline.cache.shared import RedisCache
from pipeline.cache.tiers import Found
from pipeline.cache.two_tier import TwoTierCache

__all__ = [
    "MISS",
    "AsOf",
    "CacheError",
    "CyclicComputationError",
    "Found",
    "Grace",
    "InvalidPatternError",
    "Invalidation",
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

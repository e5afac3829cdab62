"""The persona pipeline behind a coherent two-tier cache: a request in, an answer out.

Runs in any program. Never imports Celery or `workers`.
"""

from pipeline.assembly import get_optimized_pipeline
from pipeline.cache import MISS, LocalCache, RedisCache, TwoTierCache, cached, invalidate_cache, key_of, pattern_for
from pipeline.models import ChatContext, PersonaRequest, PersonaResponse, ResonanceKey
from pipeline.optimized import OptimizedPipeline
from pipeline.persona_pipeline import PersonaPipeline, get_pipeline

__all__ = [
    "MISS",
    "ChatContext",
    "LocalCache",
    "OptimizedPipeline",
    "PersonaPipeline",
    "PersonaRequest",
    "PersonaResponse",
    "RedisCache",
    "ResonanceKey",
    "TwoTierCache",
    "cached",
    "get_optimized_pipeline",
    "get_pipeline",
    "invalidate_cache",
    "key_of",
    "pattern_for",
]

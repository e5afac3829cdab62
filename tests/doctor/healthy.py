"""Ten stacks that are well, each in its own way."""

from __future__ import annotations

from typing import Any, Final

HEALTHY: Final[dict[str, dict[str, Any]]] = {
    "one node of two children": {"concurrency": 2},
    "three nodes": {"nodes": 3},
    "a pool of greenlets": {"pool": "gevent", "concurrency": 4},
    "servers with a password": {"password": "a-good-password"},
    "TLS before both servers": {"tls": True},
    "the cache at a unix socket": {"unix_socket": True},
    "a namespace and a bound of its own": {
        "environ": {"PERSONA_CACHE_NAMESPACE": "team-b", "PERSONA_STALENESS_BOUND_S": "5", "PERSONA_STRICT": "true"}
    },
    "no model, no door, no listening": {"environ": {"PERSONA_LLM_URL": "", "PERSONA_DOOR": "false", "PERSONA_LISTEN": "false"}},
    "short lives and small tiers": {
        "environ": {"PERSONA_MAX_TTL_S": "7200", "PERSONA_RESULT_TTL_S": "600", "PERSONA_L1_MAX_ENTRIES": "10"}
    },
    "no preload, a quick beat, logs as JSON": {
        "environ": {"PERSONA_PRELOAD_BUDGET": "0", "PERSONA_BEAT_LOCK_S": "10", "PERSONA_LOG": "json"}
    },
}

"""Every key of the pipeline's entries, how long they live, and what they depend on.

| kind                     | key                                       | TTL    | depends on                      |
|--------------------------|-------------------------------------------|--------|---------------------------------|
| routing                  | `routing:<resonance>`                     | 3600 s |                                 |
| persona info             | `persona:<persona>:info`                  | 3600 s |                                 |
| prompt template          | `prompt:<persona>:<resonance>`            | 3600 s | the persona info                |
| response                 | `persona:<persona>:<resonance>:<digest>`  | 600 s  | its routing, template and info  |
| response, with a context | the same, the digest over the context too | 60 s   | the same, and `user:<id>`       |
"""

from __future__ import annotations

import hashlib
from typing import Final
from urllib.parse import quote

import msgspec

from pipeline.models import ChatContext, PersonaRequest

ROUTING_TTL_S: Final = 3600
INFO_TTL_S: Final = 3600
TEMPLATE_TTL_S: Final = 3600
RESPONSE_TTL_S: Final = 600
PERSONAL_TTL_S: Final = 60
LONGEST_TTL_S: Final = 7200
"""How long the log remembers: the longest TTL above, and as much again for what is served past its TTL."""

MAX_QUOTED_USER_CHARS: Final = 200

_encode = msgspec.json.Encoder().encode


def routing_key(resonance: str) -> str:
    return "routing:" + resonance


def info_key(slug: str) -> str:
    return f"persona:{slug}:info"


def template_key(slug: str, resonance: str) -> str:
    return f"prompt:{slug}:{resonance}"


def user_key(user_id: str) -> str:
    """One segment, different for different ids, without a character that a pattern would read as a wildcard.

    An id that would be too long for a key stands as `=` and its digest; no other is written with a `=`.
    """
    quoted = quote(user_id, safe="@+")
    if len(quoted) > MAX_QUOTED_USER_CHARS:
        quoted = "=" + hashlib.blake2b(user_id.encode(), digest_size=16).hexdigest()
    return "user:" + quoted


def response_key(slug: str, request: PersonaRequest, made_by: str) -> str:
    """The key of an answer. `made_by` stands for all that shapes it beside the request: prompts, model and parameters.

    The digest has 128 bits over the whole of both, written as JSON, so that no two fields can run into each other.
    """
    context = request.context
    digest = hashlib.blake2b(
        _encode((made_by, slug, request.resonance_key, request.user_input, context)), digest_size=16
    ).hexdigest()
    return f"persona:{slug}:{request.resonance_key}:{digest}"


def resonance_of(response_key: str) -> str:
    """The resonance key within an answer's."""
    return response_key.split(":")[2]


def response_ttl_s(context: ChatContext | None) -> int:
    return PERSONAL_TTL_S if context is not None and context.is_personal else RESPONSE_TTL_S


def response_deps(slug: str, request: PersonaRequest) -> tuple[str, ...]:
    """What an answer was computed from: whoever invalidates one of these invalidates the answer."""
    resonance = request.resonance_key
    deps: tuple[str, ...] = (routing_key(resonance), template_key(slug, resonance), info_key(slug))
    if request.context is not None and request.context.user_id is not None:
        deps += (user_key(request.context.user_id),)
    return deps

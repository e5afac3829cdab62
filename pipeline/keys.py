"""Every key of the pipeline's entries, how long they live, and what they depend on. A further stage is a line in this table, and
a method of OptimizedPipeline.

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
from collections.abc import Container
from typing import Final

import msgspec

from pipeline.cache import Kind
from pipeline.cache.errors import InvalidPatternError
from pipeline.cache.patterns.pattern import leading_literal, parse
from pipeline.cache.patterns.segments import data_of, key_of, pattern_for
from pipeline.errors import InvalidRequestError
from pipeline.models import ChatContext, PersonaRequest, PersonaResponse, checked_user_id
from pipeline.personas import PersonaInfo
from pipeline.prompts import PromptTemplate
from pipeline.routing import Routing

ROUTING_TTL_S: Final = 3600
INFO_TTL_S: Final = 3600
TEMPLATE_TTL_S: Final = 3600
RESPONSE_TTL_S: Final = 600
PERSONAL_TTL_S: Final = 60
ROUTING: Final = Kind(Routing, ROUTING_TTL_S)
INFO: Final = Kind(PersonaInfo, INFO_TTL_S)
TEMPLATE: Final = Kind(PromptTemplate, TEMPLATE_TTL_S)
RESPONSE: Final = Kind(PersonaResponse, RESPONSE_TTL_S)
PERSONAL: Final = Kind(PersonaResponse, PERSONAL_TTL_S)
LONGEST_TTL_S: Final = 7200
"""The least time that the log remembers: the longest TTL above, and as much again for entries served past their TTL."""

_USER: Final = "user:"
_encode = msgspec.json.Encoder().encode


def routing_key(resonance: str) -> str:
    return "routing:" + resonance


def info_key(slug: str) -> str:
    return f"persona:{slug}:info"


def template_key(slug: str, resonance: str) -> str:
    return f"prompt:{slug}:{resonance}"


def persona_pattern(slug: str) -> str:
    """Everything of a persona: its info and its answers. Its templates depend on the info."""
    return pattern_for("persona", slug, ...)


def user_key(user_id: str) -> str:
    """One segment, different for different ids, without a character that a pattern would read as a wildcard. See `key_of`."""
    return key_of("user", user_id)


def user_key_to_invalidate(user_id: object) -> str:
    """The key of a user that a request may name. Raises InvalidRequestError for any other id: no entry depends on it."""
    return user_key(checked_user_id(user_id))


def check_pattern(text: object) -> str:
    """Returns the pattern. Raises InvalidPatternError for a malformed one, and for one within `user:` that is not a user's key.

    An id is data, and stands encoded in the key: raw, it would match no user's key, or with a `*` in it other users'.
    """
    try:
        pattern = parse(text)
    except InvalidPatternError:
        if isinstance(text, str) and text.startswith(_USER):
            raise _no_users_key(text) from None  # the id is to blame, rather than the pattern
        raise
    literal = pattern.subject if pattern.kind != "glob" else leading_literal(pattern.text)
    if not literal.startswith(_USER) or pattern.text == _USER + "*":
        return pattern.text
    id_as_written = literal.removeprefix(_USER)
    if pattern.kind == "exact" and _is_of_user(id_as_written):
        return pattern.text
    raise _no_users_key(pattern.text)


def _no_users_key(text: str) -> InvalidPatternError:
    shown = text if len(text) <= 60 else text[:57] + "..."
    return InvalidPatternError(
        f"pattern: {shown!r} is not a user's key, in which the id is encoded; write invalidate_user(id), or "
        "`persona invalidate --user ID`; 'user:*' means every user"
    )


def _is_of_user(segment: str) -> bool:
    user_id = data_of(segment)
    if user_id is None:
        return False
    if user_id == segment and segment.startswith("="):
        return True  # a digest
    try:
        checked_user_id(user_id)
    except InvalidRequestError:
        return False
    return True


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
    """The resonance key within an answer's key."""
    return response_key.split(":")[2]


def parts_of(key: str) -> tuple[str, str] | None:
    """The persona and the resonance within an answer's key; None for any other key."""
    kind, _, rest = key.partition(":")
    parts = rest.split(":")
    return (parts[0], parts[1]) if kind == "persona" and len(parts) == 3 else None


def response_kind(context: ChatContext | None) -> Kind:
    return PERSONAL if context is not None and context.is_personal else RESPONSE


def response_deps(slug: str, request: PersonaRequest) -> tuple[str, ...]:
    """The keys that an answer was computed from: an invalidation of any of them invalidates the answer."""
    resonance = request.resonance_key
    deps: tuple[str, ...] = (routing_key(resonance), template_key(slug, resonance), info_key(slug))
    if request.context is not None and request.context.user_id is not None:
        deps += (user_key(request.context.user_id),)
    return deps


def deps_of(key: str, slugs: Container[str]) -> tuple[str, ...]:
    """What a value of that key is computed from, if the key is the pipeline's and its persona one of `slugs`; else nothing. An
    answer's key has no user."""
    kind, _, rest = key.partition(":")
    slug, _, resonance = rest.partition(":")
    if kind == "prompt":
        return (info_key(slug),)
    if kind != "persona" or slug not in slugs or resonance.count(":") != 1:
        return ()
    resonance = resonance.partition(":")[0]
    return routing_key(resonance), template_key(slug, resonance), info_key(slug)

"""Requests and responses: frozen, typed, strictly validated, and the same in every process and language.

A request that was accepted here is normalised: two requests that differ only in Unicode form, line ends or outer white
space are equal, share one cache key and one prompt.
"""

from __future__ import annotations

import unicodedata
from typing import Any, Final, Literal, Self, TypedDict

import msgspec

from pipeline.cache.encoding.decoders import ready
from pipeline.errors import InvalidRequestError

TONES: Final = (
    "frustrated",
    "playful",
    "anxious",
    "analytical",
    "calm",
    "curious",
    "urgent",
    "confused",
    "collaborative",
)
PACES: Final = ("burst", "flowing", "contemplative", "medium")
INTENTS: Final = ("seek_advice", "problem_solving", "learning", "validation", "planning", "reflection")
RESONANCES: Final = tuple(f"{tone}-{pace}-{intent}" for tone in TONES for pace in PACES for intent in INTENTS)
"""Every resonance key."""
INTENT_SPELLINGS: Final = {"seeking_advice": "seek_advice"}

MAX_INPUT_CHARS: Final = 8_000
MAX_USER_ID_CHARS: Final = 128
MAX_NAME_CHARS: Final = 80
MAX_MESSAGES: Final = 50
MAX_REQUEST_CHARS: Final = 120_000
"""Of the input and all messages together: in every script its message is shorter than the longest that a worker reads."""
MAX_AGE_S: Final = 7 * 86_400
_WIDEST: Final = 8
"""No character is normalised from more. What is longer than this many times its bound is not normalised, only refused."""

Language = Literal["en", "ko"]
Source = Literal["l1", "l2", "joined", "stale", "no"]


@ready
class ResonanceKey(msgspec.Struct, frozen=True, order=True):
    """How a request sounds: `tone-pace-intent`, of 9 x 4 x 6 known words."""

    tone: str
    pace: str
    intent: str

    @classmethod
    def parse(cls, text: object) -> Self:
        """Read `tone-pace-intent`. Case does not count, `-` stands for `_` in an intent, `seeking_advice` is `seek_advice`.

        Raises InvalidRequestError naming `resonance_key`, the part, its value and the words that are allowed.
        """
        if not isinstance(text, str):
            raise InvalidRequestError("resonance_key", f"expected text, got {_kind(text)}; write 'tone-pace-intent'")
        parts = text.strip().lower().split("-")
        if len(parts) < 3:
            raise InvalidRequestError("resonance_key", f"{_quote(text)} has {len(parts)} part(s), expected 3: 'tone-pace-intent'")
        tone, pace = parts[0], parts[1]
        intent = "_".join(parts[2:])
        intent = INTENT_SPELLINGS.get(intent, intent)
        for part, word, allowed in (("tone", tone, TONES), ("pace", pace, PACES)):
            if word not in allowed:
                raise InvalidRequestError("resonance_key", _unknown(part, word, allowed))
        if intent not in INTENTS:
            # `problem-solving` is one intent written in two parts; any further part is one too many.
            extra = f" ({len(parts)} parts, expected 3: 'tone-pace-intent')" if len(parts) > 3 else ""
            raise InvalidRequestError("resonance_key", _unknown("intent", intent, INTENTS) + extra)
        return cls(tone, pace, intent)

    def __str__(self) -> str:
        return f"{self.tone}-{self.pace}-{self.intent}"


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One earlier turn of the conversation."""

    role: Literal["user", "assistant"]
    content: str


class ChatContext(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The facts known beside the input. With any of them, the answer is cached apart and for 60 s only.

    `user_id` ties the answer to one user: no other user is served it, and `invalidate_user(id)` drops it.
    """

    user_id: str | None = None
    user_name: str | None = None
    language: Language | None = None
    history: tuple[Message, ...] = ()

    @property
    def is_personal(self) -> bool:
        """Whether an answer made with this context belongs to one user or conversation."""
        return bool(self.user_id or self.user_name or self.history)


class RequestOptions(TypedDict, total=False):
    """What a request may say of the cache: see PersonaRequest. `use_cache`: True unless given. `max_age_s`: None unless given."""

    use_cache: bool
    max_age_s: float | None


@ready
class PersonaRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One request as it is sent: plain JSON, so that a producer in any language can send it.

    Build it with `create` or `from_wire`; both validate and normalise. `max_age_s` limits which answers may be served past their
    time to live, while they are computed anew or when the model fails: none that was computed longer ago; 0 means none at all,
    None leaves it to the workers' grace. Answers within their time to live are served in any case.
    """

    user_input: str
    resonance_key: str
    context: ChatContext | None = None
    use_cache: bool = True
    max_age_s: float | None = None

    @classmethod
    def create(
        cls,
        user_input: object,
        resonance_key: object,
        context: ChatContext | dict[str, Any] | None = None,
        use_cache: bool = True,
        max_age_s: float | None = None,
    ) -> Self:
        """A validated, normalised request. Raises InvalidRequestError naming the field, the value and what is allowed."""
        text = _text("user_input", user_input, MAX_INPUT_CHARS)
        return cls(
            user_input=text,
            resonance_key=str(ResonanceKey.parse(resonance_key)),
            context=_context(context, MAX_REQUEST_CHARS - len(text)),
            use_cache=_flag("use_cache", use_cache),
            max_age_s=_age("max_age_s", max_age_s),
        )

    @classmethod
    def from_wire(cls, wire: object) -> Self:
        """The request that a JSON object carries. Raises InvalidRequestError."""
        if not isinstance(wire, dict):
            raise InvalidRequestError("request", f"expected an object with {_fields(cls)}, got {_kind(wire)}")
        for name in wire:
            if name not in cls.__struct_fields__:
                raise InvalidRequestError(_name(name), f"unknown field; allowed are {_fields(cls)}")
        for name in ("user_input", "resonance_key"):
            if name not in wire:
                raise InvalidRequestError(name, f"missing; a request has {_fields(cls)}")
        return cls.create(**wire)

    def to_wire(self) -> dict[str, Any]:
        """The JSON object that `from_wire` reads."""
        wire: dict[str, Any] = msgspec.to_builtins(self)
        return wire

    @property
    def resonance(self) -> ResonanceKey:
        return ResonanceKey.parse(self.resonance_key)


class PersonaScore(msgspec.Struct, frozen=True):
    """One persona's share in a routing, 0.0-1.0."""

    persona: str
    score: float


@ready
class PersonaResponse(msgspec.Struct, frozen=True):
    """The answer and its source.

    `cached` is the wire's word for the source: `l1`, `l2`, `joined`, `stale` or `no` (computed by this call). It is a text, so
    that `no`, too, is true in an `if`: programs use `hit` and `source`. `execution_time_ms` is this call's own, not that of the
    call which computed the answer. `degraded` is true when the caches could not be confirmed against each other, because Redis
    was out of reach. `model` is `prompt` when no model is configured.
    """

    content: str
    persona: str
    confidence: float
    reason: str
    resonance_key: str
    scores: tuple[PersonaScore, ...]
    language: Language
    model: str
    cached: Source = "no"
    execution_time_ms: float = 0.0
    degraded: bool = False

    @property
    def hit(self) -> bool:
        """Whether this call computed nothing: the answer was in a tier, also one past its time to live (`stale`), or
        another caller's computation brought it (`joined`)."""
        return self.cached != "no"

    @property
    def source(self) -> Source:
        """The answer's source: `l1`, `l2`, `joined`, `stale` or `no`."""
        return self.cached

    @classmethod
    def from_wire(cls, wire: object) -> Self:
        """The response in a task's result."""
        return msgspec.convert(wire, cls)

    def to_wire(self) -> dict[str, Any]:
        wire: dict[str, Any] = msgspec.to_builtins(self)
        return wire


def _text(field: str, value: object, max_chars: int) -> str:
    if not isinstance(value, str):
        raise InvalidRequestError(field, f"expected text, got {_kind(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequestError(field, f"is not valid Unicode: a lone surrogate at character {error.start}") from None
    text = value.strip()
    if len(text) <= _WIDEST * max_chars:
        text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()
    if not text:
        raise InvalidRequestError(field, f"is empty; expected 1 to {max_chars} characters")
    if len(text) > max_chars:
        raise InvalidRequestError(field, f"has {len(text)} characters; allowed are 1 to {max_chars}")
    return text


def _identifier(field: str, value: object, max_chars: int) -> str:
    """Kept to the letter: two ids that only look alike stay two ids."""
    if not isinstance(value, str):
        raise InvalidRequestError(field, f"expected text, got {_kind(value)}")
    if not 1 <= len(value) <= max_chars or not value.isprintable() or value != value.strip():
        raise InvalidRequestError(field, f"{_quote(value)}: expected 1 to {max_chars} printable characters, no outer space")
    return value


def checked_user_id(value: object) -> str:
    """Returns an id that a request's context may name. Raises InvalidRequestError naming `user_id`."""
    return _identifier("user_id", value, MAX_USER_ID_CHARS)


def _flag(field: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequestError(field, f"expected true or false, got {_kind(value)}")
    return value


def _age(field: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(field, f"expected seconds as a number, got {_kind(value)}")
    if not 0 <= value <= MAX_AGE_S:
        raise InvalidRequestError(field, f"{_quote(value)}; expected 0 to {MAX_AGE_S} seconds")
    return float(value)


def _context(value: object, most_chars: int) -> ChatContext | None:
    if value is None:
        return None
    if isinstance(value, ChatContext):
        value = msgspec.structs.asdict(value)
    if not isinstance(value, dict):
        raise InvalidRequestError("context", f"expected an object with {_fields(ChatContext)}, got {_kind(value)}")
    for name in value:
        if name not in ChatContext.__struct_fields__:
            raise InvalidRequestError(f"context.{_name(name)}", f"unknown field; allowed are {_fields(ChatContext)}")
    user_id, user_name, language = value.get("user_id"), value.get("user_name"), value.get("language")
    if language not in (None, "en", "ko"):
        raise InvalidRequestError("context.language", f"{_quote(language)}; allowed are 'en' and 'ko'")
    context = ChatContext(
        user_id=None if user_id is None else _identifier("context.user_id", user_id, MAX_USER_ID_CHARS),
        user_name=None if user_name is None else _text("context.user_name", user_name, MAX_NAME_CHARS),
        language=language,
        history=_history(value.get("history", ()), most_chars),
    )
    return None if context == ChatContext() else context


def _history(value: object, most_chars: int) -> tuple[Message, ...]:
    if not isinstance(value, list | tuple):
        raise InvalidRequestError("context.history", f"expected a list of messages, got {_kind(value)}")
    if len(value) > MAX_MESSAGES:
        raise InvalidRequestError("context.history", f"has {len(value)} messages; allowed are up to {MAX_MESSAGES}")
    messages = []
    for number, item in enumerate(value):
        field = f"context.history[{number}]"
        if isinstance(item, Message):
            item = msgspec.structs.asdict(item)  # noqa: PLW2901 - from here on it is judged like any other object
        if not isinstance(item, dict):
            raise InvalidRequestError(field, f"expected an object with {_fields(Message)}, got {_kind(item)}")
        for name in item:
            if name not in Message.__struct_fields__:
                raise InvalidRequestError(f"{field}.{_name(name)}", f"unknown field; allowed are {_fields(Message)}")
        role = item.get("role")
        if role not in ("user", "assistant"):
            raise InvalidRequestError(f"{field}.role", f"{_quote(role)}; allowed are 'user' and 'assistant'")
        messages.append(Message(role=role, content=_text(f"{field}.content", item.get("content"), MAX_INPUT_CHARS)))
    chars = sum(len(message.content) for message in messages)
    if chars > most_chars:
        raise InvalidRequestError(
            "context.history",
            f"has {chars} characters; allowed are up to {most_chars} beside this user_input, {MAX_REQUEST_CHARS} in all",
        )
    return tuple(messages)


def _unknown(part: str, word: str, allowed: tuple[str, ...]) -> str:
    return f"unknown {part} {_quote(word)}; allowed are {', '.join(allowed)}"


def _fields(struct: type[msgspec.Struct]) -> str:
    return ", ".join(struct.__struct_fields__)


def _quote(value: object) -> str:
    """A value for an error message: short, and without control characters."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "a number too long to show"
    return text if len(text) <= 60 else text[:57] + "..."


def _name(name: object) -> str:
    """A field's name from outside, for an error message."""
    return name if isinstance(name, str) and name.isprintable() and 0 < len(name) <= 60 else _quote(name)


def _kind(value: object) -> str:
    names = {type(None): "null", bool: "true/false", int: "a number", float: "a number", str: "text", list: "a list",
             tuple: "a list", dict: "an object", bytes: "bytes"}  # fmt: skip
    return names.get(type(value), type(value).__name__)

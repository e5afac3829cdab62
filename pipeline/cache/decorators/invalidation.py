"""`@invalidate_cache`: an invalidation after a function."""

from __future__ import annotations

import functools
import inspect
import string
from collections.abc import Callable, Iterable
from typing import Any, Final, ParamSpec, TypeVar, cast

from pipeline.cache.decorators import deferred
from pipeline.cache.decorators.default import cache_or_default
from pipeline.cache.decorators.refusals import is_async, refuse_generator, refuse_uncallable, signature_of
from pipeline.cache.errors import InvalidPatternError, UncacheableFunctionError
from pipeline.cache.patterns.pattern import escape, parse
from pipeline.cache.patterns.prefixes import name_of
from pipeline.cache.patterns.segments import MAX_ALONE_CHARS, MAX_CHARS, written
from pipeline.cache.two_tier import TwoTierCache

P = ParamSpec("P")
T = TypeVar("T")
Pattern = str | Callable[..., str | Iterable[str]]

_fields: Final = string.Formatter()
_PLACE: Final = "x"
"""In the place of an argument, where a template is checked before there is one."""


def invalidate_cache(
    pattern: Pattern, *more: Pattern, cache: TwoTierCache | None = None
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Invalidate these patterns each time the function, or the coroutine function, has done its work. Not when it failed: nothing
    has changed then.

    A pattern may be made of the arguments: by their names in braces, `"user:{user_id}:*"` (`{{` is a brace), or by a function
    that is called as the decorated one is and returns a pattern, or several. What stands in braces is data: nothing in it is a
    wildcard, and it is found both where a key was written with it as it is, and where `key_of` has written it.

    If a plain function returns a future or an awaitable, the caller gets one that ends after the invalidation (which, in an event
    loop, takes that loop's time: a round trip, and the cache's time-out at most; a coroutine function's takes none of it). Other
    results whose work is not done (a generator, a Celery result) are refused.

    Raises InvalidPatternError and UncacheableFunctionError when it decorates; the latter also when the function has returned a
    result that cannot be waited for, the former when a pattern made of the arguments is none.
    """
    given = (pattern, *more)
    for each in given:
        if not callable(each):
            parse(_template_of(each, lambda _: _PLACE))

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        if isinstance(function, staticmethod | classmethod):
            return function.__class__(decorate(function.__func__))
        name = name_of(function)
        refuse_uncallable(function, name)
        refuse_generator(function, name, "invalidate_cache")
        patterns = _Patterns(given, function, name)
        if is_async(function):

            @functools.wraps(function)
            async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                result = await cast("Any", function)(*args, **kwargs)
                await cache_or_default(cache).aio.invalidate(*patterns.of(args, kwargs))
                return result

            return cast("Callable[P, T]", awaited)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            def invalidate() -> None:
                cache_or_default(cache).invalidate(*patterns.of(args, kwargs))

            result = function(*args, **kwargs)
            if not deferred.is_deferred(result):
                invalidate()
                return result
            if not deferred.can_be_followed(result):
                deferred.give_up(result)
                raise UncacheableFunctionError(
                    f"{name}: returned a {type(result).__name__}, whose work is not done; invalidate where it ends, or return "
                    "its outcome"
                )
            outcome: T = deferred.once_done(result, invalidate)
            return outcome

        return call

    return decorate


class _Patterns:
    """The patterns of a function's calls."""

    def __init__(self, given: tuple[Pattern, ...], function: Callable[..., object], name: str) -> None:
        self._given = given
        self._name = name
        self._signature: inspect.Signature | None = None
        wanted = {field for each in given if not callable(each) for field in _names_in(each)}
        if wanted:
            self._signature = signature_of(function, name, ())
            for field in sorted(wanted - self._signature.parameters.keys()):
                raise InvalidPatternError(f"{name}: has no parameter {field!r}, which the pattern names; write {{{{ for a brace")

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
        """Those of that call."""
        arguments: dict[str, Any] = {}
        if self._signature is not None:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            arguments = bound.arguments
        made: dict[str, None] = {}
        for each in self._given:
            if callable(each):
                several = each(*args, **kwargs)
                made |= dict.fromkeys([several] if isinstance(several, str) else several)
            elif self._signature is None:
                made[_template_of(each, lambda _: _PLACE)] = None
            else:
                # A key may hold the data as it is, or as `key_of` writes it, alone or beside other parts.
                for write in (escape, _written_alone, _written_beside):
                    made[self._made(each, write, arguments)] = None
        return list(made)

    def _made(self, template: str, write: Callable[[str], str], arguments: dict[str, Any]) -> str:
        return parse(_template_of(template, lambda field: write(self._text(field, arguments)))).text

    def _text(self, field: str, arguments: dict[str, Any]) -> str:
        value = _fields.get_field(field, (), arguments)[0]
        if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            return str(value)
        raise InvalidPatternError(
            f"{self._name}: {field} is a {type(value).__name__}; a pattern is made of text and whole numbers, anything else by a "
            "function"
        )


def _written_alone(text: str) -> str:
    return written(text, MAX_ALONE_CHARS)


def _written_beside(text: str) -> str:
    return written(text, MAX_CHARS)


def _template_of(pattern: object, of: Callable[[str], str]) -> str:
    """The pattern with its fields written by that function."""
    if not isinstance(pattern, str) or ("{" not in pattern and "}" not in pattern):
        return parse(pattern).text
    try:
        parts = list(_fields.parse(pattern))
    except ValueError as error:
        raise InvalidPatternError(f"pattern: {error}; write {{{{ or }}}} for a brace itself") from None
    text = ""
    for literal, field, spec, conversion in parts:
        text += literal
        if field is not None:
            if not field or spec or conversion:
                raise InvalidPatternError(f"pattern: {pattern!r} has a field that is no parameter's name")
            text += of(field)
    return text


def _names_in(pattern: str) -> list[str]:
    """The parameters that a template names."""
    names: list[str] = []
    _template_of(pattern, lambda field: names.append(field.partition(".")[0].partition("[")[0]) or _PLACE)  # type: ignore[func-returns-value]  # for the effect
    return names

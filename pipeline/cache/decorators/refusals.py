"""Which functions a decorator refuses, where they are written, and what to write instead."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Collection
from typing import Any, Final

from pipeline.cache.errors import InvalidPatternError, UncacheableFunctionError
from pipeline.cache.keys import MAX_KEY_BYTES
from pipeline.cache.patterns.segments import check_prefix

MAX_PREFIX_BYTES: Final = MAX_KEY_BYTES - 33
"""The room that a digest and its colon leave in a key."""
_PROGRAMS: Final = frozenset(("__main__", "__mp_main__"))
_RECEIVERS: Final = frozenset(("self", "cls", "mcs", "metacls"))


def check_key_prefix(key_prefix: object) -> None:
    """Raises InvalidPatternError for a prefix that has wildcards, or leaves no room for a digest."""
    size = len(check_prefix(key_prefix, "key_prefix").encode())
    if size > MAX_PREFIX_BYTES:
        raise InvalidPatternError(f"key_prefix: has {size} bytes; allowed are up to {MAX_PREFIX_BYTES}")


def own_prefix(function: object, name: str) -> str:
    """The prefix made of the function's own name, if that identifies the function, in every process and at any time."""
    if not isinstance(function, types.FunctionType):
        raise UncacheableFunctionError(
            f"{name}: its key would not tell which object it is bound to or made of; name it with key_prefix="
        )
    if function.__name__ == "<lambda>":
        raise UncacheableFunctionError(f"{name}: a lambda has no name that tells it from another; write key_prefix=")
    if free := function.__code__.co_freevars:
        raise UncacheableFunctionError(
            f"{name}: closes over {', '.join(free)}, which would not be in the key; make that an argument, or name the function "
            "with key_prefix= (of several decorators, let `cached` be the innermost)"
        )
    module = function.__module__
    if not isinstance(module, str) or module in _PROGRAMS:
        raise UncacheableFunctionError(
            f"{name}: belongs to {module}, as which every program runs; write key_prefix={function.__name__!r}, or a name that "
            "no other program of yours uses"
        )
    prefix = f"{module}.{function.__qualname__}"
    check_key_prefix(prefix)
    return prefix


def refuse_uncallable(function: object, name: str) -> None:
    if not callable(function):
        raise UncacheableFunctionError(f"{name}: is not a function; decorate the function within it")


def is_async(function: Any) -> bool:
    """Whether its calls are to be awaited."""
    return any(inspect.iscoroutinefunction(each) for each in _within(function))


def refuse_generator(function: Any, name: str, decorator: str) -> None:
    """Refuse a function that returns before its work has begun, and whose outcome cannot be awaited."""
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in _within(function)):
        raise UncacheableFunctionError(
            f"{name}: `{decorator}` is for functions that return their outcome; a generator has done nothing yet when it returns"
        )


def _within(function: Any) -> list[Any]:
    """The function and those that it is made of, as far as one can tell without calling it."""
    within = [function]
    while isinstance(within[-1], functools.partial):
        within.append(within[-1].func)
    if not isinstance(within[-1], types.FunctionType | types.MethodType | type):
        within.append(getattr(type(within[-1]), "__call__", None))  # noqa: B004 - that of an object's class is what is called
    return within


def refuse_method(function: object, name: str, ignored: Collection[str]) -> None:
    """Refuse a function that takes the object that it is called on, which is not part of a key."""
    if not isinstance(function, types.FunctionType):
        return
    scope, _, _ = function.__qualname__.rpartition(".")
    code = function.__code__
    first = code.co_varnames[0] if code.co_argcount else ""
    if scope and not scope.endswith("<locals>") and first in _RECEIVERS and first not in ignored:
        raise UncacheableFunctionError(
            f"{name}: {first} cannot be part of a key; write key=lambda {first}, ...: (what the value depends on), or "
            f"ignore=({first!r},) if it depends on nothing of it"
        )


def signature_of(function: Any, name: str, ignored: Collection[str]) -> inspect.Signature:
    """The function's parameters. Raises UncacheableFunctionError where Python cannot tell them, or lacks one that is ignored."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise UncacheableFunctionError(
            f"{name}: Python cannot tell its parameters; write key=, or wrap it into a function of your own"
        ) from None
    if missing := [each for each in ignored if each not in signature.parameters]:
        raise UncacheableFunctionError(f"{name}: has no parameter {missing[0]!r}, which ignore= names")
    return signature

"""Which function caches under which prefix. Two functions under one prefix would be served each other's values."""

from __future__ import annotations

import functools
import types
import weakref
from collections.abc import Callable
from typing import Any, Final

from pipeline.cache.errors import UncacheableFunctionError

_SCALARS: Final = (str, int, bool)
_ITSELF: Final = object
_NOTHING: Final = type(None)
_LOCAL_MARKS: Final = ("<locals>", "<lambda>")


def name_of(function: object) -> str:
    """The function's name in an error message."""
    if isinstance(function, functools.partial):
        return f"partial of {name_of(function.func)}"
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else f"a {type(function).__qualname__}"


class Claimant:
    """A function as it was decorated. Keeps neither it nor its closure alive, where Python allows weak references: once one of
    two objects is gone, they count as different."""

    def __init__(self, function: Callable[..., object], namespace: dict[str, Any], *, shared: bool) -> None:
        """`namespace`: the globals of the module that decorates, for a callable that has none of its own."""
        self.name = name_of(function)
        self.shared = shared
        self._owner: Callable[[], Any] | None = None
        target: object = function
        if isinstance(function, types.MethodType):
            self._owner, target = _weak(function.__self__), function.__func__
        self._target = _weak(target)
        self._code = target.__code__ if isinstance(target, types.FunctionType) else None
        self._cells = _cells_of(target) if isinstance(target, types.FunctionType) else ()
        own = _globals_of(function)
        namespace = namespace if own is None else own
        self._module = str(namespace.get("__name__"))
        self._execution = namespace.get("__spec__")
        """Another object each time the module is executed."""
        self._is_typed_in = self._execution is None and "__file__" not in namespace
        """At a prompt or in a notebook, where a function is replaced by defining it once more."""

    def is_same(self, other: Claimant) -> bool:
        """Whether the values of one are right for the other: the same function, also after its module was executed anew."""
        if self._module == other._module:
            if self._execution is not other._execution:
                return True
            if self._is_typed_in and self.name == other.name and not any(mark in self.name for mark in _LOCAL_MARKS):
                return True
        if (self._owner is None) != (other._owner is None):
            return False
        if self._owner is not None and other._owner is not None and self._owner() is not other._owner():
            return False
        return self._target() is other._target() or self._is_alike(other)

    def _is_alike(self, other: Claimant) -> bool:
        """Whether both run the same code over the same closure, like a local function that each call of the function around it
        defines anew. Their defaults may differ: they are arguments."""
        return (
            self._code is not None
            and self._code == other._code
            and self._module == other._module
            and all(_is_one(mine(), theirs()) for mine, theirs in zip(self._cells, other._cells, strict=True))
        )


class Prefixes:
    """The claims on one cache's prefixes."""

    def __init__(self) -> None:
        self._holders: dict[str, Claimant] = {}

    def claim(self, prefix: str, claimant: Claimant) -> None:
        """Raises UncacheableFunctionError when another function has the prefix, unless both say that they share it."""
        holder = self._holders.setdefault(prefix, claimant)  # of two threads that race, one has it
        if holder is claimant or (holder.shared and claimant.shared):
            return
        if holder.is_same(claimant):
            self._holders[prefix] = claimant
            return
        raise UncacheableFunctionError(
            f"{claimant.name}: {holder.name} caches under the prefix {prefix!r} already, and each would be served the other's "
            "values; give this one a key_prefix of its own, or if they are to share their values say shared=True at both"
        )


_of_default: Final = Prefixes()
_of_caches: Final[weakref.WeakKeyDictionary[object, Prefixes]] = weakref.WeakKeyDictionary()


def prefixes_of(cache: object | None) -> Prefixes:
    """The claims on this cache; on the default one if None."""
    return _of_default if cache is None else _of_caches.setdefault(cache, Prefixes())


def _weak(thing: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(thing)
    except TypeError:
        return lambda: thing


def _globals_of(function: Any) -> dict[str, Any] | None:
    while True:
        if isinstance(function, types.FunctionType):
            return function.__globals__
        if isinstance(function, types.MethodType):
            function = function.__func__
        elif isinstance(function, functools.partial):
            function = function.func
        else:
            return None


def _cells_of(function: types.FunctionType) -> tuple[Callable[[], Any], ...]:
    """The values that the function closes over. An unbound name equals no other; the function's own name stands for itself."""
    found = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            content = cell.cell_contents
        except ValueError:
            content = object()
        found.append(_weak(_ITSELF if name == function.__name__ else _NOTHING if content is None else content))
    return tuple(found)


def _is_one(mine: object, theirs: object) -> bool:
    """Whether they are one object, or equal scalars. An object that is gone is None, and equals no other."""
    if type(mine) in _SCALARS:
        return type(mine) is type(theirs) and mine == theirs
    return mine is theirs and mine is not None

"""A responder from outside the package, by the name that PERSONA_RESPONDER gives."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from pipeline.errors import ConfigurationError
from pipeline.settings import Settings

if TYPE_CHECKING:
    from pipeline.responders import Responder

ALLOWED: Final = (
    "allowed is package.module:object of a module that can be imported: a responder, which has the texts `model` and "
    "`fingerprint` and the method `respond`, or what makes one when it is called with the settings"
)


def named_responder(settings: Settings) -> Responder:
    """The object of that name if it is a responder, else what it returns for the settings.

    Raises ConfigurationError naming the variable, its value, what is wrong and what is allowed.
    """
    name = settings.responder

    def refuse(problem: str, cause: Exception | None = None) -> NoReturn:
        raise ConfigurationError(f"PERSONA_RESPONDER: {name}: {problem}; {ALLOWED}") from cause

    module, _, path = name.partition(":")
    try:
        found: Any = import_module(module)
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except Exception as error:  # noqa: BLE001 - whatever a foreign module raises while it is imported
        refuse(f"cannot be imported: {type(error).__name__}: {error}", error)
    if isinstance(found, type) or (callable(found) and _lacks(found)):
        try:
            found = found(settings)
        except ConfigurationError:
            raise  # its own words, for the reader of its configuration
        except Exception as error:  # noqa: BLE001 - as above
            refuse(f"failed with {type(error).__name__}: {error}", error)
    if lacking := _lacks(found):
        refuse(f"gives {type(found).__name__}, whose {' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} missing")
    return cast("Responder", found)


def _lacks(found: Any) -> list[str]:
    """What it has not of a responder."""
    texts = [f"`{name}`" for name in ("model", "fingerprint") if not isinstance(getattr(found, name, None), str)]
    return texts if callable(getattr(found, "respond", None)) else [*texts, "`respond`"]

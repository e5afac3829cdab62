"""Takes the secrets of the settings out of what is shown, by their values: a setting's name need not say that it holds one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from pydantic import SecretStr

from pipeline.settings import SECRETS, Settings

SHOWN: Final = "********"
_OPTIONS: Final = ("password", "ssl_password")


class Censor:
    """The passwords in the URLs of these settings, and their keys, as they are and as a URL writes them."""

    def __init__(self, settings: Settings) -> None:
        found = {form for secret in _secrets(settings) if secret for form in (secret, unquote(secret), quote(secret, safe=""))}
        self._secrets = sorted(found, key=len, reverse=True)  # one may be a part of another

    def __call__(self, shown: Any) -> Any:
        """The same, of JSON's types, with each secret replaced."""
        if isinstance(shown, str):
            for secret in self._secrets:
                shown = shown.replace(secret, SHOWN)
            return shown
        if isinstance(shown, dict):
            return {self(name): self(value) for name, value in shown.items()}
        if isinstance(shown, list | tuple):
            return [self(value) for value in shown]
        return shown


def _secrets(settings: Settings) -> Iterator[str]:
    for name in SECRETS:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            yield value.get_secret_value()
        else:
            parts = urlsplit(value)
            yield parts.password or ""
            yield from (given for option, given in parse_qsl(parts.query) if option in _OPTIONS)

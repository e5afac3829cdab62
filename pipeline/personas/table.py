"""A TOML file read strictly: a missing, unknown or mistyped field is refused with its file, name and value."""

from __future__ import annotations

import tomllib
import unicodedata
from collections.abc import Iterable
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NoReturn

from pipeline.errors import ConfigurationError
from pipeline.personas.persona import Texts


class Table:
    """One table of a file. Its readers raise ConfigurationError naming file, field, value and what is allowed."""

    def __init__(self, file: str, path: str, fields: dict[str, Any], allowed: Iterable[str]) -> None:
        self._file, self._path, self._fields = file, path, fields
        names = tuple(allowed)
        for name in fields:
            if name not in names:
                self.refuse(name, f"unknown field; allowed are {', '.join(names)}")
        for name in names:
            if name not in fields:
                self.refuse(name, f"missing; needed are {', '.join(names)}")

    @classmethod
    def of_file(cls, file: Traversable, allowed: Iterable[str]) -> Table:
        """The file's outermost table, which holds exactly the `allowed` fields."""
        # The path, where there is one: two folders may hold files of the same name.
        name = str(file) if isinstance(file, Path) else file.name
        try:
            fields = tomllib.loads(file.read_bytes().decode("utf-8"))
        except OSError as error:
            raise ConfigurationError(f"{name}: cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise ConfigurationError(f"{name}: is not UTF-8 at byte {error.start}; expected TOML in UTF-8") from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigurationError(f"{name}: is not TOML: {error}") from error
        return cls(name, "", fields, allowed)

    def table(self, name: str, allowed: Iterable[str]) -> Table:
        """A table in this one, which holds exactly the `allowed` fields."""
        fields = self._fields[name]
        if not isinstance(fields, dict):
            self.refuse(name, f"{_shown(fields)}; expected a table with {', '.join(allowed)}")
        return Table(self._file, self._field(name), fields, allowed)

    def text(self, name: str) -> str:
        """A text that is not empty, in NFC and without outer white space."""
        return self._text(name, self._fields[name])

    def line(self, name: str) -> str:
        """A text of one line."""
        text = self.text(name)
        if len(text.splitlines()) > 1:
            self.refuse(name, f"{_shown(text)}; expected one line")
        return text

    def texts(self, name: str) -> Texts:
        """A table with the same text in every language."""
        languages = self.table(name, Texts.__struct_fields__)
        return Texts(**{language: languages.text(language) for language in Texts.__struct_fields__})

    def words(self, name: str) -> tuple[str, ...]:
        """A list of texts, at least one, none of them twice."""
        values = self._fields[name]
        if not isinstance(values, list) or not values:
            self.refuse(name, f"{_shown(values)}; expected a list of at least one text")
        words = tuple(self._text(f"{name}[{number}]", value) for number, value in enumerate(values))
        for number, word in enumerate(words):
            if word in words[:number]:
                self.refuse(f"{name}[{number}]", f"{_shown(word)} is listed twice; allowed is once")
        return words

    def whole(self, name: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        value = self._fields[name]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.refuse(name, f"{_shown(value)}; expected a whole number from {low} to {high}")
        return value

    def share(self, name: str) -> float:
        """A number from 0 to 1."""
        value = self._fields[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            self.refuse(name, f"{_shown(value)}; expected a number from 0.0 to 1.0")
        return float(value)

    def refuse(self, name: str, problem: str) -> NoReturn:
        raise ConfigurationError(f"{self._file}: {self._field(name)}: {problem}")

    def _field(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def _text(self, name: str, value: object) -> str:
        if not isinstance(value, str):
            self.refuse(name, f"{_shown(value)}; expected text")
        text = unicodedata.normalize("NFC", value).strip()
        if not text:
            self.refuse(name, f"{_shown(value)}; expected text that is not empty")
        return text


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

"""All personas, from one file each."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final

import msgspec

from pipeline.errors import ConfigurationError, InvalidRequestError
from pipeline.models import INTENTS, PACES, TONES
from pipeline.personas.persona import Affinities, Persona, PersonaInfo
from pipeline.personas.table import Table
from pipeline.settings import Settings

SLUG: Final = re.compile(r"[a-z][a-z0-9_]*")
MAX_ORDER: Final = 9999
FIELDS: Final = ("name", "order", "traits", "strengths", "summary", "prompt", "affinity")


class Catalog(msgspec.Struct, frozen=True):
    """At least one persona, in the order that breaks ties."""

    personas: tuple[Persona, ...]

    def __post_init__(self) -> None:
        if not self.personas:
            raise ConfigurationError("a catalog without personas; expected at least one")

    def __iter__(self) -> Iterator[Persona]:
        return iter(self.personas)

    def __len__(self) -> int:
        return len(self.personas)

    @property
    def version(self) -> str:
        """A digest that changes whenever a persona was added, removed or edited."""
        versions = [persona.info.version for persona in self.personas]
        return hashlib.blake2b(msgspec.json.encode(versions), digest_size=16).hexdigest()

    def get(self, slug_or_name: str) -> Persona:
        """The persona of that slug or name; case does not count. Raises InvalidRequestError naming the known ones."""
        slug = slug_or_name.strip().lower()
        for persona in self.personas:
            if persona.slug == slug:
                return persona
        known = ", ".join(persona.name for persona in self.personas)
        raise InvalidRequestError("persona", f"unknown persona {slug_or_name!r}; known are {known}")


def catalog_from(settings: Settings) -> Catalog:
    """The personas that the settings ask for: those of PERSONA_PERSONAS_DIR alone, or the package's own.

    Raises ConfigurationError naming the variable, and the file, the field, its value and what is allowed.
    """
    if not settings.personas_dir:
        return load_catalog()
    try:
        return load_catalog(Path(settings.personas_dir))
    except ConfigurationError as error:
        raise ConfigurationError(f"PERSONA_PERSONAS_DIR: {error}") from error


def load_catalog(directory: Path | None = None) -> Catalog:
    """Every persona of a folder, by default of the package's own.

    Raises ConfigurationError naming the file, the field, its value and what is allowed.
    """
    folder: Traversable = files("pipeline.personas") if directory is None else directory
    try:
        found = sorted((file for file in folder.iterdir() if _is_persona(file)), key=lambda file: file.name)
    except OSError as error:
        raise ConfigurationError(f"{directory}: cannot be read: {error.strerror or error}; expected a folder") from error
    if not found:
        raise ConfigurationError(f"{directory or 'pipeline/personas'}: no persona; expected at least one .toml file")
    seen: dict[int, Traversable] = {}
    personas = []
    for file in found:
        persona = _read(file, seen)
        seen[persona.order] = file
        personas.append(persona)
    return Catalog(tuple(sorted(personas, key=lambda persona: persona.order)))


def _is_persona(file: Traversable) -> bool:
    # A leading dot marks a file that an editor keeps beside the one being edited.
    return file.name.endswith(".toml") and not file.name.startswith(".")


def _read(file: Traversable, seen: dict[int, Traversable]) -> Persona:
    table = Table.of_file(file, FIELDS)
    slug = file.name.removesuffix(".toml")
    name = table.line("name")
    if not SLUG.fullmatch(slug):
        table.refuse("slug", f"{slug!r}, from the file's name; expected a lower-case letter, then a-z, 0-9 or _")
    # The file's name is the slug, so this also keeps two files from claiming one name.
    if name.lower() != slug:
        table.refuse("name", f"{name!r}; expected {slug!r} in any case of letters, as the file is called {file.name}")
    order = table.whole("order", 1, MAX_ORDER)
    if order in seen:
        table.refuse("order", f"{order} is taken by {seen[order].name}; expected a number of its own")
    affinity = table.table("affinity", Affinities.__struct_fields__)
    affinities = Affinities(
        tone=_shares(affinity, "tone", TONES),
        pace=_shares(affinity, "pace", PACES),
        intent=_shares(affinity, "intent", INTENTS),
    )
    info = PersonaInfo(
        name=name,
        slug=slug,
        version="",
        summary=table.texts("summary"),
        traits=table.words("traits"),
        strengths=table.words("strengths"),
        prompts=table.texts("prompt"),
    )
    unversioned = msgspec.json.encode((info, order, affinities))
    version = hashlib.blake2b(unversioned, digest_size=16).hexdigest()
    return Persona(msgspec.structs.replace(info, version=version), order, affinities)


def _shares(affinity: Table, part: str, words: tuple[str, ...]) -> tuple[float, ...]:
    table = affinity.table(part, words)
    return tuple(table.share(word) for word in words)

"""The personas that answer. Each is one `.toml` file in this folder: drop one in to add it.

No other place lists the names. Composes no prompt and calls no model.
"""

from __future__ import annotations

from pipeline.personas.catalog import Catalog, catalog_from, load_catalog
from pipeline.personas.persona import Affinities, Persona, PersonaInfo, Texts

__all__ = ["Affinities", "Catalog", "Persona", "PersonaInfo", "Texts", "catalog_from", "load_catalog"]

"""A frozen catalogue, for tests that pin the figures of four personas: it stays as it is whatever happens to the package's."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pipeline.personas import load_catalog

FOLDER: Final = Path(__file__).parent
FOUR: Final = load_catalog(FOLDER)
NAMES: Final = ("Lua", "Elro", "Riri", "Nana")
"""In the order that breaks ties."""

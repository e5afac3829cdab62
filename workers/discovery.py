"""Find the stack that runs here, so that a client needs no configuration."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pipeline.settings import Settings, load_settings
from workers.stack.folder import DEFAULT_NAME, STATE_NAME, lock_owner
from workers.stack.state import StackInfo, decode

# Settings that mean something only together: who names the first is not given the others from elsewhere.
BELONGS_TO: Final = {
    "PERSONA_RESULT_URL": "PERSONA_BROKER_URL",
    "PERSONA_LLM_MODEL": "PERSONA_LLM_URL",
    "PERSONA_LLM_API_KEY": "PERSONA_LLM_URL",
    "PERSONA_LLM_TEMPERATURE": "PERSONA_LLM_URL",
    "PERSONA_LLM_TIMEOUT_S": "PERSONA_LLM_URL",
    "PERSONA_LLM_MAX_TOKENS": "PERSONA_LLM_URL",
}


def find_stack(start: Path | None = None, environ: Mapping[str, str] | None = None) -> StackInfo | None:
    """The running stack of PERSONA_STACK_DIR, else of the nearest `.persona` in or above `start` (working directory).

    None if there is none, or only the files of one that is gone. Another user's stack is never taken.
    """
    environ = os.environ if environ is None else environ
    if named := environ.get("PERSONA_STACK_DIR"):
        return _running_in(Path(named))
    here = (start or Path.cwd()).absolute()
    for directory in (here, *here.parents):
        if info := _running_in(directory / DEFAULT_NAME):
            return info
    return None


def discover_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of the environment; what it does not say comes from the stack that runs here, if one does.

    Raises ConfigurationError as `load_settings` does.
    """
    environ = os.environ if environ is None else environ
    stack = find_stack(environ=environ)
    if stack is None:
        return load_settings(environ)
    found = {
        name: value
        for name, value in stack.environment.items()
        if name not in environ and BELONGS_TO.get(name, name) not in environ
    }
    return load_settings({**found, **environ})


def _running_in(directory: Path) -> StackInfo | None:
    path = directory / STATE_NAME
    try:
        # Whoever writes this file says where questions are sent: in a directory such as /tmp that may be a stranger.
        if path.stat().st_uid != os.geteuid():
            return None
        info = decode(path.read_bytes())
    except OSError:
        return None
    if info is None or lock_owner(directory) != info.pid:
        return None
    return info

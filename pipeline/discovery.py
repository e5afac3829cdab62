"""Find the stack that runs here (`persona up`), so that a program beside it needs no configuration."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from pipeline.cache.encoding.decoders import ready

STACK_DIR: Final = "PERSONA_STACK_DIR"
DEFAULT_NAME: Final = ".persona"
LOCK_NAME: Final = "stack.lock"
STATE_NAME: Final = "stack.json"
VERSION: Final = 1

# A program that names another server than the stack's belongs to another fleet, and takes nothing from this one.
SERVERS: Final = ("PERSONA_BROKER_URL", "PERSONA_CACHE_URL")
# Settings that mean something only together: a program that names the second is not given the first from elsewhere.
BELONGS_TO: Final = {
    "PERSONA_RESULT_URL": "PERSONA_BROKER_URL",
    "PERSONA_LLM_MODEL": "PERSONA_LLM_URL",
    "PERSONA_LLM_API_KEY": "PERSONA_LLM_URL",
    "PERSONA_LLM_TEMPERATURE": "PERSONA_LLM_URL",
    "PERSONA_LLM_TIMEOUT_S": "PERSONA_LLM_URL",
    "PERSONA_LLM_MAX_TOKENS": "PERSONA_LLM_URL",
    "PERSONA_RESPONDER": "PERSONA_LLM_URL",  # a responder comes before a model
}


@ready
class RunningStack(msgspec.Struct, frozen=True, kw_only=True):
    """A running stack's own record. `environment` holds the PERSONA_ variables, passwords included, that reach it."""

    version: int
    pid: int
    environment: dict[str, str]


def find_state(start: Path | None = None, environ: Mapping[str, str] | None = None) -> bytes | None:
    """The record of the running stack of PERSONA_STACK_DIR, else of the nearest `.persona` in or above `start` (working
    directory).

    None if there is none, or only the files of a stack that is gone. Another user's stack is never taken.
    """
    environ = os.environ if environ is None else environ
    if named := environ.get(STACK_DIR):
        return _state_in(Path(named))
    try:
        here = (start or Path.cwd()).absolute()
    except OSError:  # the working directory was removed
        return None
    for directory in (here, *here.parents):
        if state := _state_in(directory / DEFAULT_NAME):
            return state
    return None


def stack_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that the stack running here adds to the environment: none that it has already, an empty value included, and
    none at all if it names a broker or a cache server other than the stack's."""
    state = find_state(environ=environ)
    stack = None if state is None else decode_state(state)
    if stack is None or any(environ.get(name) and environ[name] != stack.environment.get(name) for name in SERVERS):
        return {}
    return {
        name: value
        for name, value in stack.environment.items()
        if name not in environ and BELONGS_TO.get(name, name) not in environ
    }


def decode_state(text: bytes) -> RunningStack | None:
    """None for any text that a stack of this version did not write."""
    try:
        stack = msgspec.json.decode(text, type=RunningStack)
    except (msgspec.DecodeError, UnicodeDecodeError):  # a ValidationError is a DecodeError
        return None
    return stack if stack.version == VERSION else None


def lock_owner(directory: Path) -> int | None:
    """The process that holds the folder's lock now; None if there is none (or it has not yet written its number)."""
    try:
        lock = os.open(directory / LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(lock, 32)
        return int(text) if text.isdigit() else None
    else:
        return None
    finally:
        os.close(lock)


def _state_in(directory: Path) -> bytes | None:
    path = directory / STATE_NAME
    try:
        # The writer of this file decides where questions are sent: in a directory such as /tmp that may be a stranger.
        if path.stat().st_uid != os.geteuid():
            return None
        text = path.read_bytes()
    except OSError:
        return None
    stack = decode_state(text)
    if stack is None or lock_owner(directory) != stack.pid:
        return None
    return text

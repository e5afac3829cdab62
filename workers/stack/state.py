"""The contents of `stack.json`: how other processes find a running stack and log in to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from pipeline.cache.encoding.decoders import ready
from pipeline.discovery import VERSION, RunningStack, find_state


class FlowerLogin(msgspec.Struct, frozen=True):
    """The dashboard's address and login."""

    url: str
    user: str
    password: str


class ServiceInfo(msgspec.Struct, frozen=True):
    """One running process of the stack."""

    name: str
    pid: int
    log: str


@ready
class StackInfo(RunningStack, frozen=True, kw_only=True):
    """A running stack, with the facts that its user wants to see."""

    started_at: str  # ISO 8601, UTC
    services: tuple[ServiceInfo, ...]
    flower: FlowerLogin | None = None


def encode(info: StackInfo) -> bytes:
    return msgspec.json.format(msgspec.json.encode(info), indent=2) + b"\n"


def decode(text: bytes) -> StackInfo | None:
    """None for any text but the output of this version's `encode`."""
    try:
        info = msgspec.json.decode(text, type=StackInfo)
    except (msgspec.DecodeError, UnicodeDecodeError):  # a ValidationError is a DecodeError
        return None
    return info if info.version == VERSION else None


def find_stack(start: Path | None = None, environ: Mapping[str, str] | None = None) -> StackInfo | None:
    """The stack that `pipeline.discovery.find_state` finds; None if there is none."""
    state = find_state(start, environ)
    return None if state is None else decode(state)

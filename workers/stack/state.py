"""What `stack.json` holds: how other processes find a running stack and log in to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from pipeline.discovery import VERSION, RunningStack, find_state


class FlowerLogin(msgspec.Struct, frozen=True):
    """Where the dashboard is."""

    url: str
    user: str
    password: str


class ServiceInfo(msgspec.Struct, frozen=True):
    """One running process of the stack."""

    name: str
    pid: int
    log: str


class StackInfo(RunningStack, frozen=True, kw_only=True):
    """A running stack, with what its user wants to see."""

    started_at: str  # ISO 8601, UTC
    services: tuple[ServiceInfo, ...]
    flower: FlowerLogin | None = None


def encode(info: StackInfo) -> bytes:
    return msgspec.json.format(msgspec.json.encode(info), indent=2) + b"\n"


def decode(text: bytes) -> StackInfo | None:
    """None if this is not what `encode` of this version wrote."""
    try:
        info = msgspec.json.decode(text, type=StackInfo)
    except (msgspec.DecodeError, UnicodeDecodeError):  # a ValidationError is a DecodeError
        return None
    return info if info.version == VERSION else None


def find_stack(start: Path | None = None, environ: Mapping[str, str] | None = None) -> StackInfo | None:
    """As `pipeline.discovery.find_state` finds it; None if there is none."""
    state = find_state(start, environ)
    return None if state is None else decode(state)

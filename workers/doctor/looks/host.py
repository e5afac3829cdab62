"""The processes of this host: what everybody may read of their command lines, and which of them are beats. Linux only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pipeline.settings import Settings

MOST: Final = 20_000
_SCHEDULERS: Final = ("-S", "--scheduler")


def showing(secrets: frozenset[str]) -> tuple[str, ...]:
    """Processes with one of these on their command line, as `name (pid)`."""
    return tuple(
        f"{Path(words[0]).name} ({pid})"
        for pid, words in _processes()
        if pid != os.getpid() and any(secret in word for word in words for secret in secrets)
    )


def unlocked_beats(settings: Settings) -> tuple[str, ...]:
    """Beats with this broker that were started with a scheduler of their own, as `celery beat (pid)`. Of other users' processes,
    whose environment cannot be read, nothing is known."""
    return tuple(f"celery beat ({pid})" for pid, words in _processes() if _is_unlocked(words) and _has_broker(pid, settings))


def _is_unlocked(words: list[str]) -> bool:
    if "beat" not in words or not any("celery" in word for word in words[: words.index("beat")]):
        return False
    given = words[words.index("beat") :]
    for number, word in enumerate(given):
        name, _, value = word.partition("=")
        if name in _SCHEDULERS:
            return "redbeat" not in (value or " ".join(given[number + 1 : number + 2])).lower()
    return False


def _has_broker(pid: int, settings: Settings) -> bool:
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False
    return f"PERSONA_BROKER_URL={settings.broker_url}".encode() in environ.split(b"\0")


def _processes() -> Iterator[tuple[int, list[str]]]:
    try:
        found = [int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()]
    except OSError:
        return
    for pid in sorted(found)[:MOST]:
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue  # it has ended
        if words := [word.decode(errors="replace") for word in line.split(b"\0") if word]:
            yield pid, words

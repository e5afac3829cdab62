"""What can be done, each in two steps: what it would do, and doing it. Both run in a thread and take seconds at most."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any, Final, Literal

import msgspec

from pipeline.cache.encoding.decoders import ready
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.patterns.pattern import parse
from pipeline.cache.server.shared import RedisCache
from pipeline.keys import check_pattern
from pipeline.settings import Settings
from workers.client import PersonaClient
from workers.client.preload import FleetPreload
from workers.queue.dead_letters.box import DeadLetters
from workers.queue.dead_letters.choice import Choice
from workers.queue.dead_letters.letter import Found
from workers.queue.factory import PersonaApp, make_app
from workers.queue.failures.box import Failures
from workers.queue.reach import bound_waits

SHOWN: Final = 50
"""So many letters of each kind are listed, and so many matching keys."""
PREVIEW_S: Final = 2.0
COMMAND_S: Final = 1.0
APPLIED_S: Final = 0.5
EXPIRES_S: Final = 60.0

Kind = Literal["failures", "dead-letters"]
NAMES: Final[dict[Kind, str]] = {"failures": "failed task", "dead-letters": "dead letter"}


@ready
class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a page asks for. `ids`: these letters; else all that are of `task`, `why`, and that age."""

    what: Literal["again", "drop", "invalidate", "preload"]
    kind: Kind = "failures"
    ids: tuple[str, ...] = ()
    task: str | None = None
    why: str | None = None
    older_than_s: float | None = None
    pattern: str = ""


class Deed(msgspec.Struct, frozen=True):
    """A wish as it was shown: `letters` are those that were there, by id and time. `sentence`: what is asked; `details`: lines
    below it."""

    wish: Wish
    sentence: str
    details: tuple[str, ...] = ()
    letters: tuple[tuple[str, float], ...] = ()


class Deeds:
    """For one thread at a time. Methods raise QueueUnavailableError, NoRedisError, SharedTierUnavailableError and
    InvalidPatternError, each with a sentence."""

    def __init__(self, settings: Settings) -> None:
        """Connects on first use."""
        self._settings = settings
        self._app: PersonaApp | None = None

    def listed(self) -> dict[str, Any]:
        """The letters of both kinds, the latest first, with nothing that somebody wrote."""
        return {kind: _shown(self._box(kind)) for kind in NAMES}

    def consider(self, wish: Wish) -> Deed:
        """What the wish would do."""
        if wish.what == "preload":
            return Deed(wish, "Have the workers warm the caches now?")
        if wish.what == "invalidate":
            return self._consider_invalidation(wish)
        there = self._box(wish.kind).all()
        if wish.ids:
            letters = [one for one in there if one.id in wish.ids]
        else:
            letters = Choice(wish.task or None, wish.why or None, wish.older_than_s).of(there)
        cut = sum(not one.letter.whole for one in letters) if wish.what == "again" else 0
        details = (f"{cut} of them cannot be: not all of their message was kept.",) if cut else ()
        return Deed(
            wish,
            f"{_VERBS[wish.kind, wish.what]} {_counted(len(letters), NAMES[wish.kind])}?",
            details,
            tuple(map(_name, letters)),
        )

    def do(self, deed: Deed) -> str:
        """Do it; what has come of it."""
        wish = deed.wish
        if wish.what == "preload":
            return self._preload()
        if wish.what == "invalidate":
            return self._invalidate(wish.pattern)
        box, name, meant = self._box(wish.kind), NAMES[wish.kind], frozenset(deed.letters)
        letters = [one for one in box.all() if _name(one) in meant]
        if wish.what == "drop":
            dropped = box.drop(letters)
            return f"Dropped {_counted(dropped, name)}{_gone(len(meant) - dropped)}."
        counts = box.retry(letters)
        cut = f"; {counts['cut']} not kept whole" if counts["cut"] else ""
        return f"Queued {_counted(counts['queued'], name)} anew{_gone(len(meant) - counts['queued'] - counts['cut'])}{cut}."

    def close(self) -> None:
        if self._app is not None:
            self._app.close()

    def _box(self, kind: Kind) -> Failures | DeadLetters:
        if self._app is None:
            self._app = make_app(self._settings)
            bound_waits(self._app)
        return Failures(self._app) if kind == "failures" else DeadLetters(self._app)

    # -- the cache

    def _consider_invalidation(self, wish: Wish) -> Deed:
        pattern = check_pattern(wish.pattern)
        matched, looked_at, whole = self._would_end(pattern)
        least = "" if whole else f" (looked at {looked_at} for {PREVIEW_S:g} s: there may be more)"
        more = len(matched) - SHOWN
        return Deed(
            msgspec.structs.replace(wish, pattern=pattern),
            f"Invalidate {pattern}? It would end {_counted(len(matched), 'entry', 'entries')} of the shared tier{least}.",
            (*sorted(matched)[:SHOWN], *([f"and {more} more"] if more > 0 else [])),
        )

    def _would_end(self, pattern: str) -> tuple[list[str], int, bool]:
        """The keys of the entries that match, or were computed from a match; how many were looked at, and whether all."""
        matches = parse(pattern).matcher()
        deadline_s = time.monotonic() + PREVIEW_S
        matched, count = [], 0
        cache = RedisCache(url=self._settings.cache_url, namespace=self._settings.cache_namespace, timeout_s=COMMAND_S)
        with closing(cache.connection):
            for entry in cache.entries():
                count += 1
                if any(map(matches, (entry.key, *entry.deps))):
                    matched.append(entry.key)
                if time.monotonic() > deadline_s:
                    return matched, count, False
        return matched, count, True

    def _invalidate(self, pattern: str) -> str:
        with PersonaClient(self._settings) as client:
            made = client.invalidate(pattern, wait_s=APPLIED_S)
        if not made.durable:
            return f"Invalidated {pattern} here, but the cache's server is out of reach: repeat it when it answers."
        return f"Invalidated {pattern}; applied by {_counted(len(made.applied), 'node')} within {APPLIED_S:g} s."

    def _preload(self) -> str:
        if not self._settings.cache_url:
            raise SharedTierUnavailableError("there is no shared cache (PERSONA_CACHE_URL is empty)")
        with closing(FleetPreload(self._settings)) as preload:
            preload.ask(None, EXPIRES_S)
            return f"A worker begins within {EXPIRES_S:g} s, or none does; as task {preload.round_id}."


_VERBS: Final[dict[tuple[Kind, str], str]] = {
    ("failures", "again"): "Try again",
    ("dead-letters", "again"): "Queue anew",
    ("failures", "drop"): "Drop",
    ("dead-letters", "drop"): "Drop",
}


def _name(one: Found) -> tuple[str, float]:
    """One that has failed anew since is another one."""
    return one.id, one.letter.at


def _shown(box: Failures | DeadLetters) -> dict[str, Any]:
    rows = [
        {"id": one.id, "at": one.letter.at, "task": one.letter.task, "why": one.letter.why, "whole": one.letter.whole}
        for one in box.all(SHOWN)
    ]
    return {"count": box.count(), "rows": rows}


def _counted(count: int, name: str, several: str = "") -> str:
    return f"{count:,} {name if count == 1 else several or name + 's'}"


def _gone(count: int) -> str:
    return f"; {count} had vanished meanwhile" if count else ""

"""The newest invalidation of each pattern, arranged to answer "does a newer one match this key?"."""

from __future__ import annotations

import re
from typing import Final

from pipeline.cache.errors import InvalidPatternError
from pipeline.cache.patterns.globs import Globs
from pipeline.cache.patterns.pattern import MAX_PATTERN_BYTES, parse

_PLAIN: Final = re.compile(r"[^*?\[\\]+").fullmatch
_SHORT: Final = MAX_PATTERN_BYTES // 4


class Records:
    """Patterns with the number of their latest invalidation. Only ever grows: a reader may or may not see one that is being
    added.

    Asking costs a dict lookup a segment of the key, and the cost of `Globs`. Readers take no lock; one writer at a time.
    """

    __slots__ = ("exact", "globs", "prefixes")

    def __init__(self) -> None:
        self.exact: dict[str, int] = {}
        self.prefixes: dict[str, int] = {}
        self.globs = Globs()

    def note(self, text: str, seq: int) -> bool:
        """Take in a record. Returns whether it was well-formed."""
        if len(text) <= _SHORT and _PLAIN(text):  # the common case: nothing needs to be taken apart
            self.exact[text] = max(seq, self.exact.get(text, 0))
            return True
        well_formed = True
        try:
            pattern = parse(text)
        except InvalidPatternError:
            # Only a foreign program writes such a record. Taken for "everything": a miss too many is the safe mistake.
            well_formed = False
            pattern = parse("*")
        if pattern.kind == "glob":
            self.globs.note(pattern.subject, seq)
        else:
            place = self.exact if pattern.kind == "exact" else self.prefixes
            place[pattern.subject] = max(seq, place.get(pattern.subject, 0))
        return well_formed

    def newer_than(self, floor: int) -> Records:
        kept = Records()
        kept.exact = {key: seq for key, seq in self.exact.items() if seq > floor}
        kept.prefixes = {key: seq for key, seq in self.prefixes.items() if seq > floor}
        kept.globs = self.globs.newer_than(floor)
        return kept

    def mean(self, key: str, since: int) -> bool:
        """Whether a pattern with a number above `since` matches `key`."""
        if self.exact.get(key, 0) > since:
            return True
        prefixes = self.prefixes
        if prefixes:
            if prefixes.get("", 0) > since:
                return True
            at = key.find(":")
            while at >= 0:
                if prefixes.get(key[: at + 1], 0) > since:
                    return True
                at = key.find(":", at + 1)
        return bool(self.globs) and self.globs.mean(key, since)

    def mean_any(self, key: str, deps: tuple[str, ...], since: int) -> bool:
        return self.mean(key, since) or any(self.mean(dep, since) for dep in deps)

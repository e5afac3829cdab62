"""Ids of users that look alike, or that mean something to a pattern, a key, a page or a terminal, and are different users."""

from __future__ import annotations

import unicodedata
from typing import Final

from pipeline.models import MAX_USER_ID_CHARS, checked_user_id

_FORMS: Final = ("NFC", "NFD", "NFKC", "NFKD")
_BETWEEN: Final = (
    ":", "*", "\\", "\\*", "[", "]", "[a-z]", "?", "%", "%3A", "%2a", "=", "/", "|", "'", '"', "<b>", "&amp;", "{}", "$(id)", ",",
    "\u2400",  # the picture of NUL
    "\u05d0\u05d1",  # from right to left
    "\u0627\u0644",
    "\u3164",  # looks empty, and counts as a letter
    "\u2800",
    "\u1100\u1161",  # two letters that look like one
    "\u0301",
)  # fmt: skip


def lookalikes(root: str, other: str = "") -> list[str]:
    """Some 40 ids, all of them different and fit for a request, in each of which `root` stands, in whatever case. With `other`,
    words of that one in the place of root's own."""
    base = f"Zoé\u212a\ufb01 {root}"
    found = [
        root,
        root.upper(),
        root.title(),
        root + "a",
        root + "а",
        root + "ａ",
        root + root,
        f"{root} {root}",
        f"{root}  {root}",
    ]
    found += [unicodedata.normalize(form, base) for form in _FORMS] + [base.swapcase(), base.casefold()]
    found += [root + part for part in _BETWEEN] + [part + root for part in (":", "*", "=", "user:", "persona:*:")]
    found += [f"{root}:*", f"{root}*", f"{other or root}*{root}"]
    found += ["가" * 82 + root[:8] + "x" * (255 - 3 * 82 - 8)]  # 255 bytes
    found += [root + "x" * (MAX_USER_ID_CHARS - len(root)), root + "x" * (MAX_USER_ID_CHARS - len(root) - 1)]
    return [str(checked_user_id(each)) for each in dict.fromkeys(found)]

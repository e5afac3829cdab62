"""What the cache's server publishes of each append to the log: `tail before patterns`, written by lua/append.lua."""

from __future__ import annotations

from typing import Final

import msgspec

from pipeline.cache.coherence.tail import Page, Tail, page_of

_decode: Final = msgspec.json.Decoder(list[str]).decode


def page_in(message: bytes) -> Page | None:
    """The page of the log that a message holds; None if it holds none, so that the log has to be read: it was too long, or is
    not of this release. It confirms nothing: none says what was appended since."""
    head, _, packed = message.partition(b" ")
    number, _, patterns = packed.partition(b" ")
    tail = Tail.parse(head)
    if tail is None or not number.isdigit() or len(number) > 15 or not patterns:
        return None
    before = int(number)
    try:
        texts = _decode(patterns)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not texts or before + len(texts) != tail.seq:
        return None
    records = [(text, before + at) for at, text in enumerate(texts, start=1)]
    return page_of(tail, records, after=before, restart=False)

"""What the cache's server tells of an append, read by programs that must not trust it."""

from __future__ import annotations

import pytest

from pipeline.cache.coherence.published import page_in
from pipeline.cache.coherence.tail import Page, Tail


def test_a_message_is_a_page_that_continues_the_log() -> None:
    """Each pattern with its own seq, from the one after `before` up to the tail's."""
    assert page_in(b'0123456789abcdef:7:2 5 ["a:*","b"]') == Page(
        Tail("0123456789abcdef", 7, 2), 5, [("a:*", 6), ("b", 7)], restart=False
    )


@pytest.mark.parametrize(
    "message",
    [
        b"", b" ", b"e:7:2", b"e:7:2 5", b"e:7:2 5 ", b"e:7:2 six []", b"e:7:2 5 []", b"e:7:2 5 {}", b"e:7:2 5 [5,6]",
        b'e:7:2 5 ["a"]', b'e:7:2 6 ["a","b"]', b'e:7:2 -1 ["a"]', b'e:7 6 ["a"]', b'e:7:2 6 ["\xff"]', b'e:7:2 6 ["a"',
        b"e:7:2 6 " + b"[" * 100_000, b'e:7:2 9999999999999999 ["a"]', b"\x00\xff garbage",
    ],
)  # fmt: skip
def test_any_other_message_means_to_read_the_log(message: bytes) -> None:
    """One that was too long to tell its patterns, that is of another release, or that a foreign program has sent."""
    assert page_in(message) is None

"""What the main process of a node keeps of the messages that it has judged."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from typing import Any, cast

from envelopes import envelope, whole

from pipeline.models import PersonaRequest
from pipeline.optimized import OptimizedPipeline
from workers.node.door import KNOWN_REQUESTS, Door

KEY = "calm-flowing-planning"
MOST_KEPT_BYTES = 2**20


class Misses:
    """A pipeline that has nothing in its cache."""

    def seek_many(self, requests: Sequence[PersonaRequest]) -> list[None]:
        return [None] * len(requests)


def door() -> Door:
    return Door(cast("OptimizedPipeline", Misses()), store=lambda _: True, dispatcher=lambda: None, events_per_s=0.0)


def judged(subject: Door, *texts: str) -> None:
    for text in texts:
        context: Any = {
            "history": [{"role": "user", "content": f"{number} {text}"} for number in range(20 if len(text) > 999 else 1)]
        }
        assert subject.judge([envelope(whole(PersonaRequest.create("And now?", KEY, context).to_wire()))]) == [None]


def test_long_requests_are_not_kept() -> None:
    """1,024 of the longest would be gigabytes."""
    subject = door()
    judged(subject, "warm")
    tracemalloc.start()
    try:
        judged(subject, *(f"{number} " + "x" * 2_000 for number in range(60)))
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < MOST_KEPT_BYTES


def test_of_short_ones_so_many_are_kept_and_no_more() -> None:
    subject = door()
    judged(subject, *map(str, range(KNOWN_REQUESTS + 10)))
    assert len(subject._requests) <= KNOWN_REQUESTS
    assert subject._requests

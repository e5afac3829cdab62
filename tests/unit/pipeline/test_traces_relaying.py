"""Spans that wait for a collector: how many, and how long."""

from __future__ import annotations

import logging
import threading

import pytest

from pipeline.tracing.process import Outgoing
from pipeline.tracing.relaying import Waiting, send_all
from pipeline.tracing.sending import BATCH_BYTES, MOST_BYTES, Collector, Sender
from pipeline.tracing.spans import Span, Unit

NOWHERE = "http://127.0.0.1:1/v1/traces"
"""Nobody listens there, and a connection is refused at once."""


def test_the_oldest_go_when_there_are_too_many() -> None:
    waiting: Waiting[int] = Waiting()
    for number in range(20):
        waiting.put(number, MOST_BYTES // 16)
    assert waiting.dropped == 4
    taken = waiting.take()
    assert [number for number, _ in taken] == [4]  # a batch is as large as one of these
    for number in range(20, 22):
        waiting.put(number, MOST_BYTES // 16)
    waiting.put_back(taken)
    assert waiting.dropped == 6
    left = [number for _ in range(len(waiting)) for number, _ in waiting.take()]
    assert left == list(range(6, 22))


def test_a_batch_is_of_many_small_ones() -> None:
    waiting: Waiting[int] = Waiting()
    for number in range(10):
        waiting.put(number, BATCH_BYTES // 8)
    assert len(waiting.take()) == 8
    assert len(waiting.take()) == 2
    assert waiting.take() == []


def test_what_is_left_in_the_end_is_tried_once_and_told(caplog: pytest.LogCaptureFixture) -> None:
    waiting: Waiting[bytes] = Waiting()
    for _ in range(20):
        waiting.put(b"", MOST_BYTES // 16)
    ended = threading.Event()
    ended.set()
    with caplog.at_level(logging.WARNING):
        send_all(waiting, Sender(Collector(NOWHERE)), b"", b"", encode=bytes, ended=ended, last_s=0.0)
    assert len(waiting) == 16
    told = [record.getMessage() for record in caplog.records]
    assert [line.partition(" ")[0] for line in told] == ["traces.not_sent", "traces.dropped:"], told
    assert "4 units" in told[1]


def test_a_program_whose_collector_is_away_leaves_no_thread_behind() -> None:
    pytest.importorskip("opentelemetry.proto")
    outgoing = Outgoing({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": NOWHERE}, "client")
    unit = Unit(1 << 64)
    unit.spans.append(Span("a step", 0))
    for _ in range(2):  # also when it begins anew
        outgoing.put(unit)
        outgoing.close()
        assert "traces" not in {thread.name for thread in threading.enumerate()}

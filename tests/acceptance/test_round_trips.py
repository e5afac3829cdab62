"""What a request costs the broker and the results' server, as they are asked: by what a monitor sees of the node."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from fleet import Fleet

from benchmarks.kit.listening import Listening, children_of, ports_of
from workers.node.fetch.claims import _source

KEY = "calm-flowing-learning"
BESIDE = frozenset({"ping", "publish", "exists", "info", "monitor", "client", "hello", "select", "lrange"})
"""What a node sends, whether it works or not, or to those who watch it."""
LOOKS = {hashlib.sha1(_source("look").encode(), usedforsecurity=False).hexdigest(): "look"}
"""While all slots are busy a node looks every 5 to 20 ms for what the door can answer: as often as the model takes long."""
BEATS_PER_S = 8
"""What a node sends at most to keep its leases and its place, whatever it works at; `benchmarks idle` counts it."""


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Queue and results are on one server, and the cache on another."""
    with Fleet(concurrency=1) as fleet:
        for number in range(3):  # every connection is made
            ask(fleet, [f"the first {number}"] * 2)
        yield fleet


def ask(fleet: Fleet, questions: list[str]) -> None:
    sent = [
        fleet.app.send_task("persona.process", args=[{"user_input": each, "resonance_key": KEY}], queue="persona")
        for each in questions
    ]
    for result in sent:
        result.get(timeout=30)


def commands_of(fleet: Fleet, work: Callable[[], None]) -> Counter[str]:
    """What the node has sent meanwhile."""
    with Listening(fleet.broker.url, LOOKS) as heard:
        work()
        ports = set().union(*map(ports_of, (fleet.node.pid, *children_of(fleet.node.pid))))
    sent = sum((names for port, names in heard.received.items() if port in ports), Counter())
    return Counter({name: count for name, count in sent.items() if name not in BESIDE | {"look"}})


def test_a_miss_costs_three_exchanges_at_most(fleet: Fleet, question: str) -> None:
    """To wait, to claim and acknowledge, and to store its outcome; stock Celery has eight and more. (And looks.)"""

    def one_by_one() -> None:
        for number in range(20):
            ask(fleet, [f"{question} {number}"])

    began_s = time.monotonic()
    sent = commands_of(fleet, one_by_one)
    beats = BEATS_PER_S * (1 + time.monotonic() - began_s)
    assert 40 <= sent.total() <= 3 * 20 + beats, sent


def test_hits_that_wait_together_are_answered_together(fleet: Fleet, question: str) -> None:
    """Some exchanges for all, not some for each."""
    ask(fleet, [question])

    def together() -> None:
        fleet.node.freeze()
        request = {"user_input": question, "resonance_key": KEY}
        sent = [fleet.app.send_task("persona.process", args=[request], queue="persona") for _ in range(60)]
        fleet.node.thaw()
        for result in sent:
            result.get(timeout=30)

    began_s = time.monotonic()
    sent = commands_of(fleet, together)
    beats = BEATS_PER_S * (1 + time.monotonic() - began_s)
    assert 3 <= sent.total() <= 24 + beats, sent

"""The auditor, beside caches over one real server: what it calls stale is stale, and what it cannot know it says so."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
import redis
from faults import Clock, SteppedRedisCache, fill
from polling import until
from servers import ValkeyServer

from pipeline.cache import MISS, AsOf, LocalCache, TwoTierCache
from pipeline.cache.audit.auditor import Auditor
from pipeline.cache.audit.evidence import RECORDS_A_LOOK
from pipeline.cache.audit.sampler import Sampler
from pipeline.cache.audit.seen_log import MOST_PATTERNS
from pipeline.cache.coherence.view import InvalidationView
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.flight.filling import Filling
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection

BOUND_S = 0.5
ALL = float("inf")


class Audited(NamedTuple):
    """A cache of which each served answer is a sample, and what its auditor says of them."""

    cache: TwoTierCache
    auditor: Auditor
    connection: RedisConnection
    said: list[tuple[int, int, int]]

    def judged(self) -> tuple[int, int, int]:
        """Fresh, stale and undecided since it was last asked."""
        self.auditor.audit(self.connection)
        checks, stale, undecided = map(sum, zip(*self.said, strict=True)) if self.said else (0, 0, 0)
        self.said.clear()
        return checks - stale, stale, undecided


MakeAudited = Callable[..., Audited]


@pytest.fixture
def audited(redis_url: str, namespace: str) -> Iterator[MakeAudited]:
    """Makes one, by the real clock."""
    made: list[Audited] = []

    def make(clock: Callable[[], float] = time.monotonic, url: str = redis_url) -> Audited:
        sampler, said = Sampler(ALL), []
        cache = TwoTierCache(
            LocalCache(100, clock=clock),
            SteppedRedisCache(url, namespace),
            staleness_bound_s=BOUND_S,
            sampler=sampler,
            clock=clock,
        )
        auditor = Auditor(sampler, KeySpace(namespace), bound_s=BOUND_S, told=lambda *counts: said.append(counts), clock=clock)
        made.append(Audited(cache, auditor, RedisConnection(url, timeout_s=5), said))
        return made[-1]

    yield make
    for each in made:
        each.cache.close()
        each.connection.close()


def blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the view finds everything valid: the mutant `no_validation`."""
    monkeypatch.setattr(InvalidationView, "valid", lambda *_: True)


def test_what_is_served_rightly_is_fresh(audited: MakeAudited) -> None:
    """From L2, from L1, past an invalidation of something else, and after the log has begun anew."""
    here, there = audited(), audited()
    fill(there.cache, "a:b", deps=("dep",))
    assert here.cache.get("a:b") == here.cache.get("a:b")
    there.cache.invalidate("a:bc", "a:b:*", "?", "other:*")
    here.cache.refresh()
    here.cache.lookup("a:b")
    here.cache.peek("a:b")
    assert here.judged() == (4, 0, 0)


@pytest.mark.parametrize("pattern", ["k:1", "k:*", "*", "k:?", "dep", "de[p]"])
@pytest.mark.parametrize("read", ["get", "lookup", "peek"])
def test_a_stale_answer_of_l1_is_found_by_either_clock(
    audited: MakeAudited, monkeypatch: pytest.MonkeyPatch, pattern: str, read: str
) -> None:
    """By key, by dep, by each kind of pattern, and on each way out of the cache; and how late it was at least is not more than it
    was. The record is seen in the very look that follows the read: Redis's clock tells since when it was there."""
    here, there = audited(), audited()
    fill(here.cache, "k:1", deps=("dep",))
    here.cache.get("k:1")
    here.judged()
    blind(monkeypatch)
    there.cache.invalidate(pattern)
    getattr(here.cache, read)("k:1")
    assert here.judged() == (1, 0, 0), "it was within the bound"
    there.cache.invalidate(pattern)
    time.sleep(1.4 * BOUND_S)
    here.cache.refresh()
    getattr(here.cache, read)("k:1")
    assert here.judged() == (0, 1, 0)


def test_the_two_clocks_are_told_from_one_look(audited: MakeAudited, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, where the auditor had not seen the record before the read began: this process's clock alone could not tell."""
    here, there = audited(), audited()
    fill(here.cache, "k")
    here.cache.get("k")
    here.judged()
    blind(monkeypatch)
    there.cache.invalidate("k")
    time.sleep(1.4 * BOUND_S)
    here.cache.refresh()
    here.cache.get("k")
    assert here.judged() == (0, 1, 0)


def test_a_stale_answer_of_l2_is_found_at_once(audited: MakeAudited, monkeypatch: pytest.MonkeyPatch) -> None:
    """L2 has no bound."""
    here, there = audited(), audited()
    fill(there.cache, "k")
    here.cache.get("k")
    here.judged()
    blind(monkeypatch)
    there.cache.invalidate("k")
    time.sleep(0.1)
    here.cache.l1.clear()
    assert here.cache.lookup("k") is not None
    assert here.judged() == (0, 1, 0)


def test_an_answer_of_an_ended_epoch_is_found(
    audited: MakeAudited, monkeypatch: pytest.MonkeyPatch, client: redis.Redis, namespace: str
) -> None:
    """After the bound from when it was seen to have ended; before that it may be served."""
    here = audited()
    fill(here.cache, "k")
    here.cache.get("k")
    here.judged()
    blind(monkeypatch)
    keys = KeySpace(namespace)
    client.delete(keys.tail, keys.records)
    here.cache.get("k")
    assert here.judged() == (1, 0, 0)
    time.sleep(1.4 * BOUND_S)
    here.cache.refresh()
    here.cache.get("k")
    assert here.judged() == (0, 1, 0)


def test_what_the_log_has_lost_cannot_be_judged(audited: MakeAudited, client: redis.Redis, namespace: str) -> None:
    """An entry that is older than the records the auditor has seen whole: undecided, never fresh."""
    here, there = audited(), audited()
    fill(here.cache, "k")
    here.cache.get("k")
    assert here.judged() == (1, 0, 0)
    there.cache.invalidate("other")
    client.delete(KeySpace(namespace).records)
    there.cache.invalidate("another")
    here.cache.refresh()
    fill(here.cache, "new")
    there.cache.invalidate("third")
    here.cache.refresh()
    here.cache.get("new")
    assert here.judged() == (1, 0, 0)
    here.cache.get("k")
    assert here.cache.lookup("k") is not None
    assert here.judged()[1] == 0


def test_a_process_whose_clock_stands_still_is_not_accused(audited: MakeAudited, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspended machine: by its own clock no time has passed, and that is the clock of the bound. Redis's says otherwise, and
    is not believed: the two do not go together."""
    clock = Clock()
    here, there = audited(clock), audited()
    fill(here.cache, "k")
    here.cache.get("k")
    here.judged()
    there.cache.invalidate("k")
    for _ in range(2):
        time.sleep(1.4 * BOUND_S)
        here.cache.get("k")
        assert here.judged() == (1, 0, 0)
        clock.tick(0.9 * BOUND_S)
    blind(monkeypatch)
    here.cache.refresh()
    here.cache.get("k")
    assert here.judged() == (0, 1, 0), "its own clock can tell by now"


def test_a_machine_that_was_suspended_is_not_accused(audited: MakeAudited) -> None:
    """Its clock stood still between the append and the read, and goes on with Redis's since: by Redis's clock the read is late,
    by the clock of the bound it is not."""
    suspended_s = 0.0
    here, there = audited(lambda: time.monotonic() - suspended_s), audited()
    for key in ("k", "other"):
        fill(here.cache, key)
    here.cache.get("other")
    here.judged()
    time.sleep(1.4 * BOUND_S)  # else its own clock would say that the append was within the bound
    here.cache.refresh()
    there.cache.invalidate("k")
    time.sleep(1.4 * BOUND_S)
    suspended_s = 1.4 * BOUND_S
    here.cache.get("other")
    assert here.judged() == (1, 0, 0)
    assert here.cache.get("k") is not MISS
    assert here.judged()[1] == 0


def test_an_equal_pattern_does_not_hide_the_older_record(audited: MakeAudited, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log keeps the newest of each pattern; the auditor has seen the one before."""
    here, there = audited(), audited()
    fill(here.cache, "k")
    here.cache.get("k")
    here.judged()
    blind(monkeypatch)
    for _ in range(4):
        there.cache.invalidate("k")
        here.cache.get("k")
        seen = here.judged()
        time.sleep(0.4 * BOUND_S)
        here.cache.refresh()
    assert seen == (0, 1, 0)


def test_a_long_log_is_read_in_portions_and_its_beginning_is_let_go(audited: MakeAudited) -> None:
    """What it holds is bounded; what it has let go makes entries that old undecided."""
    here, there = audited(), audited()
    fill(here.cache, "k")
    here.cache.get("k")
    assert here.judged() == (1, 0, 0)
    for first in range(0, MOST_PATTERNS + RECORDS_A_LOOK, 5_000):
        there.cache.invalidate(*(f"p:{number}" for number in range(first, first + 5_000)))
    here.cache.refresh()
    here.cache.get("k")
    fill(here.cache, "new")
    here.cache.get("new")
    assert here.judged() == (1, 0, 1)
    late = audited()
    late.cache.get("new")
    late.cache.get("k")
    assert late.judged() == (1, 0, 1), "it begins with the newest records"


def test_what_waits_while_redis_is_away_is_judged_when_it_is_back(namespace: str, audited: MakeAudited) -> None:
    """And degraded answers, of which nothing is promised, are no samples."""
    with ValkeyServer() as server:
        here = audited(url=server.url)
        fill(here.cache, "k")
        here.cache.get("k")
        server.stop()
        with pytest.raises(SharedTierUnavailableError):
            here.judged()
        time.sleep(1.4 * BOUND_S)
        assert here.cache.lookup("k").degraded  # type: ignore[union-attr]
        server.start()
        until(lambda: here.cache.refresh() and _answers(here.connection), "the server is back")
        assert here.judged() == (0, 0, 1), "the log began anew, and the auditor had not seen the old one"


def _answers(connection: RedisConnection) -> bool:
    with suppress(SharedTierUnavailableError):
        return bool(connection.call(lambda client: client.ping()))
    return False


def test_nothing_is_sent_without_samples(audited: MakeAudited, client: redis.Redis) -> None:
    """An idle process is silent; and so is one whose sampler is off."""
    here = audited()
    here.judged()
    assert here.connection.made == 0
    assert Sampler(0).due_s == float("inf")


def test_a_sampler_rests_after_each_sample(audited: MakeAudited) -> None:
    """About so many a second, whatever the rate of the reads, and at uneven distances."""
    sampler = Sampler(10, rng=lambda: 0.5)
    taken = 0
    for number in range(2_000):
        now_s = number / 1_000
        if now_s >= sampler.due_s:
            sampler.note("k", (), _Known(), "l1", now_s)
            taken += 1
    assert 19 <= taken <= 21
    assert len(sampler.take()) == taken
    assert sampler.take() == []


def test_the_second_of_two_reads_is_sampled_as_well() -> None:
    """A request reads its routing and then its answer: at each moment at which one is due the routing comes first."""
    sampler = Sampler(20)
    for number in range(200):
        for after_s, key in ((0.0, "routing"), (1e-5, "answer")):
            if number + after_s >= sampler.due_s:
                sampler.note(key, (), _Known(), "l1", number + after_s)
    keys = [sample.key for sample in sampler.take()]
    assert min(keys.count("routing"), keys.count("answer")) > 20


class _Known:
    epoch, seq = "e", 1


def test_a_log_line_has_no_key(audited: MakeAudited, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Keys may be personal: a digest tells whether two lines are of one key."""
    here, there = audited(), audited()
    fill(here.cache, "user:secret")
    here.cache.get("user:secret")
    here.judged()
    blind(monkeypatch)
    there.cache.invalidate("user:secret")
    time.sleep(1.4 * BOUND_S)
    here.cache.refresh()
    here.cache.get("user:secret")
    with caplog.at_level(logging.ERROR, "pipeline.cache.audit"):
        assert here.judged() == (0, 1, 0)
    (record,) = caplog.records
    assert record.getMessage().startswith("cache.stale_serve: key ")
    assert "secret" not in record.getMessage()
    told: Any = record
    assert 0 < told.late_s < 1.0
    assert told.tier == "l1"


def test_a_forked_child_judges_its_own_samples_alone(audited: MakeAudited) -> None:
    """Its parent's are its parent's, and so is what the parent has seen."""
    here = audited()
    fill(here.cache, "k")
    here.cache.get("k")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            first = here.judged()
            here.cache.get("k")
            status = 0 if (first, here.judged()) == ((0, 0, 0), (1, 0, 0)) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert here.judged() == (1, 0, 0)


@pytest.mark.parametrize("how", ["in a thread", "awaited", "of several"])
def test_an_as_of_that_was_taken_too_late_does_not_hide_it(
    audited: MakeAudited, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """An entry that says that it knows what came after its computation began: the mutant `as_of_after_the_computation`. The
    process that computed it knows better."""
    here, there = audited(), audited()
    here.cache.get_or_compute("warm", lambda: 1)
    here.cache.get("warm")
    here.judged()

    def late(store: Callable[..., None]) -> Callable[..., None]:
        def stored(filling: Filling, *given: Any) -> None:
            store(filling, *(filling._view.as_of() if isinstance(part, AsOf) else part for part in given))

        return stored

    for name in ("store", "store_many"):
        monkeypatch.setattr(Filling, name, late(getattr(Filling, name)))

    def compute() -> int:
        time.sleep(0.1)  # more than a round trip takes: what is nearer cannot be told apart
        there.cache.invalidate("k")
        here.cache.refresh()
        return 1

    async def awaited() -> int:
        return compute()

    if how == "in a thread":
        here.cache.get_or_compute("k", compute)
    elif how == "awaited":
        asyncio.run(here.cache.aio.get_or_compute("k", awaited))
    else:
        here.cache.get_or_compute_many(["k"], lambda _: {"k": compute()})
    time.sleep(1.4 * BOUND_S)
    here.cache.refresh()
    here.cache.get("k")
    assert here.judged() == (0, 1, 0)


# -- awaited


async def _one() -> int:
    return 1


AWAITED: dict[str, Callable[[TwoTierCache], Coroutine[Any, Any, Any]]] = {
    "get": lambda cache: cache.aio.get("k"),
    "lookup": lambda cache: cache.aio.lookup("k"),
    "get_many": lambda cache: cache.aio.get_many(["k"]),
    "get_or_compute": lambda cache: cache.aio.get_or_compute("k", _one),
}


@pytest.mark.parametrize("read", AWAITED)
@pytest.mark.parametrize("tier", ["l1", "l2"])
def test_an_awaited_answer_is_judged_as_any(audited: MakeAudited, monkeypatch: pytest.MonkeyPatch, tier: str, read: str) -> None:
    """Of either tier, by each call: fresh while it is, and stale once it is that."""
    here, there = audited(), audited()
    fill(there.cache, "k")
    here.cache.get("k")
    here.judged()

    def asked() -> None:
        if tier == "l2":
            here.cache.l1.clear()
        asyncio.run(AWAITED[read](here.cache))

    asked()
    assert [(sample.key, sample.tier) for sample in here.cache._sampler.take()] == [("k", tier)]
    asked()
    assert here.judged() == (1, 0, 0)
    blind(monkeypatch)
    there.cache.invalidate("k")
    time.sleep(1.4 * BOUND_S)
    here.cache.refresh()
    asked()
    assert here.judged() == (0, 1, 0)


@pytest.mark.parametrize("who", ["tasks of its loop", "a task of another loop", "a thread"])
def test_a_joined_answer_of_a_task_is_judged(audited: MakeAudited, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    """Whoever waits for it is given a joined answer, and the one whose task computes it is not. One that asks after an
    invalidation, and joins all the same, has a stale one."""
    here, there = audited(), audited()
    here.cache.get_or_compute("warm", lambda: 1)
    here.cache.get("warm")
    here.judged()
    begun, released = threading.Event(), threading.Event()

    async def slow() -> int:
        begun.set()
        await asyncio.to_thread(released.wait, 10)
        return 1

    async def several(count: int) -> list[int]:
        return await asyncio.gather(*(here.cache.aio.get_or_compute("k", slow) for _ in range(count)))

    def joined(pool: ThreadPoolExecutor, meanwhile: Callable[[], object]) -> None:
        begun.clear()
        released.clear()
        leads = pool.submit(asyncio.run, several(2 if who == "tasks of its loop" else 1))
        assert begun.wait(10)
        meanwhile()
        asked = [leads]
        if who == "a thread":
            asked.append(pool.submit(here.cache.get_or_compute, "k", lambda: 2))
        elif who == "a task of another loop":
            asked.append(pool.submit(asyncio.run, several(1)))
        until(lambda: len(_waiting(here.cache)) == len(asked) - 1, "the other waits")
        released.set()
        assert all(each.result(10) in (1, [1], [1, 1]) for each in asked)

    with ThreadPoolExecutor(2) as pool:
        joined(pool, lambda: None)
        assert [(sample.key, sample.tier) for sample in here.cache._sampler.take()] == [("k", "joined")]
        there.cache.delete("k")
        here.cache.refresh()
        if who == "tasks of its loop":
            return  # who shares a look asked before it began: there is no later one that could join

        def invalidated() -> None:
            blind(monkeypatch)
            there.cache.invalidate("k")
            time.sleep(0.1)  # more than a round trip takes

        joined(pool, invalidated)
    assert here.judged() == (0, 1, 0)


def _waiting(cache: TwoTierCache) -> list[object]:
    """Those who wait for the end of the flight of "k"."""
    flight = cache._flight._flights.get("k")
    return [] if flight is None else list(flight._bells)

"""Preloads over a real server: due answers are renewed, by several workers, within the budget, and for no user in particular."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
import redis
from catalogue import FOUR
from faults import Clock
from servers import ValkeyServer, free_port

from pipeline import keys
from pipeline.cache import LocalCache, RedisCache, TwoTierCache
from pipeline.errors import PermanentModelError, TransientModelError
from pipeline.hot import Asked, HotKeys, HotSet
from pipeline.models import RESONANCES, PersonaRequest
from pipeline.optimized import OptimizedPipeline
from pipeline.persona_pipeline import PersonaPipeline
from pipeline.preload import Preloader, Round, hot_set_of, maintain, report_of, warm
from pipeline.preload.preloader import AWAY, FAILURES, NO_SHARED_TIER, OUT_OF_TIME, ROUND_S
from pipeline.prompts import Prompt
from pipeline.settings import load_settings
from workers.node.preload import MAX_BUDGET, checked_budget, checked_round, takes_slot

KEY = "calm-flowing-planning"
INTERVAL_S = 300.0


class Model:
    """Answers, counts, and fails when it is told to."""

    model = "counting"
    fingerprint = "counting-1"

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failure: Exception | None = None
        self.at_answer: Callable[[], None] = lambda: None

    def respond(self, prompt: Prompt) -> str:
        self.asked.append(prompt.user)
        self.at_answer()
        if self.failure is not None:
            raise self.failure
        return f"answer {len(self.asked)}"


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def wall() -> Clock:
    return Clock(1_700_000_000.0)


Make = Callable[..., OptimizedPipeline]


@pytest.fixture
def make(redis_url: str, namespace: str, model: Model, wall: Clock) -> Iterator[Make]:
    """Makes a pipeline as another process would have it."""
    made: list[OptimizedPipeline] = []

    def make_pipeline(url: str = redis_url, other: Model | None = None) -> OptimizedPipeline:
        l2 = RedisCache(url=url, namespace=namespace, timeout_s=5.0 if url == redis_url else 0.2)
        cache = TwoTierCache(LocalCache(1000), l2, max_ttl_s=keys.LONGEST_TTL_S, wall_clock=wall, ttl_jitter=0.0)
        made.append(OptimizedPipeline(PersonaPipeline(FOUR, other or model), cache, grace_s=300))
        return made[-1]

    yield make_pipeline
    for pipeline in made:
        pipeline.close()


@pytest.fixture
def here(make: Make) -> OptimizedPipeline:
    return make()


@pytest.fixture
def there(make: Make) -> OptimizedPipeline:
    return make()


@pytest.fixture
def client(valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with valkey.client() as client:
        yield client


def nobody(_: str) -> None:
    """No other worker is free."""


def preloader(pipeline: OptimizedPipeline, share: Callable[[str], None] = nobody, **options: object) -> Preloader:
    return Preloader(pipeline, interval_s=INTERVAL_S, share=share, **{"rng": lambda: 0.0, **options})  # type: ignore[arg-type]


def ask(pipeline: OptimizedPipeline, *questions: str) -> None:
    """Answer each, and count it as asked for: the first one most."""
    hot = hot_set_of(pipeline)
    assert hot is not None
    for number, question in enumerate(questions):
        request = PersonaRequest.create(question, KEY)
        pipeline.process_request(request)
        hot.count({pipeline.key_of(request): Asked(2 + len(questions) - number, request)})


def source(pipeline: OptimizedPipeline, question: str) -> str:
    return pipeline.process(question, KEY).cached


# -- one renewal


def test_an_answer_near_its_end_is_renewed_for_all(
    here: OptimizedPipeline, there: OptimizedPipeline, wall: Clock, model: Model
) -> None:
    """Its own look-ups are not counted as requests; another one of the same is not needed."""
    ask(here, "a")
    request = PersonaRequest.create("a", KEY)
    assert there.renew(request, 500) == "fresh"
    wall.tick(300)
    before = there.get_cache_stats()["total_requests"]
    assert there.renew(request, 500) == "computed"
    assert there.get_cache_stats()["total_requests"] == before
    assert here.renew(request, 500) == "fresh"
    assert model.asked == ["a", "a"]


@pytest.mark.parametrize("context", [{"user_id": "u"}, {"user_name": "Kim"}, {"history": [{"role": "user", "content": "hi"}]}])
def test_a_personal_answer_is_never_renewed(here: OptimizedPipeline, context: dict[str, object], model: Model) -> None:
    """Its user alone may have it computed."""
    with pytest.raises(ValueError, match="personal"):
        here.renew(PersonaRequest.create("a", KEY, context), 500)
    assert model.asked == []


def test_without_redis_no_renewal_is_begun(make: Make, model: Model) -> None:
    """Its result could be kept nowhere."""
    assert make(f"redis://127.0.0.1:{free_port()}/0").renew(PersonaRequest.create("a", KEY), 500) == "away"
    assert model.asked == []


# -- a preload


def test_every_stage_is_in_both_tiers_after_it(here: OptimizedPipeline, there: OptimizedPipeline) -> None:
    """Personas, routes of all 216 keys and their templates; a second one computes nothing."""
    report = preloader(here).run("r", 0)
    assert (report.personas, report.routes, report.templates) == (4, 216, 216)
    assert here.cache.l2 is not None
    names = [keys.routing_key(resonance) for resonance in RESONANCES]
    assert here.cache.l2.count_present(names) == 216
    computed = here.cache.get_stats()["computed"]
    assert computed == 4 + 216 + 216
    preloader(here).run("r2", 0)
    preloader(there).run("r3", 0)
    assert here.cache.get_stats()["computed"] == computed
    assert there.cache.get_stats()["computed"] == 0


def test_what_would_end_before_the_next_one_is_renewed_and_what_would_not_is_left(
    here: OptimizedPipeline, there: OptimizedPipeline, wall: Clock, model: Model
) -> None:
    """The first request after it is a hit, in whatever process; the model was asked once for each that was due."""
    ask(here, "old")
    wall.tick(300)
    ask(here, "young")
    report = preloader(there).run("r", 50)
    assert (report.hot_considered, report.due, report.renewed, report.failed, report.skipped) == (2, 1, 1, 0, 0)
    assert model.asked == ["old", "young", "old"]
    wall.tick(299)
    assert source(there, "old") in ("l1", "l2")
    assert source(there, "young") in ("l1", "l2")


def test_what_was_invalidated_is_computed_before_it_is_missed(here: OptimizedPipeline, there: OptimizedPipeline) -> None:
    """Or has ended, or was evicted: hot answers that are not there are due as well."""
    ask(here, "a", "b")
    here.invalidate("persona:*")
    report = preloader(here).run("r", 50)
    assert (report.due, report.renewed) == (2, 2)
    assert [source(there, question) for question in "ab"] == ["l2", "l2"]


def test_the_hottest_come_first_and_no_more_than_the_budget(here: OptimizedPipeline, model: Model) -> None:
    """A budget of 0 spends nothing."""
    ask(here, *"abcdef")
    here.invalidate("persona:*")
    model.asked.clear()
    report = preloader(here).run("r", 2)
    assert (report.hot_considered, report.due, report.renewed) == (6, 2, 2)
    assert model.asked == ["a", "b"]
    assert preloader(here).run("r2", 0).renewed == 0


def test_what_was_computed_together_is_not_due_together(here: OptimizedPipeline, wall: Clock) -> None:
    """The margin is another one for each: renewals spread over the preloads."""
    ask(here, *"abcdefgh")
    wall.tick(600 - 1.25 * INTERVAL_S)
    draws = iter([0.0, 1.0] * 4)
    report = preloader(here, rng=lambda: next(draws)).run("r", 50)
    assert report.due == 4


def test_several_share_a_round_and_none_renews_what_another_does(here: OptimizedPipeline, make: Make, model: Model) -> None:
    """Helpers are called after the first success, each of them calls the next; together they do the whole."""
    questions = [f"q{number}" for number in range(12)]
    ask(here, *questions)
    here.invalidate("persona:*")
    model.asked.clear()
    model.at_answer = lambda: time.sleep(0.01)
    helped: list[bool] = []
    with ThreadPoolExecutor(4) as pool:

        def share(round_id: str) -> None:
            pool.submit(lambda: helped.append(preloader(make(), share).help(round_id)))

        report = preloader(here, share).run("r", 50)
    assert (report.due, report.renewed, report.skipped) == (12, 12, 0)
    assert sorted(model.asked) == sorted(questions)
    assert helped.count(True) >= 1


def test_a_helper_that_comes_late_finds_nothing_to_do(here: OptimizedPipeline, model: Model) -> None:
    """Nor does one of a round that never was."""
    ask(here, "a")
    here.invalidate("persona:*")
    preloader(here).run("r", 50)
    model.asked.clear()
    assert not preloader(here).help("r")
    assert not preloader(here).help("another")
    assert model.asked == []


@pytest.mark.parametrize("error", [TransientModelError("model: away"), PermanentModelError("model: no such key")])
def test_a_failing_model_ends_it_and_nobody_was_called_to_help(here: OptimizedPipeline, model: Model, error: Exception) -> None:
    """The report says so, without a word of a question or an answer."""
    ask(here, *"abcdef")
    here.invalidate("persona:*")
    model.asked.clear()
    model.failure = error
    called: list[str] = []
    report = preloader(here, called.append).run("r", 50)
    assert len(model.asked) == FAILURES
    assert (report.renewed, report.failed, called) == (0, FAILURES, [])
    assert report.stopped_because == f"the model failed {FAILURES} times, the last time with {type(error).__name__}"
    assert report_of(report)["stopped_because"] == report.stopped_because
    assert not preloader(here).help("r")


def test_one_that_fails_now_and_then_ends_nothing(here: OptimizedPipeline, model: Model) -> None:
    """A refusal of one question is no failing model."""
    ask(here, *"abcdef")
    here.invalidate("persona:*")

    def refuse_b() -> None:
        model.failure = PermanentModelError("model: refused") if model.asked[-1] == "b" else None

    model.at_answer = refuse_b
    report = preloader(here).run("r", 50)
    assert (report.renewed, report.failed, report.stopped_because) == (5, 1, None)


def test_a_key_of_another_release_is_forgotten(here: OptimizedPipeline, make: Make) -> None:
    """Its request would be answered under another key: no caller asks for this one any more."""
    ask(here, "a")
    here.invalidate("persona:*")
    newer = Model()
    newer.fingerprint = "counting-2"
    report = preloader(make(other=newer)).run("r", 50)
    assert (report.due, report.renewed, report.skipped) == (1, 0, 1)
    assert newer.asked == []
    hot = hot_set_of(here)
    assert hot is not None
    assert hot.top() == []


def test_it_ends_in_time_and_stops_its_round(here: OptimizedPipeline, model: Model) -> None:
    """However slow the model is: a task has a limit. The next one goes on."""
    ask(here, *"abcdef")
    here.invalidate("persona:*")
    clock = Clock()
    model.at_answer = lambda: clock.tick(ROUND_S / 2)
    report = preloader(here, clock=clock).run("r", 50)
    assert (report.renewed, report.stopped_because) == (2, OUT_OF_TIME)
    assert not preloader(here).help("r")


def test_it_does_not_wait_for_ever_for_a_helper_that_died(here: OptimizedPipeline, namespace: str) -> None:
    """One that took a key and is gone."""
    ask(here, *"abc")
    here.invalidate("persona:*")
    clock = Clock()
    assert here.cache.l2 is not None
    lost = Round(here.cache.l2.connection, HotKeys(namespace), "r")
    report = preloader(here, lambda _: lost.take() and None, clock=clock, sleep=clock.tick).run("r", 50)
    assert report.renewed < 3
    assert report.stopped_because == OUT_OF_TIME


def test_a_round_that_is_stopped_before_it_began_spends_nothing(here: OptimizedPipeline, namespace: str, model: Model) -> None:
    """The message was under way still."""
    ask(here, *"abc")
    here.invalidate("persona:*")
    model.asked.clear()
    assert here.cache.l2 is not None
    Round(here.cache.l2.connection, HotKeys(namespace), "r").stop("gone")
    report = preloader(here).run("r", 50)
    assert (report.renewed, report.stopped_because, report.ended) == (0, "gone", True)
    assert model.asked == []


def test_what_breaks_it_off_stops_the_round(here: OptimizedPipeline, model: Model) -> None:
    """A task's time limit is raised in the middle of it: helpers do not go on for a round that has ended."""
    ask(here, *"abcdef")
    here.invalidate("persona:*")
    model.failure = RuntimeError("a signal")
    with pytest.raises(RuntimeError):
        preloader(here).run("r", 50)
    model.failure = None
    assert not preloader(here).help("r")


def test_without_redis_it_reports_and_spends_nothing(make: Make, model: Model) -> None:
    """Nor without a shared tier. The stages are in this process's own."""
    away = preloader(make(f"redis://127.0.0.1:{free_port()}/0")).run("r", 50)
    assert (away.routes, away.renewed, away.stopped_because) == (216, 0, AWAY)
    alone = OptimizedPipeline(PersonaPipeline(FOUR, model), TwoTierCache(LocalCache(1000), max_ttl_s=7200))
    assert preloader(alone).run("r", 50).stopped_because == NO_SHARED_TIER
    assert not preloader(alone).help("r")
    assert model.asked == []


# -- warm


def test_a_new_process_has_the_hottest_answers_and_their_routings(here: OptimizedPipeline, make: Make) -> None:
    """Its first request for each is an L1 hit. Two round trips bring them."""
    ask(here, *(f"q{number}" for number in range(30)))
    new = make()
    assert warm(new, 20) == 21
    assert [source(new, f"q{number}") for number in range(20)] == ["l1"] * 20
    assert source(new, "q25") == "l2"
    assert warm(new, 20) == 0, "they are here already"


def test_without_redis_a_process_begins_cold(make: Make, model: Model) -> None:
    """And without an error."""
    assert warm(make(f"redis://127.0.0.1:{free_port()}/0")) == 0
    assert warm(OptimizedPipeline(PersonaPipeline(FOUR, model), TwoTierCache(LocalCache(10)))) == 0


# -- maintenance


def test_maintenance_sweeps_and_lets_scores_decay(here: OptimizedPipeline) -> None:
    """The report, as an object."""
    ask(here, "a", "b")
    here.invalidate("persona:*")
    done = maintain(here)
    assert done["pass_done"]
    assert done["swept"] >= 2
    assert done["hot"] == 2
    json.dumps(done)


def test_maintenance_without_redis_says_so(make: Make, model: Model) -> None:
    """It raises nothing: the next run is due in a minute."""
    assert maintain(make(f"redis://127.0.0.1:{free_port()}/0")) == {"stopped_because": AWAY}
    alone = OptimizedPipeline(PersonaPipeline(FOUR, model), TwoTierCache(LocalCache(10)))
    assert maintain(alone) == {"stopped_because": NO_SHARED_TIER}


# -- slots


def test_of_all_tasks_of_a_slot_one_runs(
    here: OptimizedPipeline, there: OptimizedPipeline, client: redis.Redis, namespace: str
) -> None:
    """And it runs when it is delivered again, since its first worker may have died. One that beat did not send always runs."""
    taken = []
    barrier = threading.Barrier(8)

    def task(number: int) -> None:
        barrier.wait(20)
        if takes_slot((here, there)[number % 2], "cache.preload", f"id{number}", 60) is None:
            taken.append(f"id{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(task, range(8)))
    (owner,) = taken
    assert takes_slot(there, "cache.preload", owner, 60) is None
    assert takes_slot(there, "cache.preload", "another", 60) == "it has run within the last 60 s"
    assert takes_slot(there, "cache.maintain", "another", 60) is None
    assert takes_slot(there, "cache.preload", "by hand", None) is None
    assert 0 < client.pttl(HotKeys(namespace).slot("cache.preload")) <= 48_000


def test_a_slot_that_cannot_be_told_is_not_run(make: Make) -> None:
    """Rather one too few than two."""
    assert takes_slot(make(f"redis://127.0.0.1:{free_port()}/0"), "cache.preload", "id", 60) is not None


@pytest.mark.parametrize("every_s", [0, -1, True, "60", 1e9, float("nan"), [60]])
def test_a_slot_that_is_none_is_refused(here: OptimizedPipeline, every_s: object) -> None:
    """The message names it."""
    with pytest.raises(ValueError, match="every_s: "):
        takes_slot(here, "cache.preload", "id", every_s)


def test_what_a_task_is_given_is_checked() -> None:
    """Any program may send it."""
    assert checked_budget(None) == load_settings({}).preload_budget
    assert checked_budget(7) == 7
    for budget in (-1, MAX_BUDGET + 1, 1.5, "7", True):
        with pytest.raises(ValueError, match="budget: "):
            checked_budget(budget)
    assert checked_round(None, "mine") == "mine"
    assert checked_round("theirs", "mine") == "theirs"
    for round_id in ("", "x" * 65, 5, "a\nb", "ü"):
        with pytest.raises(ValueError, match="round_id: "):
            checked_round(round_id, "mine")


def test_progress_is_what_the_round_says(here: OptimizedPipeline, namespace: str) -> None:
    """Also to another process, while it runs."""
    assert here.cache.l2 is not None
    connection = here.cache.l2.connection
    mine, theirs = (Round(connection, HotKeys(namespace), "r") for _ in range(2))
    assert theirs.read().routes == 0
    mine.tell(personas=4, routes=216)
    mine.begin(["a", "b", "c"], 9)
    assert [theirs.take(), mine.take()] == ["a", "b"]
    assert theirs.left() == 1
    mine.note("renewed")
    theirs.note("failed")
    assert (theirs.read().handled, theirs.read().due, theirs.read().ended) == (2, 3, False)
    mine.stop("one")
    theirs.stop("two")
    assert mine.take() is None
    report = mine.end()
    assert (report.stopped_because, report.ended, report.hot_considered) == ("one", True, 9)
    assert msgspec.json.decode(msgspec.json.encode(report))["due"] == 3
    assert HotSet(connection, HotKeys(namespace)).top() == []

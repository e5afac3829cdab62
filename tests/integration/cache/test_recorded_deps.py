"""What a computation reads through the cache is what it depends on: at any depth, in helper threads and in tasks."""

from __future__ import annotations

import asyncio
import contextvars
import random
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any

import pytest

from pipeline.cache import MISS, Found, LocalCache, RedisCache, TwoTierCache, UncacheableValueError, cached
from pipeline.cache.flight.computation import LIVE, computing

GRAPHS = 1_000
BOUND_S = 20.0


@pytest.fixture(params=["both tiers", "L1 alone"])
def cache(request: pytest.FixtureRequest, redis_url: str, namespace: str) -> Iterator[TwoTierCache]:
    l2 = RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0) if request.param == "both tiers" else None
    cache = TwoTierCache(LocalCache(100_000), l2, ttl_jitter=0.0)
    yield cache
    cache.clear()
    cache.close()


def deps_of(cache: TwoTierCache, key: str) -> set[str]:
    """As they are kept, in L1 and in L2 alike."""
    found = cache.lookup(key)
    assert isinstance(found, Found), key
    if cache.l2 is not None:
        cache.l1.clear()
        shared = cache.lookup(key)
        assert isinstance(shared, Found)
        assert set(shared.deps) == set(found.deps)
    return set(found.deps)


# -- random graphs of calls


class Graph:
    """Values that are computed from others, of higher numbers; the last ones from inputs that no cache holds."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self.name = f"g{seed}"
        self.size = self._rng.randint(2, 9)
        self.needs = {
            number: self._rng.sample(range(number + 1, self.size), self._rng.randint(0, min(3, self.size - number - 1)))
            for number in range(self.size)
        }
        self.inputs = {
            number: [f"in:{self.name}:{number}:{at}" for at in range(self._rng.randint(0, 2))] for number in self.needs
        }
        self.peeks = {number: self._rng.random() < 0.2 for number in self.needs}
        self.ways = {(number, need): self._rng.randrange(4) for number in self.needs for need in self.needs[number]}
        self.begins = [self._rng.randrange(self.size) for _ in range(3)]

    def key(self, number: int) -> str:
        return f"{self.name}:{number}"

    def true_deps(self, number: int) -> set[str]:
        deps = set(self.inputs[number]) | ({f"absent:{self.name}:{number}"} if self.peeks[number] else set())
        for need in self.needs[number]:
            deps |= {self.key(need)} | self.true_deps(need)
        return deps


def in_threads(cache: TwoTierCache, graph: Graph, number: int, pool: ThreadPoolExecutor) -> str:
    """The value, with its needs read in this thread, by helper threads, by `get` after a fill, or many at once."""

    def compute() -> str:
        cache.reads(*graph.inputs[number])
        if graph.peeks[number]:
            assert cache.get(f"absent:{graph.name}:{number}") is MISS
        text = ""
        for need in graph.needs[number]:
            way = graph.ways[number, need]
            if way == 1:
                context = contextvars.copy_context()
                helper = threading.Thread(target=context.run, args=(in_threads, cache, graph, need, pool))
                helper.start()
                helper.join()
            elif way == 2:
                in_threads(cache, graph, need, pool)
                assert cache.get_many([graph.key(need)])
            elif way == 3:
                cache.get_or_compute_many([graph.key(need)], lambda keys, need=need: {keys[0]: nested(need)})
                continue
            text += in_threads(cache, graph, need, pool)
        return f"{number}({text})"

    def nested(need: int) -> str:
        # As `compute` of that number, within a computation of several.
        cache.reads(*graph.inputs[need])
        if graph.peeks[need]:
            cache.get(f"absent:{graph.name}:{need}")
        return "".join(in_threads(cache, graph, further, pool) for further in graph.needs[need])

    return cache.get_or_compute(graph.key(number), compute)


async def in_tasks(cache: TwoTierCache, graph: Graph, number: int) -> str:
    """The value, with its needs awaited here, in tasks of their own, at the same time, or in a thread."""

    async def compute() -> str:
        cache.reads(*graph.inputs[number])
        if graph.peeks[number]:
            assert await cache.aio.get(f"absent:{graph.name}:{number}") is MISS
        text, together = "", []
        for need in graph.needs[number]:
            way = graph.ways[number, need]
            if way == 1:
                together.append(asyncio.create_task(in_tasks(cache, graph, need)))
            elif way == 2:
                text += await in_tasks(cache, graph, need)
                assert await cache.aio.get_many([graph.key(need)])
            elif way == 3:
                text += await asyncio.to_thread(lambda need=need: asyncio.run(in_tasks(cache, graph, need)))
            else:
                text += await in_tasks(cache, graph, need)
        return f"{number}({text}{''.join(await asyncio.gather(*together))})"

    return await cache.aio.get_or_compute(graph.key(number), compute)


def check(cache: TwoTierCache, graph: Graph) -> None:
    for number in graph.needs:
        if cache.lookup(graph.key(number)) is not MISS:
            assert deps_of(cache, graph.key(number)) == graph.true_deps(number), (graph.name, number)


def test_of_random_graphs_the_deps_that_are_recorded_are_the_true_ones(redis_url: str, namespace: str) -> None:
    """Of a thousand: half in threads, half in coroutines; begun at several places, so that parts are hits, of L1 or of L2."""
    cache = TwoTierCache(LocalCache(100_000), RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0), ttl_jitter=0.0)
    recorded = 0
    with ThreadPoolExecutor(4) as pool:
        for seed in range(GRAPHS):
            graph = Graph(seed)
            for number in graph.begins:
                if seed % 2:
                    in_threads(cache, graph, number, pool)
                else:
                    asyncio.run(in_tasks(cache, graph, number))
                if seed % 3 == 0:
                    cache.l1.clear()
            check(cache, graph)
            recorded += sum(len(graph.true_deps(number)) for number in graph.begins)
    assert recorded > GRAPHS
    assert not LIVE
    cache.close()


def test_of_graphs_computed_by_many_at_once_too(cache: TwoTierCache) -> None:
    """Threads and tasks join each other's computations, and have what these depend on."""
    for seed in range(GRAPHS, GRAPHS + 40):
        graph = Graph(seed)

        async def all_at_once(graph: Graph = graph) -> None:
            await asyncio.gather(*(in_tasks(cache, graph, number) for number in graph.begins * 3))

        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(in_threads, cache, graph, number, pool) for number in graph.begins]
            asked += [pool.submit(asyncio.run, all_at_once()) for _ in range(2)]
            for each in asked:
                each.result(BOUND_S)
        check(cache, graph)


# -- what it is good for


def test_an_invalidation_reaches_what_was_computed_from_it_without_a_word(cache: TwoTierCache) -> None:
    """The source and a value in between; neither is named anywhere."""
    source = {"user:7": "trains"}

    @cached(key_prefix="profile", cache=cache)
    def profile(user: int) -> str:
        cache.reads(f"user:{user}")
        return source[f"user:{user}"]

    @cached(key_prefix="advice", cache=cache)
    def advice(user: int) -> str:
        return f"Travel by {profile(user)}."

    assert advice(7) == "Travel by trains."
    source["user:7"] = "ships"
    cache.invalidate("user:7")
    assert advice(7) == "Travel by ships."
    source["user:7"] = "kites"
    profile.invalidate(7)
    assert advice(7) == "Travel by kites."


def test_an_invalidation_that_overtakes_a_computation_is_not_lost(cache: TwoTierCache) -> None:
    """`as_of` is from before the first input was read, though it is passed by nobody."""
    source = {"k": "old"}

    def compute() -> str:
        cache.reads("k")
        value = source["k"]
        source["k"] = "new"
        cache.invalidate("k")
        return value

    assert cache.get_or_compute("outer", lambda: cache.get_or_compute("inner", compute)) == "old"
    assert cache.get("outer") is MISS
    assert cache.get("inner") is MISS


def test_a_miss_is_an_input(cache: TwoTierCache) -> None:
    """What is set later would have been read."""

    def compute() -> str:
        value = cache.get("setting", "unset")
        return f"with {value}"

    assert cache.get_or_compute("k", compute) == "with unset"
    cache.set("setting", "loud")
    assert cache.get_or_compute("k", compute) == "with loud"


@pytest.mark.parametrize("awaited", [False, True], ids=["threads", "tasks"])
def test_what_led_to_a_failure_that_is_caught_is_an_input(cache: TwoTierCache, *, awaited: bool) -> None:
    """The outer value would be another one if the inner computation had not failed."""
    source: dict[str, str] = {}

    def price() -> str:
        cache.reads("stock:7")
        return source["price"]

    def offer() -> str:
        try:
            return cache.get_or_compute("price", price)
        except KeyError:
            return "none"

    async def aprice() -> str:
        return price()

    async def aoffer() -> str:
        try:
            return await cache.aio.get_or_compute("price", aprice)
        except KeyError:
            return "none"

    def ask() -> str:
        return asyncio.run(cache.aio.get_or_compute("offer", aoffer)) if awaited else cache.get_or_compute("offer", offer)

    assert ask() == "none"
    assert deps_of(cache, "offer") == {"price", "stock:7"}
    source["price"] = "5"
    cache.invalidate("stock:7")
    assert ask() == "5"


def test_what_led_to_a_failure_of_several_is_an_input(cache: TwoTierCache) -> None:
    def several(_: Any) -> dict[str, int]:
        cache.reads("stock")
        raise KeyError

    def offer() -> str:
        try:
            return str(cache.get_or_compute_many(["a", "b"], several))
        except KeyError:
            return "none"

    assert cache.get_or_compute("offer", offer) == "none"
    assert deps_of(cache, "offer") == {"a", "b", "stock"}


def test_deps_by_hand_are_added(cache: TwoTierCache) -> None:
    """With what their own entries depend on."""
    cache.get_or_compute("b", lambda: 1, deps=("a",))
    cache.get_or_compute("c", lambda: cache.get_or_compute("x", lambda: 2), deps=("b",))
    assert deps_of(cache, "c") == {"a", "b", "x"}

    @cached(key_prefix="report", cache=cache, deps=lambda user: (f"user:{user}",))
    def report(user: int) -> int:
        return user + cache.get_or_compute("x", lambda: 2)

    assert report(7) == 9
    assert deps_of(cache, report.cache_key(7)) == {"user:7", "x"}


def test_a_bare_thread_is_not_followed_and_one_with_the_context_is(cache: TwoTierCache) -> None:
    """As it is said: nothing global is patched."""

    def compute() -> str:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(cache.get, "bare").result()
            pool.submit(contextvars.copy_context().run, cache.get, "with it").result()
        return ""

    cache.get_or_compute("k", compute)
    bare = {"bare"} if getattr(sys.flags, "thread_inherit_context", False) else set()  # an option of newer Pythons
    assert deps_of(cache, "k") == {"with it"} | bare


def test_nothing_is_read_by_what_goes_on_after_the_computation(cache: TwoTierCache) -> None:
    """A task that it has begun reads for itself."""

    async def main() -> None:
        go_on, left = asyncio.Event(), []

        async def later() -> None:
            await go_on.wait()
            began.append(computing())
            cache.get_or_compute("another", lambda: 1)
            cache.get("late")

        async def compute() -> str:
            cache.get("early")
            left.append(asyncio.create_task(later()))
            return ""

        await cache.aio.get_or_compute("k", compute)
        go_on.set()

        async def while_another_runs() -> int:
            await left[0]
            return 1

        await cache.aio.get_or_compute("runs", while_another_runs)

    began: list[Any] = []
    asyncio.run(main())
    assert began[0].read.keys() == {"early"}, "what goes on holds on to what it reads"
    assert deps_of(cache, "k") == {"early"}
    assert not LIVE


def test_a_recursion_depends_on_all_below(cache: TwoTierCache) -> None:
    @cached(key_prefix="fib", cache=cache)
    def fib(n: int) -> int:
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert fib(10) == 55
    assert deps_of(cache, fib.cache_key(10)) == {fib.cache_key(n) for n in range(10)}


def test_outside_of_a_computation_nothing_is_noted(cache: TwoTierCache) -> None:
    cache.reads("k")
    cache.get("k")
    assert not LIVE
    cache.get_or_compute("v", lambda: 1)
    assert deps_of(cache, "v") == set()


def test_two_caches_of_one_namespace_record_for_each_other(redis_url: str, namespace: str) -> None:
    """As two objects of a process may be: the log is one."""
    here, there = (TwoTierCache(None, RedisCache(url=redis_url, namespace=namespace)) for _ in range(2))
    here.get_or_compute("outer", lambda: there.get_or_compute("inner", lambda: 1, deps=("a",)))
    assert deps_of(here, "outer") == {"inner", "a"}
    there.invalidate("a")
    here.refresh()
    assert here.get("outer") is MISS
    here.close()
    there.close()


# -- more than can be recorded


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """The bound, made small."""
    for module in ("pipeline.cache.lineage", "pipeline.cache.flight.computation", "pipeline.cache.flight.filling"):
        monkeypatch.setattr(f"{module}.MOST_DEPS", 20)
    for module in ("pipeline.cache.flight.asking", "pipeline.cache.two_tier"):
        monkeypatch.setattr(f"{module}.MOST_DEPS", 20)
    return 20


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "value_not_kept" in record.getMessage()]


@pytest.mark.parametrize("hits", [False, True])
def test_a_value_of_as_many_deps_as_can_be_recorded_is_kept_and_of_one_more_is_not(
    cache: TwoTierCache, few: int, hits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is returned all the same, computed at each call, and told once; whether its inputs were in L1 or were misses."""
    keys = [f"in:{number}" for number in range(few + 1)]
    if hits:
        cache.set_many(dict.fromkeys(keys, 1))
    calls = []

    def total(count: int) -> int:
        calls.append(count)
        return sum(cache.get(key, 1) for key in keys[:count])

    for _ in range(2):
        assert cache.get_or_compute("most:1", lambda: total(few)) == few
    assert calls == [few]
    cache.invalidate(keys[few - 1])
    assert cache.peek("most:1") is MISS
    calls.clear()
    for _ in range(3):
        assert cache.get_or_compute("more:1", lambda: total(few + 1)) == few + 1
    assert calls == [few + 1] * 3
    assert cache.get_stats()["unkept"] == 3
    (told,) = warnings_of(caplog)
    assert "depends on more than 20 keys" in told
    with pytest.raises(UncacheableValueError, match="more than 20 keys"):
        cache.get_or_compute("more:2", lambda: total(few + 1), unfit="raise")


def test_what_is_computed_from_a_value_of_too_many_deps_is_not_kept_either(cache: TwoTierCache, few: int) -> None:
    """It depends on all of these, which nobody knows any more. So it is through any number of steps, in a thread or awaited,
    alone or with others, also where a failure was caught."""

    def wide() -> int:
        cache.reads(*(f"in:{number}" for number in range(few + 1)))
        return 1

    def failing() -> int:
        wide()
        raise ValueError

    def caught() -> int:
        with suppress(ValueError):
            cache.get_or_compute("failing", failing)
        return 1

    def deep(steps: int) -> int:
        return cache.get_or_compute(f"deep:{steps}", lambda: deep(steps - 1)) if steps else cache.get_or_compute("wide", wide)

    async def awaited() -> int:
        async def of_wide() -> int:
            return cache.get_or_compute("wide", wide)

        return await cache.aio.get_or_compute("awaited", of_wide)

    assert deep(3) == asyncio.run(awaited()) == cache.get_or_compute("caught", caught) == 1
    cache.get_or_compute_many(["many:1", "many:2"], lambda keys: dict.fromkeys(keys, cache.get_or_compute("wide", wide)))
    for key in ("wide", "deep:1", "deep:2", "deep:3", "awaited", "caught", "many:1", "many:2"):
        assert cache.lookup(key) is MISS, key
    assert cache.get_or_compute("beside", lambda: 2) == 2
    assert cache.lookup("beside") is not MISS


def test_a_computation_of_too_many_reads_takes_no_more_memory_with_each(cache: TwoTierCache, few: int) -> None:
    def endless() -> int:
        running = computing()
        assert running is not None
        for number in range(1_000):
            cache.reads(f"in:{number}")
        return len(running.read)

    assert cache.get_or_compute("endless", endless) == few + 1


def test_deps_by_hand_are_bounded_as_recorded_ones_are(cache: TwoTierCache, few: int) -> None:
    """Also those that come with a dep; a value that is filled by hand is refused."""
    many = tuple(f"in:{number}" for number in range(few))
    cache.get_or_compute("full", lambda: 1, deps=many)
    assert cache.lookup("full") is not MISS
    cache.get_or_compute("over", lambda: 1, deps=("full",))
    assert cache.lookup("over") is MISS
    with pytest.raises(UncacheableValueError, match="more than 20 keys"):
        cache.fill("filled", 1, deps=(*many, "one more"), as_of=cache.as_of())
    assert cache.lookup("filled") is MISS


@pytest.mark.parametrize("why", ["too large", "too many deps", "filled"])
def test_what_names_a_value_that_was_not_kept_depends_on_what_that_depends_on(
    why: str, redis_url: str, namespace: str, few: int
) -> None:
    """Before, such a value left nothing behind: what a caller had computed from it, naming it by hand, outlived its inputs."""
    with closing(TwoTierCache(None, RedisCache(url=redis_url, namespace=namespace), max_value_bytes=1_000)) as cache:
        cache.set("user:7", 1)

        def unkept() -> str:
            cache.get("user:7")
            cache.reads(*(f"in:{number}" for number in range(few + 1 if why == "too many deps" else 0)))
            return "x" * (2_000 if why == "too large" else 1)

        as_of = cache.as_of()
        if why == "filled":
            with pytest.raises(UncacheableValueError):
                cache.fill("unkept", "x" * 2_000, deps=("user:7",), as_of=as_of)
        else:
            cache.get_or_compute("unkept", unkept)
        cache.get_or_compute("report", lambda: 1, deps=("unkept",), as_of=as_of)
        cache.invalidate("user:7")
        assert cache.lookup("report") is MISS

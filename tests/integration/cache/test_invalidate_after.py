"""`invalidate_cache`: after the work, however the function tells that it is done."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import pytest

from pipeline.cache import MISS, RedisCache, TwoTierCache, UncacheableFunctionError, invalidate_cache

BOUND_S = 10.0


@pytest.fixture
def cache(redis_url: str, namespace: str) -> Iterator[TwoTierCache]:
    cache = TwoTierCache(None, RedisCache(url=redis_url, namespace=namespace, timeout_s=5.0))
    cache.set("k", "old")
    yield cache
    cache.clear()
    cache.close()


class Awaited:
    """One that can be awaited and is neither a coroutine nor a future."""

    def __init__(self, work: Awaitable[str]) -> None:
        self._work = work

    def __await__(self) -> Any:
        return self._work.__await__()


MAKERS: dict[str, Callable[[Any], Any]] = {
    "coroutine": lambda work: work,
    "task": asyncio.ensure_future,
    "awaitable": Awaited,
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
def test_what_is_awaited_is_done_before_the_invalidation(cache: TwoTierCache, make: Callable[[Any], Any]) -> None:
    """And the invalidation before the caller goes on."""

    async def scenario() -> None:
        go_on = asyncio.Event()

        async def work() -> str:
            await go_on.wait()
            return "saved"

        @invalidate_cache("k", cache=cache)
        def save() -> Any:
            return make(work())

        saving = asyncio.ensure_future(save())
        await asyncio.sleep(0)
        assert cache.get("k") == "old"
        go_on.set()
        assert await saving == "saved"
        assert cache.get("k") is MISS

    asyncio.run(scenario())


def test_a_task_that_nobody_awaits_is_followed_by_its_invalidation(cache: TwoTierCache) -> None:
    """The function began it, and it goes on by itself."""

    async def scenario() -> None:
        @invalidate_cache("k", cache=cache)
        def save() -> Any:
            return asyncio.ensure_future(asyncio.sleep(0, "saved"))

        saving = save()
        await asyncio.wait([saving])
        assert cache.get("k") is MISS

    asyncio.run(scenario())


def test_a_future_that_is_done_already_is_handed_on(cache: TwoTierCache) -> None:
    """Its work is done when the function returns."""

    async def scenario() -> None:
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        done.set_result("saved")
        assert invalidate_cache("k", cache=cache)(lambda: done)() is done
        assert cache.get("k") is MISS

    asyncio.run(scenario())


def test_work_that_fails_or_is_cancelled_invalidates_nothing(cache: TwoTierCache) -> None:
    """Nothing has changed; and the error is the caller's, as it is."""

    async def fail() -> str:
        raise LookupError("not saved")

    async def scenario(make: Callable[[Any], Any]) -> None:
        with pytest.raises(LookupError, match="not saved"):
            await invalidate_cache("k", cache=cache)(lambda: make(fail()))()
        saving = asyncio.ensure_future(invalidate_cache("k", cache=cache)(lambda: make(asyncio.sleep(BOUND_S)))())
        await asyncio.sleep(0)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving

    for make in MAKERS.values():
        asyncio.run(scenario(make))
    assert cache.get("k") == "old"


def test_a_future_of_a_pool_ends_after_the_invalidation(cache: TwoTierCache) -> None:
    """A caller that has its result finds nothing old, in whatever thread and by whatever way it waits."""
    with ThreadPoolExecutor(1) as pool:
        for way in (Future.result, lambda future: wait([future])):
            go_on: Future[str] = Future()
            try:
                saving = invalidate_cache("k", cache=cache)(functools.partial(pool.submit, go_on.result))()
                assert isinstance(saving, Future)
                with pytest.raises(FutureTimeoutError):
                    saving.result(0.01)
                assert (saving.done(), cache.get("k")) == (False, "old")
            finally:
                go_on.set_result("saved")  # else the pool would wait for ever
            way(saving)
            assert cache.get("k") is MISS
            assert saving.result() == "saved"
            cache.set("k", "old")


def test_a_future_of_a_pool_that_fails_or_is_cancelled_invalidates_nothing(cache: TwoTierCache) -> None:
    """Cancelling the future that was handed on cancels the work itself."""
    failed: Future[str] = Future()
    failing = invalidate_cache("k", cache=cache)(lambda: failed)()
    failed.set_exception(LookupError("not saved"))
    assert isinstance(failing.exception(BOUND_S), LookupError)
    begun: Future[str] = Future()
    saving = invalidate_cache("k", cache=cache)(lambda: begun)()
    assert saving.cancel()
    assert begun.cancelled()
    assert saving.cancelled()
    assert wait([saving], BOUND_S).done == {saving}
    assert cache.get("k") == "old"


class Result:
    """As Celery's and multiprocessing's."""

    def ready(self) -> bool:
        return False

    def get(self) -> str:
        return "saved"


class Deferred:
    """As Twisted's."""

    def addCallback(self, then: object) -> None: ...  # noqa: N802 - its own name


def generator() -> Iterator[int]:
    yield 1


async def asynchronous_generator() -> AsyncIterator[int]:
    yield 1


UNFOLLOWED: dict[str, Callable[[], Any]] = {
    "generator": generator,
    "asynchronous generator": asynchronous_generator,
    "map": lambda: map(str, [1]),
    "result of a queue": Result,
    "deferred": Deferred,
}


@pytest.mark.parametrize("make", UNFOLLOWED.values(), ids=UNFOLLOWED.keys())
def test_work_whose_end_cannot_be_told_is_refused_clearly(cache: TwoTierCache, make: Callable[[], Any]) -> None:
    """Rather than to invalidate before it is done."""

    @invalidate_cache("k", cache=cache)
    def save() -> Any:
        return make()

    with pytest.raises(UncacheableFunctionError, match=r"save: returned an? .*not done"):
        save()
    assert cache.get("k") == "old"


class AsyncCall:
    async def __call__(self) -> str:
        return "saved"

    async def method(self) -> str:
        return "saved"


@pytest.mark.parametrize(
    "function",
    [functools.partial(AsyncCall.method, AsyncCall()), AsyncCall(), AsyncCall().method],
    ids=["partial", "object", "method"],
)
def test_what_is_awaited_is_followed_by_an_invalidation(cache: TwoTierCache, function: Any) -> None:
    """However it is wrapped."""
    cache.get_or_compute("k", lambda: "old")
    asyncio.run(invalidate_cache("k", cache=cache)(function)())
    assert cache.get("k") is MISS


@pytest.mark.parametrize("function", [functools.partial(generator), 5], ids=["partial generator", "no function"])
def test_what_has_done_nothing_when_it_returns_is_refused_where_it_is_written(function: Any) -> None:
    """However it is wrapped."""
    with pytest.raises(UncacheableFunctionError):
        invalidate_cache("k")(function)


def test_what_is_done_when_it_is_returned_is_handed_on(cache: TwoTierCache) -> None:
    """Values, rows to iterate over, functions of a class: the invalidation comes at once."""

    class Store:
        @invalidate_cache("k", cache=cache)
        @staticmethod
        def static(value: object) -> object:
            return value

        @invalidate_cache("k", cache=cache)
        @classmethod
        def of_class(cls, value: object) -> object:
            return value

        @invalidate_cache("k", cache=cache)
        def of_object(self, value: object) -> object:
            return value

    store = Store()
    for call in (Store.static, store.static, Store.of_class, store.of_class, store.of_object):
        for value in (None, 1, [1], {"a": 1}, iter([1]), store):
            cache.set("k", "old")
            assert call(value) is value
            assert cache.get("k") is MISS

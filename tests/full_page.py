"""What fills every table of Flower's page of the fleet: long names, names that look like markup, names with no place to break."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import redis
from envelopes import envelope, whole

from pipeline.cache import RedisCache, TwoTierCache
from pipeline.cache.server.connection import RedisConnection
from pipeline.courier import Courier
from pipeline.figures import FigureKeys, Reporter
from pipeline.hot import Asked, HotKeys, HotSet
from pipeline.keys import response_deps, response_key
from pipeline.models import PersonaRequest
from workers.queue.dead_letters.box import keep as bury
from workers.queue.dead_letters.letter import written
from workers.queue.failures.box import keep

COUNTS = {"l1": 1_234_567, "l2": 300, "joined": 40, "stale": 5, "no": 155, "failed": 7}
EVIL = '<img src=x onerror="document.title=1">'
LONG_HOST = "persona-worker-7c9d6b5f4d-x2x8q.persona-production.svc.cluster.example.internal"
LONG_PATTERN = "shop:catalogue:electronics:televisions:organic-light-emitting-diode:*:price:in:euro"
WHY = "PermanentModelError: " + "the model endpoint http://a-model.example.internal:8080/v1 answered HTTP 401, " * 3
RESONANCES = ("frustrated-burst-seek_advice", "calm-flowing-planning", "curious-medium-learning")


def keys_asked(count: int) -> list[str]:
    """Of answers that nobody gave."""
    requests = [PersonaRequest.create(f"What about {number}?", RESONANCES[number % 3]) for number in range(count)]
    return [response_key("lua", request, "a model") for request in requests]


@contextmanager
def filled(broker_url: str, cache_url: str) -> Iterator[Reporter]:
    """Both servers, so that no table of a page is empty."""
    connection = RedisConnection(cache_url, timeout_s=5)
    reporter = Reporter(
        Courier(lambda: RedisConnection(cache_url, timeout_s=5)),
        FigureKeys("persona"),
        node=f"worker1@{LONG_HOST}",
        role="worker",
        l1_entries=lambda: 123_456,
    )
    for source, count in COUNTS.items():
        for _ in range(min(count, 400)):
            reporter.tally.record(source, 1.5)
    made = (f"persona:{EVIL}", LONG_PATTERN, "x" * 110)
    reporter.invalidated("e:1", time.time(), made, durable=True)
    reporter.invalidated("e:2", time.time(), ("routing:calm-flowing-planning",), durable=False)
    reporter.applied("e:1", time.time() - 0.004)
    with closing(TwoTierCache(l2=RedisCache(url=cache_url, namespace="persona"))) as cache:
        for number, key in enumerate(keys_asked(12)):
            request = PersonaRequest.create(f"What about {number}?", RESONANCES[number % 3])
            HotSet(connection, HotKeys("persona"), keeps_requests=False).count({key: Asked(100 - number, request)})
            if number:  # of the first one there is no entry
                deps = response_deps("lua", request)
                cache.get_or_compute(key, lambda: {"persona": "Lua", "content": "words"}, ttl=600, deps=deps)
        other = Asked(1000, PersonaRequest.create("What?", RESONANCES[0]))
        HotSet(connection, HotKeys("persona"), keeps_requests=False).count({"another:kind:of:key:" + "y" * 80: other})
    with closing(redis.Redis.from_url(broker_url)) as queue:
        for name in ("one", "two"):
            item = envelope(whole(PersonaRequest.create("Why?", RESONANCES[1]).to_wire()), id=name)
            keep(queue, name, written("persona", item, WHY, whole=True, task="persona.process", task_id=name))
        bury(queue, written("persona", b"{", f"is not a message {EVIL}", whole=True))
        long = "a_shop.warehouse.inventory.tasks.recount_everything_that_was_counted_before"
        bury(queue, written("persona", b"{}", "of a task that no worker knows", whole=True, task=long))
    assert reporter.courier.deliver()
    try:
        yield reporter
    finally:
        reporter.courier.close()
        connection.close()

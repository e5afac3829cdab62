"""Somebody else's Celery app on RabbitMQ, with the cache's decorators in its own tasks: `celery -A reliability.soak.shop_app`.

What it sells has one price, a number at a server that is never broken: what was served can be held against it.
"""

from __future__ import annotations

import os
import time
from typing import Final

import redis
from celery import Celery

from persona_worker import cached, install

QUEUE: Final = "shop"
PRICE: Final = "price"
BOUND_S: Final = 1.0
READS: Final = 3
READ_EVERY_S: Final = 0.02

app = Celery("shop", broker=os.environ["SHOP_BROKER_URL"], backend=os.environ["SHOP_RESULT_URL"], set_as_current=False)
app.conf.update(
    task_default_queue=QUEUE,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_connection_timeout=2,
    broker_heartbeat=10,
    # A message that its broker has not kept is told to its sender, and a broker that stands still, too.
    broker_transport_options={"confirm_publish": True, "confirm_timeout": 5, "read_timeout": 5, "write_timeout": 5},
    result_expires=600,
)
installed = install(app, cache_url=os.environ["SHOP_CACHE_URL"], namespace="shop", staleness_bound_s=BOUND_S)
source = redis.Redis.from_url(os.environ["SHOP_RESULT_URL"], socket_timeout=5)


@cached(ttl=600, key_prefix="price")
def price(name: str) -> int:
    return int(source.get(PRICE) or 0)


@cached(ttl=600, key_prefix="bill")
def bill(name: str, count: int) -> int:
    """Made from what is cached: it ends with that."""
    return price(name) * count


@app.task(name="shop.sell")
def sell(name: str, count: int) -> list[tuple[int, float]]:
    """The prices that it saw, each with the moment before it was asked for."""
    seen = []
    for _ in range(READS):
        asked_s = time.monotonic()
        seen.append((bill(name, count) // count, asked_s))
        time.sleep(READ_EVERY_S)
    return seen

"""The shop's own program: it sells by tasks, and changes the price. `python -m reliability.soak.shop_program SECONDS`.

It works until its standard input ends, waits then for what it has not yet been told, and prints its figures as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from typing import Any, Final
from uuid import uuid4

import redis
from celery.exceptions import OperationalError
from celery.result import denied_join_result

from reliability.checkers import Served, Version, stale
from reliability.soak.shop_app import BOUND_S, PRICE, installed, price, sell, source

SELL_EVERY_S: Final = 0.2
CHANGE_EVERY_S: Final = 0.8
LOOK_S: Final = 0.5
KEEP: Final = 500
"""Versions that a read may be held against; more would cost more time than they tell."""
META: Final = "celery-task-meta-"


class Shop:
    """`asked`: the tasks that were accepted, by their ids, and when."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.asked: dict[str, float] = {}
        self.sent = self.answered = self.reads = self.stale = self.failed = 0
        self.changes = self.announced = 0
        self.longest_s = 0.0
        self.versions: list[Version] = []
        self.told: Counter[str] = Counter()

    def change(self) -> None:
        """The price rises before it is invalidated."""
        number = 0
        while not self.ended.wait(CHANGE_EVERY_S):
            number += 1
            source.set(PRICE, number)
            done = price.invalidate_all() if number % 5 == 0 else price.invalidate("tea")
            self.changes += 1
            self.announced += done.announced
            self.versions = [*self.versions[-KEEP:], Version(number, time.monotonic() if done.durable else 0.0)]

    def sell(self) -> None:
        while not self.ended.wait(SELL_EVERY_S):
            task_id, now_s = str(uuid4()), time.monotonic()
            try:
                with denied_join_result():  # else its backend listens for each outcome, and for ever: it is looked for here
                    sell.apply_async(("tea", 1 + self.sent % 3), task_id=task_id, retry=False)
            except (OperationalError, OSError) as error:  # its caller knows; whether it arrived it does not
                self.told[type(error).__name__] += 1
                continue
            self.sent += 1
            self.asked[task_id] = now_s

    def look(self) -> None:
        ids = list(self.asked)
        found: list[Any] = source.mget([f"{META}{task_id}" for task_id in ids]) if ids else []
        for task_id, payload in zip(ids, found, strict=True):
            if payload is None:
                continue
            outcome = json.loads(payload)
            if outcome["status"] not in ("SUCCESS", "FAILURE"):
                continue
            self.longest_s = max(self.longest_s, time.monotonic() - self.asked.pop(task_id))
            self.answered += 1
            if outcome["status"] == "FAILURE":
                self.failed += 1
                self.told[str(outcome["result"]["exc_type"])] += 1
                continue
            served = [Served(number, asked_s) for number, asked_s in outcome["result"]]
            self.reads += len(served)
            self.stale += len(stale(served, self.versions, BOUND_S))

    def figures(self) -> dict[str, Any]:
        figures = {name: value for name, value in vars(self).items() if isinstance(value, int | float)}
        return {**figures, "longest_s": round(self.longest_s, 1), "lost": len(self.asked), "told": dict(self.told)}


def main(patience_s: float) -> None:
    shop = Shop()
    source.set(PRICE, 0)
    threads = [threading.Thread(target=work, name=work.__name__, daemon=True) for work in (shop.change, shop.sell)]
    for thread in threads:
        thread.start()
    reader = threading.Thread(target=sys.stdin.read, name="until-the-end", daemon=True)
    reader.start()
    ends_s = float("inf")
    while time.monotonic() < ends_s and (reader.is_alive() or shop.asked or any(thread.is_alive() for thread in threads)):
        if not reader.is_alive() and not shop.ended.is_set():
            shop.ended.set()
            ends_s = time.monotonic() + patience_s
        time.sleep(LOOK_S)
        try:
            shop.look()
        except redis.RedisError as error:
            shop.told[type(error).__name__] += 1
    sys.stdout.write(json.dumps(shop.figures()) + "\n")
    installed.close()


if __name__ == "__main__":
    main(float(sys.argv[1]))

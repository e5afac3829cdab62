"""Flower stands still, and those without a login ask it."""

from __future__ import annotations

import http.client
import signal
import time
from typing import Final

from monitor import FlowerServer
from polling import until

from reliability.bench import Bench
from reliability.result import Result, Row, Say

FROZEN_S: Final = (0.5, 3.0)
MOST_BACK_S: Final = 10.0
MOST_GROWN_MB: Final = 40.0
"""Of the broker: what it keeps for a listener that does not read is bounded."""
SHUT: Final = ("/", "/fleet", "/workers", "/tasks", "/broker", "/metrics", "/api/workers", "/api/tasks", "/api/queues/length")


def frozen(trials: int, say: Say) -> Result:
    """Under load. Tasks do not wait for it, the broker keeps little for it, its figures are there again, and no page but the
    health check is anybody's, at any moment of it."""
    back_s: list[float] = []
    opened: set[str] = set()

    def freeze(bench: Bench) -> None:
        assert flower.process is not None
        flower.process.send_signal(signal.SIGSTOP)
        time.sleep(bench.chance.uniform(*FROZEN_S))
        flower.process.send_signal(signal.SIGCONT)
        began_s = time.monotonic()
        until(lambda: flower.ask("/metrics").status == http.client.OK, "its figures are there", bound_s=30)
        back_s.append(time.monotonic() - began_s)
        path = bench.chance.choice(SHUT)
        if flower.ask(path, login="").status not in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            opened.add(path)

    with Bench(say) as bench, FlowerServer(broker_url=bench.fleet.broker.url, cache_url=bench.fleet.cache.url) as flower:
        before_mb = _used_mb(bench)
        result = bench.befall("flower frozen", trials, freeze)
        grown_mb = _used_mb(bench) - before_mb
        opened |= {path for path in SHUT if flower.ask(path, login="").status < http.client.BAD_REQUEST}
    problems = list(result.problems)
    problems += [f"without a login: {', '.join(sorted(opened))}"] if opened else []
    problems += [f"its figures were there after {max(back_s):.1f} s"] if max(back_s) > MOST_BACK_S else []
    problems += [f"the broker has grown by {grown_mb:.0f} MB"] if grown_mb > MOST_GROWN_MB else []
    more = {**result.more, "metrics_back_max_s": max(back_s), "broker_grown_mb": grown_mb}
    return Result(**{**vars(result), "more": more, "problems": tuple(problems)})


def _used_mb(bench: Bench) -> float:
    return float(bench.fleet.queue.info("memory")["used_memory"]) / 2**20


ROWS: Final = (Row("flower-frozen", (30,), "Flower stands still under load, and is asked without a login", frozen),)

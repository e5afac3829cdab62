"""A second broker: somebody else's app on RabbitMQ beside the fleet, with nodes, a program and faults of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Final, Self

from fleet import ROOT, WorkerNode
from rabbit import RabbitServer
from servers import ValkeyServer

from benchmarks.kit.nodes import own_environment
from reliability.bench import Bench
from reliability.soak.sampling import descriptors, rss_mb
from reliability.wire import Wire
from workers.stack.servers.valkey_server import HOST

ANSWERED_S: Final = 90.0
"""Then a task without an outcome is lost."""
ENDS_S: Final = ANSWERED_S + 30
CONCURRENCY: Final = 2
FROZEN_S: Final = (0.5, 8.0)
AWAY_S: Final = (0.0, 2.0)


class Shop:
    """`with Shop(bench) as shop:` its node and its program work meanwhile, on a RabbitMQ of their own behind a wire, and on the
    fleet's cache. Used by one thread, but for `values`."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._resources = ExitStack()
        self.server = RabbitServer()

    def __enter__(self) -> Self:
        try:
            self._resources.enter_context(self.server)
            results = self._resources.enter_context(ValkeyServer())
            self._wire = self._resources.enter_context(Wire(self.server.port))
            broker = f"amqp://guest:guest@{HOST}:{self._wire.port}//"
            cache = self._bench.wires["cache"].url if "cache" in self._bench.wires else self._bench.fleet.cache.url
            environ = {"SHOP_BROKER_URL": broker, "SHOP_RESULT_URL": results.url, "SHOP_CACHE_URL": cache}
            self._node = WorkerNode(
                broker_url=broker,
                concurrency=CONCURRENCY,
                name="shop",
                app="reliability.soak.shop_app",
                environ=environ,
            )
            self._resources.callback(self._node.close)
            self._node.start()
            self._errors = self._resources.enter_context(tempfile.TemporaryFile("w+"))
            self._program = subprocess.Popen(
                [sys.executable, "-m", "reliability.soak.shop_program", str(ANSWERED_S)],
                env={**own_environment(), "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", **environ},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                text=True,
            )
            self._resources.callback(self._end_program)
        except BaseException:
            self._resources.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._resources.__exit__(kind, error, trace)

    def _end_program(self) -> None:
        self._program.kill()
        for pipe in (self._program.stdin, self._program.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        self._program.wait()

    def ended(self) -> Mapping[str, Any]:
        """Its program's figures, once all that it sold is answered, or lost. It sells nothing more."""
        try:
            told, _ = self._program.communicate("", timeout=ENDS_S)
            figures: dict[str, Any] = json.loads(told)
        except (subprocess.TimeoutExpired, ValueError):
            self._errors.seek(0)
            return {"sent": 0, "problem": f"the shop's program told nothing: {self._errors.read()[-2000:]}"}
        if not self._node.running:
            figures["problem"] = f"the shop's node ended with {self._node.exit_code}: {self._node.log()[-2000:]}"
        return figures

    def values(self) -> dict[str, float]:
        """As `sampling.sample` has them."""
        found: dict[str, float] = {"connections RabbitMQ": float(len(self._wire._connections))}
        with suppress(OSError):
            found |= {"rss_mb shop": rss_mb(self._node.pid), "descriptors shop": descriptors(self._node.pid)}
            found |= {f"rss_mb shop child {pid}": rss_mb(pid) for pid in self._node.pids}
            found["rss_mb shop program"] = rss_mb(self._program.pid)
            found["descriptors shop program"] = descriptors(self._program.pid)
        return found

    # -- what befalls it

    def faults(self) -> dict[str, Callable[[Bench], None]]:
        return {
            "RabbitMQ frozen": self._freeze,
            "RabbitMQ's connections closed": self._close,
            "RabbitMQ killed": self._kill,
        }

    def _freeze(self, bench: Bench) -> None:
        self.server.freeze()
        time.sleep(bench.chance.uniform(*FROZEN_S))
        self.server.thaw()

    def _close(self, bench: Bench) -> None:
        for _ in range(bench.chance.randint(1, 5)):
            self._wire.reset()
            time.sleep(0.3)

    def _kill(self, bench: Bench) -> None:
        self.server.kill()
        time.sleep(bench.chance.uniform(*AWAY_S))
        self.server.start()

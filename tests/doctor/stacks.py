"""A whole stack for the doctor: servers as they should be set, nodes, a beat."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from fleet import ROOT, WorkerNode, persona_environ
from front import TlsFront
from polling import until
from servers import ValkeyServer

from benchmarks.kit.endpoint import ScriptedEndpoint
from benchmarks.kit.nodes import own_environment
from pipeline.settings import load_settings
from workers.doctor.finding import Finding
from workers.doctor.judging import judge
from workers.doctor.looks.beat import LOCK
from workers.doctor.observing import observe
from workers.stack.processes import ChildProcess

TIMEOUT_S = 15.0


class Stack:
    """Broker and cache as `persona up` sets them, a model's endpoint, `nodes` nodes, and unless `beat` is False a beat.

    `environ` is what all of them run under, the doctor included. `tls`: both servers behind TLS.
    """

    def __init__(
        self,
        *,
        nodes: int = 1,
        pool: Any = "prefork",
        concurrency: int = 1,
        beat: bool = True,
        password: str | None = None,
        unix_socket: bool = False,
        tls: bool = False,
        environ: Mapping[str, str] | None = None,
        delay_ms: float = 0.0,
    ) -> None:
        self.resources = ExitStack()
        self.broker = ValkeyServer(keep_on_disk=True, maxmemory="256mb", password=password)
        self.cache = ValkeyServer(maxmemory="64mb", maxmemory_policy="allkeys-lfu", password=password, unix_socket=unix_socket)
        self.endpoint = ScriptedEndpoint(delay_ms=delay_ms)
        self.nodes: list[WorkerNode] = []
        self._given = dict(environ or {})
        self._planned, self._pool, self._concurrency, self._beat, self._tls = nodes, pool, concurrency, beat, tls

    def start(self) -> Self:
        enter = self.resources.enter_context
        try:
            self.resources.callback(self.endpoint.close)
            enter(self.broker)
            enter(self.cache)
            broker_url, cache_url = self.broker.url, self.cache.url
            if self._tls:
                broker_url = enter(TlsFront(self.broker.port)).url
                cache_url = enter(TlsFront(self.cache.port)).url
            self.environ = persona_environ(broker_url=broker_url, cache_url=cache_url, llm_url=self.endpoint.url) | self._given
            self.queue = enter(closing(redis.Redis.from_url(self.broker.url)))
            self.entries = enter(closing(redis.Redis.from_url(self.cache.url)))
            for _ in range(self._planned):
                self.add_node(wait=False)
            if self._beat:
                enter(self.beat())
            for node in self.nodes:
                node.wait_ready()
            if self._beat:
                until(lambda: self.queue.exists(LOCK), "beat leads")
        except BaseException:
            self.close()
            raise
        return self

    def add_node(self, *, wait: bool = True, environ: Mapping[str, str] | None = None, **options: Any) -> WorkerNode:
        given = {"name": f"node{len(self.nodes) + 1}", "pool": self._pool, "concurrency": self._concurrency, **options}
        node = WorkerNode(broker_url=self.environ["PERSONA_BROKER_URL"], environ={**self.environ, **(environ or {})}, **given)
        self.resources.callback(node.close)
        self.nodes.append(node)
        node.start(wait=wait)
        return node

    @contextmanager
    def another_node(self, **options: Any) -> Iterator[WorkerNode]:
        """For the block; it leaves in order, so that nobody misses it afterwards."""
        node = self.add_node(**options)
        try:
            yield node
        finally:
            node.stop()
            self.nodes.remove(node)

    @contextmanager
    def beat(self, *arguments: str) -> Iterator[ChildProcess]:
        directory = Path(tempfile.mkdtemp(prefix="beat-"))
        command = [sys.executable, "-m", "celery", "-A", "workers", "beat", "--pidfile=", *arguments]
        process = ChildProcess(command, log=directory / "log", environ={**own_environment(), **self.environ}, directory=ROOT)
        try:
            yield process
        finally:
            process.kill()
            shutil.rmtree(directory, ignore_errors=True)

    def findings(self, *, flower: str = "", timeout_s: float = TIMEOUT_S, **environ: str) -> tuple[Finding, ...]:
        """What the doctor says under the stack's settings and these."""
        return judge(observe(load_settings({**self.environ, **environ}), timeout_s, flower))

    def settled(self) -> None:
        """Wait until nothing is found: what was planted before may take a moment to go."""
        ends_s = time.monotonic() + 60
        while found := self.findings():
            assert time.monotonic() < ends_s, found

    def close(self) -> None:
        self.resources.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            sys.stdout.write("\n".join(f"---- {node.name}\n{node.log()}" for node in self.nodes))
        self.close()

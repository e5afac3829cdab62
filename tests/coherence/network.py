"""A network between some processes and the server: slow, and at times broken off. One thread for all connections."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, TypeVar

from workers.stack.servers.valkey_server import HOST

CALL_TIMEOUT_S: Final = 10.0

T = TypeVar("T")


class Network:
    """Ways to a server of this machine, each with a latency of its own. To be called from one thread, which is not its own."""

    def __init__(self, port: int, seed: int) -> None:
        """`port`: where the server listens, or the one that has taken its place there."""
        self._port = port
        self._rng = random.Random(seed)
        self._lines: set[_Line] = set()
        self._servers: list[asyncio.Server] = []
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="network", daemon=True)

    def way(self, latency_s: float) -> int:
        """A port that leads to the server. Each connection gets a share of that latency, one way, and each piece a share of its
        connection's; nothing overtakes."""

        async def listen() -> int:
            server = await self._loop.create_server(lambda: _Line(self, latency_s), HOST, 0)
            self._servers.append(server)
            port: int = server.sockets[0].getsockname()[1]
            return port

        return asyncio.run_coroutine_threadsafe(listen(), self._loop).result(CALL_TIMEOUT_S)

    def break_off(self, share: float) -> None:
        """Break off some of the connections, with all that is under way on them."""

        def act() -> None:
            for line in [line for line in self._lines if self._rng.random() < share]:
                line.break_off()

        self._do(act)

    def open(self, whether: bool) -> None:
        """Closed: every connection is broken off, and a new one as soon as it is made."""

        def act() -> None:
            self._closed = not whether
            if self._closed:
                for line in list(self._lines):
                    line.break_off()

        self._do(act)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        async def end() -> None:
            self._closed = True  # a connection that is being accepted now is broken off as it is made
            for server in self._servers:
                server.close()
            for line in list(self._lines):
                line.break_off()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.gather(*others, return_exceptions=True)
            await asyncio.sleep(0)  # what was broken off is told in the next turn

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(CALL_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_S)
        self._loop.close()

    def _do(self, act: Callable[[], T]) -> T:
        async def run() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(CALL_TIMEOUT_S)


class _Direction:
    """Bytes that go in come out later, in the same order."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rng: random.Random, latency_s: float) -> None:
        self.out: asyncio.Transport | None = None
        self._loop = loop
        self._rng = rng
        self._latency_s = latency_s
        self._free_s = 0.0
        self._under_way: deque[bytes] = deque()

    def put(self, piece: bytes) -> None:
        self._free_s = max(self._free_s, self._loop.time() + self._latency_s * self._rng.random())
        self._under_way.append(piece)
        self._loop.call_at(self._free_s, self._deliver)

    def _deliver(self) -> None:
        # Timers that are due at the same moment come in any order: each delivers the next message.
        piece = self._under_way.popleft()
        if self.out is not None and not self.out.is_closing():
            self.out.write(piece)


class _Line(asyncio.Protocol):
    """One connection of a client, with the one behind it to the server."""

    def __init__(self, network: Network, latency_s: float) -> None:
        self._network = network
        own_s = latency_s * network._rng.uniform(0.3, 1.0)
        self._there = _Direction(network._loop, network._rng, own_s)
        self._back = _Direction(network._loop, network._rng, own_s)
        self._connecting: asyncio.Task[None] | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._back.out = transport
        if self._network._closed:
            transport.abort()
            return
        self._network._lines.add(self)
        self._connecting = self._network._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            far, _ = await self._network._loop.create_connection(lambda: _FarEnd(self), HOST, self._network._port)
        except OSError:
            self.break_off()
            return
        self._there.out = far
        early, self._early = self._early, []
        for piece in early:
            self._there.put(piece)

    def data_received(self, piece: bytes) -> None:
        if self._there.out is None:
            self._early.append(piece)
        else:
            self._there.put(piece)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        self.break_off()

    def came_back(self, piece: bytes) -> None:
        self._back.put(piece)

    def break_off(self) -> None:
        self._network._lines.discard(self)
        if self._connecting is not None and self._there.out is None:
            self._connecting.cancel()
        for direction in (self._there, self._back):
            if direction.out is not None:
                direction.out.abort()


class _FarEnd(asyncio.Protocol):
    def __init__(self, line: _Line) -> None:
        self._line = line

    def data_received(self, piece: bytes) -> None:
        self._line.came_back(piece)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        self._line.break_off()

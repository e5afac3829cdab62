"""A network between nodes and a server, with what networks do on a switch."""

from __future__ import annotations

import asyncio
from typing import Final, Literal

from front import Front

from workers.stack.servers.valkey_server import HOST

Mode = Literal["pass", "hold up", "hold down", "half-open", "slice", "slow", "cut a reply"]

SLOW_S: Final = 0.3
LOOK_S: Final = 0.02
SLICES: Final = 256
"""A piece is sent byte by byte, or in so many parts if it is longer."""
GONE_S: Final = 30.0
"""How long the other end of a dead connection stays when one end has left: until a keep-alive finds nobody."""


class Wire(Front):
    """`mode` may be set from any thread. *Hold*: what goes up, or comes down, waits until the mode is another one, as what is
    sent again. *Half-open*: connections that carry anything meanwhile are dead for good, and neither end is told, but by its own
    keep-alive `gone_s` after the other end has left. *Slice*: byte by byte. *Slow*: each reply is so much later. *Cut a reply*:
    half of the next one comes, then the connection is reset."""

    def __init__(self, target_port: int, *, gone_s: float = GONE_S) -> None:
        super().__init__(target_port)
        self.mode: Mode = "pass"
        self.gone_s = gone_s
        self.dead = 0
        """Connections that have died."""

    def reset(self) -> None:
        """Break off every connection, with all that is under way."""

        def act() -> None:
            for writers in self._connections.values():
                for writer in writers:
                    writer.transport.abort()

        self._loop.call_soon_threadsafe(act)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(HOST, self.target_port)
        except OSError:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer, there_writer
        line = _Line(self, writer, there_writer)
        try:
            await asyncio.gather(line.carry(reader, there_writer, up=True), line.carry(there_reader, writer, up=False))
        finally:
            del self._connections[task]


class _Line:
    """One connection."""

    def __init__(self, wire: Wire, *ends: asyncio.StreamWriter) -> None:
        self._wire, self._ends = wire, ends
        self._dead = False

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        try:
            while piece := await reader.read(65_536):
                if self._died():
                    continue
                if not await self._pass(piece, writer, up=up):
                    return
        except OSError:
            pass  # either end may be gone at any moment
        finally:
            if self._dead and not any(end.is_closing() for end in self._ends):
                asyncio.get_running_loop().call_later(self._wire.gone_s, writer.transport.abort)
            else:
                writer.close()

    def _died(self) -> bool:
        if self._wire.mode == "half-open" and not self._dead:
            self._dead = True
            self._wire.dead += 1
        return self._dead

    async def _pass(self, piece: bytes, writer: asyncio.StreamWriter, *, up: bool) -> bool:
        """Whether the connection goes on."""
        mode = self._wire.mode
        while self._wire.mode == ("hold up" if up else "hold down"):
            await asyncio.sleep(LOOK_S)
        if mode == "slow" and not up:
            await asyncio.sleep(SLOW_S)
        if mode == "cut a reply" and not up:
            writer.write(piece[: len(piece) // 2])
            await writer.drain()
            for end in self._ends:
                end.transport.abort()
            return False
        step = max(1, len(piece) // SLICES) if mode == "slice" else len(piece)
        for start in range(0, len(piece), step):
            writer.write(piece[start : start + step])
            await writer.drain()
            if mode == "slice":
                await asyncio.sleep(0)
        return True

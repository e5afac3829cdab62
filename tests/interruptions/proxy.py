"""A network of some milliseconds: `python -m interruptions.proxy TARGET_PORT DELAY_S`. Prints the port it listens on.

Replies are held back, each for so long. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

from workers.stack.servers.valkey_server import HOST


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65_536):
            if delay_s:
                await asyncio.sleep(delay_s)
            writer.write(piece)
            await writer.drain()
    writer.close()


async def _main(target_port: int, delay_s: float) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(HOST, target_port)
        await asyncio.gather(_pump(reader, there_writer, 0), _pump(there_reader, writer, delay_s))

    async with await asyncio.start_server(serve, HOST, 0) as server:
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), float(sys.argv[2])))

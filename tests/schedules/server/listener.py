"""The server in memory behind a real port, so that what runs over a real server runs over it, too."""

from __future__ import annotations

import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from schedules.server.resp import commands, encoded
from schedules.server.store import Store

_LOCK = threading.Lock()


@contextmanager
def listening() -> Iterator[str]:
    """The URL of such a server, on loopback, while the block lasts."""
    store = Store(time.time, "0123456789abcdef" * 2)

    class Session(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            rest = b""
            while received := self.request.recv(65536):
                words, rest = commands(rest + received)
                with _LOCK:
                    replies = [encoded(store.execute(each)) for each in words]
                self.request.sendall(b"".join(replies))

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Session) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"redis://127.0.0.1:{server.server_address[1]}/0"
        finally:
            server.shutdown()
            thread.join()

"""The process by which a node's spans go to the collector.

It is the node's, and outlives its children and its main process, however they end: what one of them has put into the socket is
sent. It ends when no process is left that could put in more. Forked from the main process, whose memory it shares: an interpreter
of its own would take 50 MB.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from typing import Final, NoReturn

from pipeline.settings import Settings
from pipeline.tracing.relaying import Waiting, send_all
from pipeline.tracing.sending import Collector, Sender
from pipeline.tracing.spans import Unit
from workers.node.guard.watching import is_readable
from workers.node.logs import JsonFormatter

MOST_PART_BYTES: Final = 1 << 18
NAP_S: Final = 0.01
"""Between looks at the socket: to wake this process for each part costs its sender more than to write it. The socket holds what
comes meanwhile: a hundred parts at least, also of five hundred hits each where its buffer is as large as it asks for."""
NOTED: Final = b"\0"
"""Before what the door has noted. No part of spans begins so: it would be a field without a number."""
CLOSE_S: Final = 5.0
"""How long it tries a collector that is away once the node has ended."""

logger: Final = logging.getLogger(__name__)


class Exporter:
    """The main process's hold on it. Made before the pool forks; `put` is for the children, too, and neither raises nor waits."""

    def __init__(self, settings: Settings, collector: Collector, head: bytes, scope: bytes) -> None:
        from pipeline.tracing.stencil import written

        self._encode = written
        self._json = settings.log == "json"
        self._collector, self._head, self._scope = collector, head, scope
        # In packets: each is one unit, from whichever process, and one that is killed leaves none half written.
        self._sink, self._source = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sink.setblocking(False)
        self._sink.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self._pid = 0
        self.dropped = 0
        """How many units of this process found no room in the socket."""

    def put(self, unit: Unit) -> None:
        self._put(self._encode(unit))

    def hand_on(self, noted: bytes) -> None:
        """What the door has noted: spans are made of it on the other side."""
        self._put(NOTED + noted)

    def _put(self, packet: bytes) -> None:
        try:
            self._sink.send(packet)
        except OSError as error:  # it is full, since the process stands still; or the unit is too long
            if not self.dropped:
                logger.warning(
                    "traces.dropped: no room on the way to the process that sends spans (%s; told once)", type(error).__name__
                )
            self.dropped += 1

    def see_to_it(self) -> None:
        """Begin it, or begin it anew if it has ended: what was in the socket is sent by the next one."""
        if self._pid and os.waitpid(self._pid, os.WNOHANG) == (0, 0):
            return
        if self._pid:
            logger.warning("traces.exporter_ended: the process that sends spans was ended from without; it is begun anew")
        self._pid = os.fork()
        if not self._pid:
            self._run()

    def close(self) -> None:
        """Have it send what there is and end. Waits for CLOSE_S at most, once the children have ended."""
        self._sink.close()
        self._source.close()
        ends_s = time.monotonic() + CLOSE_S
        while self._pid and os.waitpid(self._pid, os.WNOHANG) == (0, 0) and time.monotonic() < ends_s:
            time.sleep(0.02)
        self._pid = 0

    def _run(self) -> NoReturn:
        try:
            for number in range(1, signal.NSIG):
                if signal.getsignal(number) not in (signal.SIG_IGN, signal.SIG_DFL, None):
                    signal.signal(number, signal.SIG_DFL)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
                signal.signal(number, signal.SIG_IGN)  # a stop is for the node: this ends after it
            fd = os.dup2(self._source.fileno(), 3) if self._source.fileno() != 3 else 3
            os.closerange(4, 65_536)  # the node's connections end with the node
            handler = logging.StreamHandler()
            handler.setFormatter(JsonFormatter() if self._json else logging.Formatter("[%(asctime)s: %(levelname)s] %(message)s"))
            logging.root.handlers = [handler]
            logging.root.setLevel(logging.WARNING)
            relay(socket.socket(fileno=fd), Sender(self._collector), self._head, self._scope)
        finally:
            os._exit(0)


def relay(source: socket.socket, sender: Sender, head: bytes, scope: bytes) -> None:
    """Send what comes out of the socket, until it has no other end."""
    waiting: Waiting[bytes] = Waiting()
    ended = threading.Event()
    options = {"encode": _spans, "ended": ended, "last_s": CLOSE_S}
    thread = threading.Thread(target=send_all, args=(waiting, sender, head, scope), kwargs=options, daemon=True)
    thread.start()
    buffer = memoryview(bytearray(MOST_PART_BYTES))
    while size := source.recv_into(buffer):
        waiting.put(bytes(buffer[:size]), size)
        if not is_readable(source.fileno()):
            time.sleep(NAP_S)
    ended.set()
    thread.join(CLOSE_S)


def _spans(part: bytes) -> bytes:
    if part[:1] != NOTED:
        return part
    from workers.node.tracing.door import spans_of_hits

    return spans_of_hits(part[1:])

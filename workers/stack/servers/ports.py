"""TCP ports of the loopback interface."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack

from workers.stack.errors import StackError
from workers.stack.servers.valkey_server import HOST


def choose_ports(wanted: Mapping[str, int | None]) -> dict[str, int]:
    """A port for each service: the requested one, if it is free, else any that is free; no two are equal.

    Raises StackError naming the service and the port that is not free.
    """
    chosen: dict[str, int] = {}
    with ExitStack() as held:  # all at once, so that none is given twice
        for service, port in sorted(wanted.items(), key=lambda item: item[1] is None):
            probe = held.enter_context(socket.socket())
            # As our servers do: a port in TIME_WAIT is free, one with a listener is not.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port or 0))
            except OSError as error:
                reason = "is in use" if error.errno == errno.EADDRINUSE else os.strerror(error.errno or 0)
                raise StackError(
                    f"{service}: port {port} of {HOST} cannot be had: {reason}. "
                    "Name another one, or none to have a free one chosen."
                ) from error
            chosen[service] = probe.getsockname()[1]
    return chosen

"""kombu's Redis transport, with the channel and the poller that fetch needs."""

from __future__ import annotations

import time
from typing import Any, Final

from kombu.transport import redis as redis_transport

from workers.node.fetch.channel import FetchChannel
from workers.node.guard.watching import LeavingTransport, is_readable
from workers.node.poison import BROKEN

SUBSCRIBE_S: Final = 0.5
"""So long after a subscription has failed it is tried again."""


class FetchPoller(redis_transport.MultiChannelPoller):
    """Gives each channel its turn before it waits, and does not make what is no task wait for a task's credit."""

    def on_poll_start(self) -> None:
        super().on_poll_start()
        for channel in list(self._channels):
            if channel.fetch is not None:
                channel.fetch.turn()

    def _register_LISTEN(self, channel: Any) -> None:  # noqa: N802 - the library's name
        if time.monotonic() < channel.subscribe_from_s:
            return
        try:
            super()._register_LISTEN(channel)
        except BROKEN as error:
            channel.subscribe_from_s = time.monotonic() + SUBSCRIBE_S
            channel.subscribe_anew(error)

    def on_readable(self, fileno: int) -> Any:
        found = self._fd_to_chan.get(fileno)
        if found is None or found[1] == "BRPOP":
            return super().on_readable(fileno)
        if not is_readable(fileno):  # an earlier connection of this number was, within the same turn
            return None
        channel, kind = found
        return channel.handlers[kind]()


class FetchTransport(LeavingTransport):
    """See `FetchChannel`."""

    Channel = FetchChannel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = FetchPoller()

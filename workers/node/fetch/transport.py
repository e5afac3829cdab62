"""kombu's Redis transport, with the channel and the poller that fetch needs."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as redis_transport

from workers.node.fetch.channel import FetchChannel


class FetchPoller(redis_transport.MultiChannelPoller):
    """Gives each channel its turn before it waits, and does not make what is no task wait for a task's credit."""

    def on_poll_start(self) -> None:
        super().on_poll_start()
        for channel in list(self._channels):
            if channel.fetch is not None:
                channel.fetch.turn()

    def on_readable(self, fileno: int) -> Any:
        found = self._fd_to_chan.get(fileno)
        if found is None or found[1] == "BRPOP":
            return super().on_readable(fileno)
        channel, kind = found
        return channel.handlers[kind]()


class FetchTransport(redis_transport.Transport):
    """See `FetchChannel`."""

    Channel = FetchChannel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = FetchPoller()

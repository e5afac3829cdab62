"""kombu's Redis transport, whose purge of a queue removes what of it waits aside."""

from __future__ import annotations

from kombu.transport import redis as redis_transport

from workers.queue.aside.messages import purge_aside


class PurgingChannel(redis_transport.Channel):
    def _purge(self, queue: str) -> int:
        removed = int(super()._purge(queue))
        with self.conn_or_acquire() as client:
            return removed + purge_aside(client, [self._q_for_pri(queue, step) for step in self.priority_steps])


class PurgingTransport(redis_transport.Transport):
    """kombu's own transport, with the channel above."""

    Channel = PurgingChannel

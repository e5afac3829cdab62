"""The queues that are a node's own, each with its lists at the broker: one for each step of priority."""

from __future__ import annotations

from typing import Any


class Queues:
    """`names` in the order in which to claim: the one that was served last comes last. `former`: lists of queues that are not
    fetched any more, from which there may still be claims."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.names: list[str] = []
        self.former: list[str] = []

    def lists_of(self, queue: str) -> list[str]:
        """The most urgent first; it has the queue's own name."""
        return [self._channel._q_for_pri(queue, step) for step in self._channel.priority_steps]

    def seldom(self) -> list[str]:
        """The lists of lower priorities, the more urgent first."""
        return [self._channel._q_for_pri(queue, step) for step in self._channel.priority_steps[1:] for queue in self.names]

    def remove(self, queue: str) -> None:
        self.former = list(dict.fromkeys([*self.former, *self.lists_of(queue)]))
        self.names = [name for name in self.names if name != queue]

    def served(self, source: str) -> None:
        """Something was claimed from that list."""
        queue = source.partition(self._channel.sep)[0]
        if queue in self.names:
            self.names.remove(queue)
            self.names.append(queue)

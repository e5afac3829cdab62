"""Which task is queued or running for a key, so that other callers may wait for it instead of queueing their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from pipeline.cache.coherence.process import Coherence
from pipeline.cache.entry import AsOf
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.flight.claims import Claim, Claims
from pipeline.cache.flight.leases import Lease, Leases
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.commands import Commands
from pipeline.cache.server.connection import RedisConnection

ENTERED_S: Final = 10.0
"""How long a task may take from being entered to being queued."""
QUEUED_S: Final = 180.0
"""How long a task may wait and run after that, or since the last `renew`. A longer wait only ends the sharing."""
_TRIES: Final = 3


class InFlight:
    """The tasks in flight, in Redis. Nothing here raises because Redis is away: then every caller queues its own task.

    A caller joins a task only if, by the log as it stands when the caller asks, nothing that matches the key was invalidated
    since the task was entered. So it gets nothing that it would not have got from its own task.
    """

    def __init__(self, connection: RedisConnection, keys: KeySpace, coherence: Coherence, leases: Leases) -> None:
        """`leases` keep this process's running tasks in flight."""
        self._leases = leases
        self._connection = connection
        self._keys = keys
        self._claims = Claims(connection)
        self._coherence = coherence

    def enter(self, key: str, deps: tuple[str, ...], task_id: str, *, entered_as: str | None = None) -> str | None:
        """Enter the caller's task, which the caller then queues; or return the id of the task to wait for instead.

        None: queue it, whether it was entered or Redis is away. `entered_as`: a name in place of the key, for callers that may
        join each other only; the other methods know the task by it, too.
        """
        name = self._keys.in_flight(key if entered_as is None else entered_as)
        mine = Claim.of(task_id, self._coherence.as_of())
        with suppress(SharedTierUnavailableError):
            for _ in range(_TRIES):
                held = self._claims.take(name, mine, ENTERED_S, share=True)
                if held is None:
                    return None
                # The log is read after the claim: an invalidation from before the caller asked is known by then.
                if not self._coherence.refresh():
                    return None
                known = self._coherence.view.as_of()
                if self._coherence.view.valid(AsOf(held.epoch, held.seq, known.generation), key, deps):
                    return held.owner
                mine = Claim.of(task_id, known)
                if self._claims.replace(name, held.owner, mine, ENTERED_S):
                    return None
        return None

    def renew(self, key: str, task_id: str, *, begins_in_s: float = 0.0) -> None:
        """Note that the task was queued, to begin no sooner than in so many seconds."""
        with suppress(SharedTierUnavailableError):
            self._claims.renew(self._keys.in_flight(key), task_id, QUEUED_S + begins_in_s)

    @contextmanager
    def running(self, key: str, task_id: str) -> Iterator[None]:
        """Within the block the task runs: it stays in flight while this process lives. If the process dies, no caller joins the
        task, nor waits for it, for longer than a lease lasts; its message may take minutes to come to another worker."""
        lease = Lease.of(self._keys.in_flight(key), task_id)
        with suppress(SharedTierUnavailableError):
            self._claims.renew(lease.name, task_id, self._leases.lasts_s)
        with self._leases.renewed(lease, QUEUED_S):
            yield

    def leave(self, key: str, task_id: str) -> None:
        """Note that the task has ended: no caller may join it any more. Those that have joined find its result."""
        with suppress(SharedTierUnavailableError):
            self._claims.release(self._keys.in_flight(key), task_id)

    def withdraw(self, key: str, task_id: str) -> bool:
        """Leave, unless another caller has joined. Returns whether the task is now its caller's alone, and may be revoked."""
        with suppress(SharedTierUnavailableError):
            return self._claims.withdraw(self._keys.in_flight(key), task_id)
        return False

    def holds(self, key: str, task_id: str) -> bool:
        """Whether the task is still in flight, as far as is known. True when Redis cannot be asked."""
        try:
            held = self._connection.call(lambda client: client.get(self._keys.in_flight(key)))
        except SharedTierUnavailableError:
            return True
        return held is not None and Claim.parse(held).owner == task_id

    def waits_s(self, key: str, task_id: str) -> float | None:
        """For how long the task has been queued, as far as is known; 0 when it runs, is to begin later, is only being queued, or
        Redis cannot be asked. None when it is not in flight."""
        name = self._keys.in_flight(key)

        def ask(client: Commands) -> list[Any]:
            with client.pipeline() as commands:
                commands.get(name)
                commands.pttl(name)
                return commands.execute()

        try:
            held, left_ms = self._connection.call(ask)
        except SharedTierUnavailableError:
            return 0.0
        if held is None or Claim.parse(held).owner != task_id:
            return None
        # How long the claim lasts tells which: seconds for a task that is being queued, or runs and is renewed.
        left_s = left_ms / 1000
        return max(0.0, QUEUED_S - left_s) if left_s > max(ENTERED_S, self._leases.ttl_s) else 0.0

    def may_refresh(self, key: str, pause_s: float) -> bool:
        """Whether the caller is to have the key computed anew: no other in the fleet was told so within the last `pause_s`."""
        name = self._keys.refreshed(key)
        try:
            return self._connection.call(lambda client: client.set(name, b"1", px=round(pause_s * 1000), nx=True))
        except SharedTierUnavailableError:
            return False

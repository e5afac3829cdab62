"""Leases: which process of the fleet computes a key. A lease ends with its owner, at the latest `ttl_s` after it."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from pipeline.cache.claims import Claim, Claims
from pipeline.cache.commands import Commands
from pipeline.cache.connection import RedisConnection
from pipeline.cache.entry import AsOf
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.keys import KeySpace

logger: Final = logging.getLogger(__name__)


class Taken(NamedTuple):
    """What one round trip told. `lease`: the caller's own now, else None. `held`: whose it is, if another's. `entry` and `tail`
    were read after that, in this order: what an owner wrote before it let go is there, and what was invalidated before the entry
    was read is told by the tail."""

    lease: Lease | None
    held: Claim | None
    entry: bytes | None
    tail: bytes | None


class Lease(NamedTuple):
    """The right to compute a key."""

    name: bytes
    owner: str


class Leases:
    """Takes leases, keeps those of this process alive while their computations run, and gives them back. Thread-safe.

    A short time to live with renewal, rather than one as long as the longest computation: the owner's death costs the others
    `ttl_s` at most. What never ends is renewed for `longest_s` and no longer.
    """

    def __init__(
        self,
        connection: RedisConnection,
        keys: KeySpace,
        *,
        ttl_s: float,
        longest_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._claims = Claims(connection)
        self.ttl_s = ttl_s
        self._longest_s = longest_s
        self._clock = clock
        self._changed = threading.Condition()
        self._kept: dict[Lease, float] = {}
        self._keeper: threading.Thread | None = None

    def take(self, key: str, as_of: AsOf) -> Taken:
        """Take the lease if it is free, and read the entry. Raises SharedTierUnavailableError."""
        lease = Lease(self._keys.lease(key), secrets.token_hex(8))
        entry_name = self._keys.entry(key)
        claim = str(Claim.of(lease.owner, as_of))

        def ask(client: Commands) -> list[bytes | None]:
            with client.pipeline() as commands:
                commands.set(lease.name, claim, px=round(self.ttl_s * 1000), nx=True)
                commands.get(lease.name)
                commands.get(entry_name)
                commands.getex(self._keys.tail)
                _, holder, entry, tail = commands.execute()
            return [holder, entry, tail]

        holder, entry, tail = self._connection.call(ask)
        held = Claim.parse(holder) if holder is not None else None
        if held is not None and held.owner == lease.owner:
            return Taken(lease, None, entry, tail)
        return Taken(None, held, entry, tail)

    def take_over(self, key: str, held: Claim, as_of: AsOf) -> Lease | None:
        """Take it from an owner whose result would be of no use; None when another was first. Raises
        SharedTierUnavailableError."""
        lease = Lease(self._keys.lease(key), secrets.token_hex(8))
        taken = self._claims.replace(lease.name, held.owner, Claim.of(lease.owner, as_of), self.ttl_s)
        return lease if taken else None

    @contextmanager
    def kept(self, lease: Lease) -> Iterator[None]:
        """Within the block the lease does not run out; after it, it is given back. Never raises because Redis is away."""
        try:
            with self.renewed(lease, self._longest_s):
                yield
        finally:
            self.give_back(lease)

    @contextmanager
    def renewed(self, lease: Lease, longest_s: float) -> Iterator[None]:
        """Within the block, and for `longest_s` at most, the lease does not run out while this process lives. Never raises
        because Redis is away."""
        with self._changed:
            self._kept[lease] = self._clock() + longest_s
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name="lease-keeper", daemon=True)
                self._keeper.start()
            else:
                self._changed.notify()  # it may have had nothing to keep, and would look again too late
        try:
            yield
        finally:
            with self._changed:
                self._kept.pop(lease, None)
                self._changed.notify()

    def give_back(self, lease: Lease) -> None:
        """Let the next one compute. Never raises because Redis is away: then it runs out."""
        with suppress(SharedTierUnavailableError):
            self._claims.release(lease.name, lease.owner)

    def _keep(self) -> None:
        """The keeper's thread: it lives while there is something to keep, and a while longer."""
        while True:
            with self._changed:
                if not self._kept and not self._changed.wait_for(lambda: bool(self._kept), timeout=self.ttl_s):
                    self._keeper = None
                    return
                self._changed.wait_for(lambda: not self._kept, timeout=self.ttl_s / 3)
                now_s = self._clock()
                for lease in [lease for lease, until_s in self._kept.items() if until_s <= now_s]:
                    del self._kept[lease]
                leases = tuple(self._kept)
            for lease in leases:
                self._renew(lease)

    def _renew(self, lease: Lease) -> None:
        try:
            if self._claims.renew(lease.name, lease.owner, self.ttl_s):
                return
        except SharedTierUnavailableError:
            return  # tried again at the next turn, if it has not run out by then
        # This process was held up for longer than the lease, and another computes it as well. Neither harms the other.
        logger.info("cache.lease_lost")
        with self._changed:
            self._kept.pop(lease, None)

"""Leases: which process of the fleet computes a key. A lease outlives its owner by BRIEF_S, or by `ttl_s` at most."""

from __future__ import annotations

import logging
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple, Self

from pipeline.cache.entry import AsOf, entry_begins
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.flight.claims import Claim, Claims
from pipeline.cache.keys import KeySpace
from pipeline.cache.locks import Lock, begins_anew_in_children
from pipeline.cache.server.commands import Commands, text
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.link import ReplyError, encode
from pipeline.cache.server.scripts import add_script
from pipeline.cache.server.wire import UNTOLD

TOLD_S: Final = 2.0
"""How long the fleet is told that a computation brought nothing to share: several times the pauses between two looks."""
BRIEF_S: Final = 1.2
"""How long a lease lasts when its owner no longer renews it, as it does three times in that."""
HELD_UP_S: Final = 600.0
"""For so long a process that was held up takes leases for longer: others would compute what it computes."""
_IDLE_TURNS: Final = 3

logger: Final = logging.getLogger(__name__)


class Taken(NamedTuple):
    """The outcome of one round trip. `lease`: the caller's own now, else None. `held`: another owner's claim, if there is one;
    neither, where an entry was to be enough.
    `entry` and `tail` were read after that, in this order: an entry that an owner wrote before it let go is there, and the tail
    covers every invalidation from before the entry was read."""

    lease: Lease | None
    held: Claim | None
    entry: bytes | None
    tail: bytes | None


class Lease(NamedTuple):
    """The right to compute a key. `process`: its owner's id; a lease that a forked child inherits is still its parent's."""

    name: bytes
    owner: str
    process: int

    @classmethod
    def of(cls, name: bytes, owner: str | None = None) -> Self:
        """A lease of this process."""
        return cls(name, secrets.token_hex(8) if owner is None else owner, os.getpid())


class Leases:
    """Takes leases, keeps those of this process alive while their computations run, and gives them back. Thread-safe. A forked
    child begins with none: its parent keeps its own and gives them back.

    A short time to live with renewal, rather than one as long as the longest computation: an owner's death costs the others
    BRIEF_S, whatever died: a thread of the process renews, so that nobody needs to find out. A process that was once held up for
    so long that it nearly lost one (a library that lets no other thread run, a machine without processor time) takes them for
    `ttl_s` from then on. A computation that never ends is renewed for `longest_s` and no longer.
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
        self._lock = Lock()
        self._kept: dict[Lease, float] = {}
        self._keeper: threading.Thread | None = None
        self._held_up_until_s = -math.inf
        self.hears_ends = connection.unbounded
        """Whether a thread may wait on a connection until an owner is done: not where connections are few, nor where the server
        refuses it. Else it looks again and again."""
        self.owner: Callable[[], str | None] = lambda: None
        """Names the owner of a lease, which else has a random name: see the module `watching`. No two may be the same."""
        begins_anew_in_children(self)

    def begin_anew(self) -> None:
        self._kept = {}
        self._keeper = None

    @property
    def lasts_s(self) -> float:
        """How long a lease lasts without being renewed."""
        return self.ttl_s if self._clock() < self._held_up_until_s else min(self.ttl_s, BRIEF_S)

    def take(self, key: str, as_of: AsOf, *, unless_there: bool = False) -> Taken:
        """Take the lease if it is free, and read the entry. `unless_there`: not if an entry is there that was computed by as
        much knowledge as the caller has; then nobody holds it, and the caller neither. Raises SharedTierUnavailableError."""
        lease = Lease.of(self._keys.lease(key), self.owner())
        entry_name = self._keys.entry(key)
        claim = str(Claim.of(lease.owner, as_of))
        lasts_ms = round(self.lasts_s * 1000)

        begins = entry_begins(key, as_of.epoch) if unless_there else b""

        def ask(client: Commands) -> list[bytes | None]:
            with client.pipeline() as commands:
                add_script(commands, "take", [lease.name, entry_name], [claim, lasts_ms, begins, as_of.seq], text)
                commands.get(entry_name)
                commands.getex(self._keys.tail)
                return commands.execute()

        holder, entry, tail = self._connection.call(ask)
        held = Claim.parse(holder) if holder else None
        if held is not None and held.owner == lease.owner:
            return Taken(lease, None, entry, tail)
        return Taken(None, held, entry, tail)

    def await_end(self, owner: str, wait_s: float) -> tuple[bytes, bytes] | None:
        """Wait for an owner to be done, and at most so long. Returns what it has told: the entry's bytes, none of them where the
        caller is to look for itself, and the log's tail as it stood then; None if nothing in time. Raises
        SharedTierUnavailableError."""
        ask = encode(b"XREAD", b"BLOCK", b"%d" % max(1, round(wait_s * 1000)), b"STREAMS", self._keys.told(owner), b"0")
        try:
            (reply,) = self._connection.ask(ask, (UNTOLD,), block_s=wait_s)
        except SharedTierUnavailableError as error:
            self.hears_ends = not isinstance(error.__cause__, ReplyError)
            raise
        if reply is None:
            return None
        try:
            ((_, ((_, (tail, entry)),)),) = reply
        except (TypeError, ValueError):
            return b"", b""
        return (entry, tail) if type(entry) is type(tail) is bytes else (b"", b"")

    def told_by(self, key: str) -> list[bytes] | None:
        """The names that lua/tell.lua needs for those that wait for this process's computation of the key; None if it holds no
        lease of it."""
        name = self._keys.lease(key)
        owner = next((lease.owner for lease in self._kept.copy() if lease.name == name), None) if self._kept else None
        return None if owner is None else [name, self._keys.entry(key), self._keys.told(owner), self._keys.tail]

    def take_over(self, key: str, held: Claim, as_of: AsOf) -> Lease | None:
        """Take the lease from an owner whose result would be of no use; None when another caller was first. The count of owners
        that held it in vain is kept. Raises SharedTierUnavailableError."""
        lease = Lease.of(self._keys.lease(key), self.owner())
        taken = self._claims.replace(
            lease.name, held.owner, Claim.of(lease.owner, as_of, held.in_vain), self.lasts_s, self._keys.told(held.owner)
        )
        return lease if taken else None

    @contextmanager
    def kept(self, lease: Lease) -> Iterator[None]:
        """Within the block the lease does not run out. Never raises because Redis is away."""
        with self.renewed(lease, self._longest_s):
            yield

    @contextmanager
    def renewed(self, lease: Lease, longest_s: float) -> Iterator[None]:
        """Within the block, and for `longest_s` at most, the lease does not run out while this process lives. Never raises
        because Redis is away."""
        try:
            self._kept[lease] = self._clock() + longest_s
            self._see_to_a_keeper()
            yield
        finally:
            self._kept.pop(lease, None)

    def give_back(self, lease: Lease, *, in_vain: bool = False) -> None:
        """Let the next caller compute; or, if the computation brought nothing to share, all that waited for it. Never raises
        because Redis is away: then the lease runs out."""
        if lease.process != os.getpid():
            return
        with suppress(SharedTierUnavailableError):
            if in_vain:
                self._claims.give_back(lease.name, lease.owner, TOLD_S, self._keys.told(lease.owner))
            else:
                self._claims.release(lease.name, lease.owner, self._keys.told(lease.owner))

    def _see_to_a_keeper(self) -> None:
        with self._lock:
            if self._keeper is not None:
                return
            keeper = threading.Thread(target=self._keep, name="lease-keeper", daemon=True)
            if self._keeper is not None:  # a signal handler was here meanwhile
                return
            self._keeper = keeper
            try:
                keeper.start()
            except RuntimeError:  # the interpreter is shutting down, or has no room for threads: the lease runs out
                self._keeper = None
            except BaseException:
                self._keeper = None  # the thread may run or not: a second one does no harm
                raise

    def _keep(self) -> None:
        """The keeper's thread: it lives while there are leases to keep, and a little longer."""
        me = threading.current_thread()
        idle_turns = 0
        while True:
            pause_s = self.lasts_s / 3
            asleep_since_s, held = self._clock(), bool(self._kept)
            time.sleep(pause_s)
            now_s = self._clock()
            if held and now_s - asleep_since_s > 2 * pause_s:
                self._held_up_until_s = now_s + HELD_UP_S
            kept = self._kept.copy()
            for lease, until_s in kept.items():
                if until_s <= now_s:
                    self._kept.pop(lease, None)
            self._renew([lease for lease, until_s in kept.items() if until_s > now_s])
            idle_turns = 0 if kept else idle_turns + 1
            if idle_turns >= _IDLE_TURNS:
                with self._lock:
                    # A lease that is entered from now on is seen here, or its owner sees that there is no keeper.
                    if not self._kept:
                        if self._keeper is me:
                            self._keeper = None
                        return

    def _renew(self, leases: list[Lease]) -> None:
        if not leases:
            return
        try:
            renewed = self._claims.renew_all([(lease.name, lease.owner) for lease in leases], self.lasts_s)
        except SharedTierUnavailableError:
            return  # tried again at the next turn, if they have not run out by then
        for lease in (lease for lease, done in zip(leases, renewed, strict=True) if not done):
            if self._kept.pop(lease, None) is not None:
                # This process was held up for longer than the lease, and another one computes the key, too. Neither harms the
                # other.
                logger.info("cache.lease_lost")

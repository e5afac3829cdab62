"""Claims: who is at work on a key, for a time. What leases and the queue's in-flight records are made of."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

from pipeline.cache.commands import integer, text
from pipeline.cache.connection import RedisConnection
from pipeline.cache.entry import AsOf
from pipeline.cache.scripts import run_script

_SHARED = "+"


class Claim(NamedTuple):
    """`owner` is at work by what was known of the log at `epoch` and `seq`. `shared`: others wait for the outcome."""

    owner: str
    epoch: str
    seq: int
    shared: bool = False

    @classmethod
    def of(cls, owner: str, as_of: AsOf) -> Self:
        return cls(owner, as_of.epoch, as_of.seq)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """A text that is no claim is one of nobody, by a log that is not: whoever judges it will not wait for it."""
        owner, *rest = raw.decode(errors="surrogateescape").split(" ")
        if len(rest) < 2 or not rest[1].isdecimal():
            return cls(owner, "", -1)
        return cls(owner, rest[0], int(rest[1]), rest[2:] == [_SHARED])

    def __str__(self) -> str:
        return f"{self.owner} {self.epoch} {self.seq}"


class Claims:
    """Claims in Redis, each with a time to live. All methods raise SharedTierUnavailableError."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    def take(self, name: bytes, claim: Claim, ttl_s: float, *, share: bool = False) -> Claim | None:
        """Claim it for `ttl_s`; None when it is the caller's now, else who has it. `share`: the caller will wait for that one's
        outcome, so that its owner may no longer `withdraw`."""
        arguments = [str(claim), _ms(ttl_s), int(share)]
        held = self._connection.call(lambda client: run_script(client, "claim", [name], arguments, text))
        return None if held is None else Claim.parse(held)

    def renew(self, name: bytes, owner: str, ttl_s: float) -> bool:
        """Let it live `ttl_s` from now; false when it is that owner's no longer."""
        return self._exchange(name, owner, "renew", _ms(ttl_s))

    def replace(self, name: bytes, owner: str, claim: Claim, ttl_s: float) -> bool:
        """Take it from that owner; false when it is that owner's no longer. Of several who try one succeeds."""
        return self._exchange(name, owner, "replace", _ms(ttl_s), str(claim))

    def release(self, name: bytes, owner: str) -> bool:
        """Give it up; false when it is that owner's no longer."""
        return self._exchange(name, owner, "release")

    def withdraw(self, name: bytes, owner: str) -> bool:
        """Give it up, unless somebody shares it; whether it was given up."""
        return self._exchange(name, owner, "withdraw")

    def _exchange(self, name: bytes, owner: str, what: str, *arguments: Any) -> bool:
        words = [owner.encode(errors="surrogateescape"), what, *arguments]  # an owner that is no text is compared all the same
        return self._connection.call(lambda client: run_script(client, "exchange", [name], words, integer)) == 1


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))

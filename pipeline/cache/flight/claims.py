"""Claims: the owner at work on a key, for a time. Leases and the queue's in-flight records are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

from pipeline.cache.entry import AsOf
from pipeline.cache.server.commands import integer, several, text
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.scripts import run_script

_SHARED = "+"
_NOBODY = "-"
_MAX_DIGITS = 15


class Claim(NamedTuple):
    """`owner` is at work, by its knowledge of the log at `epoch` and `seq`. `shared`: others wait for the outcome. `in_vain`: how
    many owners before this one, one after another, had no outcome that could be shared."""

    owner: str
    epoch: str
    seq: int
    shared: bool = False
    in_vain: int = 0

    @classmethod
    def of(cls, owner: str, as_of: AsOf, in_vain: int = 0) -> Self:
        return cls(owner, as_of.epoch, as_of.seq, in_vain=in_vain)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Malformed text parses to a claim without epoch and seq, so that no caller waits for it."""
        owner, *rest = raw.decode(errors="surrogateescape").split(" ")
        if len(rest) < 2 or not _is_number(rest[1]):
            return cls(owner, "", -1)
        in_vain = 0
        if len(rest) > 2 and rest[2][:1] == "-" and _is_number(rest[2][1:]):
            in_vain = int(rest.pop(2)[1:])
        return cls(owner, rest[0], int(rest[1]), rest[2:] == [_SHARED], in_vain)

    @property
    def given_back(self) -> bool:
        """Whether it only records that its last owner is no longer at work: any caller may take it."""
        return self.owner == _NOBODY

    def __str__(self) -> str:
        return f"{self.owner} {self.epoch} {self.seq}" + (f" -{self.in_vain}" if self.in_vain else "")


class Claims:
    """Claims in Redis, each with a time to live. All methods raise SharedTierUnavailableError."""

    def __init__(self, connection: RedisConnection) -> None:
        self._connection = connection

    def take(self, name: bytes, claim: Claim, ttl_s: float, *, share: bool = False) -> Claim | None:
        """Claim the name for `ttl_s`. Returns None when it is the caller's now, else the holder's claim. `share`: the caller will
        wait for the holder's outcome, so that the holder may no longer `withdraw`."""
        arguments = [str(claim), _ms(ttl_s), int(share)]
        held = self._connection.call(lambda client: run_script(client, "claim", [name], arguments, text))
        return None if held is None else Claim.parse(held)

    def renew(self, name: bytes, owner: str, ttl_s: float) -> bool:
        """Extend the claim to `ttl_s` from now; false when it no longer belongs to that owner."""
        return self._exchange(name, owner, "renew", _ms(ttl_s))

    def renew_all(self, owners: Sequence[tuple[bytes, str]], ttl_s: float) -> list[bool]:
        """Extend each of these claims, by name and owner, to `ttl_s` from now, in one round trip; whether each still belongs to
        that owner."""
        words = [_ms(ttl_s), *(owner.encode(errors="surrogateescape") for _, owner in owners)]
        names = [name for name, _ in owners]
        done = self._connection.call(lambda client: run_script(client, "renew", names, words, several(len(names))))
        return [each == 1 for each in done]

    # `told`: by which name those that wait for the owner are told, if they are.

    def replace(self, name: bytes, owner: str, claim: Claim, ttl_s: float, told: bytes = b"") -> bool:
        """Take the claim from that owner; false when it no longer belongs to that owner. Of several callers one succeeds."""
        return self._exchange(name, owner, "replace", _ms(ttl_s), str(claim), told=told)

    def release(self, name: bytes, owner: str, told: bytes = b"") -> bool:
        """Give the claim up; false when it no longer belongs to that owner."""
        return self._exchange(name, owner, "release", told=told)

    def give_back(self, name: bytes, owner: str, told_s: float, told: bytes = b"") -> bool:
        """Give the claim up, and record for `told_s` that it was held in vain; false when it no longer belongs to that owner."""
        return self._exchange(name, owner, "give back", _ms(told_s), told=told)

    def withdraw(self, name: bytes, owner: str) -> bool:
        """Give the claim up, unless another caller shares it. Returns whether it was given up."""
        return self._exchange(name, owner, "withdraw")

    def _exchange(self, name: bytes, owner: str, what: str, *arguments: Any, told: bytes = b"") -> bool:
        names = [name, told] if told else [name]
        words = [owner.encode(errors="surrogateescape"), what, *arguments]  # an owner that is not text is compared all the same
        return self._connection.call(lambda client: run_script(client, "exchange", names, words, integer)) == 1


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))

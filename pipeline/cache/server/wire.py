"""Commands to a server and their replies, each exchange on a connection of its own. The only way to Redis."""

from __future__ import annotations

import ssl
import threading
import weakref
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Final

from pipeline.cache.server.address import Address
from pipeline.cache.server.health import CONNECT, Health
from pipeline.cache.server.link import Link, LostConnectionError, ReplyError

ELSEWHERE: Final = frozenset(
    {"READONLY", "MASTERDOWN", "LOADING", "MOVED", "ASK", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "NOAUTH", "UNBLOCKED"}
)
"""Codes that mean "not this server", or not any more: it was demoted, is cut off or is starting. The address may lead to another
one by now, or to the same one with another login. MISCONF and OOM are not among them: that is the right server, and full."""
UNTOLD: Final = "-"
"""In place of a need: the refusal is told to the caller alone."""
_NO_FAULT: Final = frozenset({"WRONGTYPE", "NOSCRIPT", "EXECABORT"})
"""Codes that concern one key or one call and not the server, or that another reply explains better."""
_CLOSED: Final = (
    BrokenPipeError,
    ConnectionResetError,
    ConnectionAbortedError,
    LostConnectionError,
    ssl.SSLEOFError,
    ssl.SSLZeroReturnError,
)
_LOOK_AGAIN_S: Final = 0.05
"""How long a waiter sleeps at most before it counts for itself: a lost connection is never given back."""


class UnusableServerError(ReplyError):
    """The server refuses everything useful: the login, the database, or being the one to ask."""


class BusyError(TimeoutError):
    """Every connection that this process may have was in use for the whole time-out. The server is not to blame."""


class Wire:
    """Exchanges commands with a server. Thread-safe, and safe from signals, finalizers and killed greenlets.

    The rule: a connection is taken out of the idle ones before the first byte is sent and put back after the last one was read,
    and in no other case. If anything breaks an exchange off, at any step (an error, a time limit, RecursionError, Ctrl-C, a
    killed greenlet), its connection stays outside, where it is closed. So an idle connection has no reply on its way, and the
    next exchange reads its own. Nothing else need be checked, and no shared state would have to be repaired.

    A connection that turns out to be closed, as after a server's restart, costs one more try, at once. So does a server that says
    it is no longer the one to ask: all connections to it are given up, and the address is looked up again.
    """

    def __init__(
        self,
        address: Address,
        *,
        timeout_s: float,
        health: Health | None = None,
        made: Callable[[], object] = lambda: None,
    ) -> None:
        """`made` is called for each new connection, before anything is asked there. Opens nothing yet."""
        self._address = address
        self._timeout_s = timeout_s if address.timeout_s is None else address.timeout_s
        self._connect_timeout_s = timeout_s if address.connect_timeout_s is None else address.connect_timeout_s
        self._health = Health() if health is None else health
        self._made = made
        self._tls: ssl.SSLContext | None = None
        self._idle: list[Link] = []  # a list's pop and append are one step each: no lock
        self._room = _Room(address.max_connections) if address.max_connections is not None else None

    def exchange(self, commands: bytes, needs: Sequence[str], *, block_s: float = 0.0) -> list[Any]:
        """The replies to as many encoded commands as there are needs, the names under which a refusal is reported.

        The commands must bear being sent twice. Raises the first ReplyError after all replies have come, OSError when there is no
        answer, BusyError when there is no free connection, and UnusableServerError.
        """
        if self._room is not None:
            token = self._room.enter(self._timeout_s)
            try:
                return self._exchange(commands, needs, block_s)
            finally:
                self._room.leave(token)
        return self._exchange(commands, needs, block_s)

    def _exchange(self, commands: bytes, needs: Sequence[str], block_s: float) -> list[Any]:
        idle = self._idle
        try:
            link = idle.pop()
        except IndexError:
            return self._exchange_anew(commands, needs, block_s)
        try:
            replies = link.exchange(commands, len(needs), block_s)
        except _CLOSED:
            link.close()
            self.renounce()  # the others will be closed by the server, too
            return self._exchange_anew(commands, needs, block_s)
        except BaseException:
            link.close()
            raise
        if link.refused and _elsewhere(replies):
            link.close()
            self.renounce()
            return self._exchange_anew(commands, needs, block_s)
        # Into the list it came from: if that list was given up meanwhile, so is the connection.
        idle.append(link)
        if link.refused or self._health.ill:
            self._settle(replies, needs)
        return replies

    def _exchange_anew(self, commands: bytes, needs: Sequence[str], block_s: float) -> list[Any]:
        """On a new connection, whose outcome is final."""
        idle = self._idle
        try:
            link = self._open()
        except ReplyError as error:
            self._health.refused(CONNECT, error.code, error.need)
            raise UnusableServerError(str(error), error.need) from None
        try:
            replies = link.exchange(commands, len(needs), block_s)
        except BaseException:
            link.close()
            raise
        refusal = _elsewhere(replies) if link.refused else None
        if refusal is not None:
            link.close()
            of = next(need for reply, need in zip(replies, needs, strict=True) if _refusal(reply) is refusal)
            self._health.refused(CONNECT, refusal.code, of)
            raise UnusableServerError(str(refusal), of)
        idle.append(link)
        if link.refused or self._health.ill:
            self._settle(replies, needs)
        return replies

    def _open(self) -> Link:
        link = self.open_apart()
        self._made()
        return link

    def open_apart(self) -> Link:
        """A new connection that is the caller's alone, and never comes among the idle ones. Raises OSError or ReplyError."""
        if self._address.tls is not None and self._tls is None:
            try:
                self._tls = self._address.tls.context()
            except ValueError as error:  # its files were valid at the start
                raise OSError(str(error)) from error
        try:
            return Link(self._address, timeout_s=self._timeout_s, connect_timeout_s=self._connect_timeout_s, tls=self._tls)
        except UnicodeError as error:  # how a look-up says that there is no such host
            raise OSError("the host's name cannot be looked up") from error

    def _settle(self, replies: list[Any], needs: Sequence[str]) -> None:
        """Note which needs were refused and which are met again. Raises the first refusal."""
        self._health.met()
        self._health.met(CONNECT)
        for reply, need in zip(replies, needs, strict=True):
            refusal = _refusal(reply)
            if refusal is None:
                self._health.met(need)
            elif need is not UNTOLD and refusal.code not in _NO_FAULT:
                self._health.refused(need, refusal.code)
        for reply, need in zip(replies, needs, strict=True):
            if isinstance(reply, ReplyError):
                reply.need = need
                raise reply

    def renounce(self) -> None:
        """Give up every connection, each as soon as it is out of use. Later exchanges connect anew."""
        idle, self._idle = self._idle, []
        while idle:  # not over a copy: only a popped connection belongs to no other thread
            try:
                link = idle.pop()
            except IndexError:
                return
            link.close()

    close = renounce


def _refusal(reply: Any) -> ReplyError | None:
    """The refusal that a reply is, or has among a transaction's replies."""
    if isinstance(reply, list):
        return next((item for item in reply if isinstance(item, ReplyError)), None)
    return reply if isinstance(reply, ReplyError) else None


def _elsewhere(replies: list[Any]) -> ReplyError | None:
    return next((error for error in map(_refusal, replies) if error is not None and error.code in ELSEWHERE), None)


class _Token:
    """One exchange under way. A token that was lost between two steps is gone with its last reference, and counts no more."""

    __slots__ = ("__weakref__", "left")

    def __init__(self) -> None:
        self.left = False


class _Room:
    """Bounds the exchanges at a time, and hence the connections.

    Each newcomer counts the tokens that are alive: a count that is raised and lowered would stay too high after an exception
    between the two, and in the end let no exchange in.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.RLock()
        self._under_way: list[weakref.ref[_Token]] = []
        self._freed: SimpleQueue[None] = SimpleQueue()  # its steps may be re-entered

    def enter(self, patience_s: float) -> _Token:
        """Wait for a place. Raises BusyError."""
        ends_at_s = 0.0
        while True:
            token = self._entered()
            if token is not None:
                return token
            now_s = monotonic()
            ends_at_s = ends_at_s or now_s + patience_s
            if now_s >= ends_at_s:
                raise BusyError("every connection that max_connections allows is in use")
            try:
                self._freed.get(timeout=min(ends_at_s - now_s, _LOOK_AGAIN_S))
            except Empty:
                continue

    def _entered(self) -> _Token | None:
        with self._lock:
            alive = self._alive()
            if len(alive) >= self._most:
                return None
            token = _Token()
            self._under_way = [*(ref for ref, _ in alive), weakref.ref(token)]
            return token

    def _alive(self) -> list[tuple[weakref.ref[_Token], _Token]]:
        return [(ref, token) for ref in self._under_way if (token := ref()) is not None and not token.left]

    def leave(self, token: _Token) -> None:
        token.left = True
        if self._freed.qsize() < self._most:
            self._freed.put(None)

"""One connection to a server: encoded commands out, as many replies in (RESP2). Used by one exchange at a time."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Any, Final

from pipeline.cache.server.address import Address

SHORTEST_TIMEOUT_S: Final = 0.001
"""A time-out of 0 would mean "do not wait", which is an error of its own."""
_READ_BYTES: Final = 65_536
_MAX_PIECE_BYTES: Final = 1 << 20
_MAX_DEPTH: Final = 8
"""No reply to a command in use nests deeper."""
_MAX_COUNT: Final = 1 << 29
"""The most that a server may announce: its own limit of one text, 512 MB."""

_STRING, _NUMBER, _TEXT, _ERROR, _ARRAY = b"$:+-*"


class ReplyError(Exception):
    """The server refused a command. `code` is the first word of its message; the rest may hold keys and users' words, and
    belongs in no log. `need`: the refused command or script."""

    def __init__(self, text: str, need: str = "") -> None:
        super().__init__(text)
        code = text.partition(" ")[0]
        self.code = code if code.isascii() and code.isupper() and code.isalpha() else "ERR"
        if "ACL failure in script" in text:  # for a command within a script some servers have no code
            self.code = "NOPERM"
        self.need = need


class LostConnectionError(ConnectionError):
    """The server closed the connection."""


class GarbledReplyError(ConnectionError):
    """The bytes that came do not answer the command: another program listens there, or something in between mixes up replies."""


class Link:
    """An open connection, logged in, on which nothing is under way.

    Its user holds it alone. After an exception of any kind it must be closed: a reply may still be on its way. If its last
    reference is lost instead, it closes itself.
    """

    __slots__ = ("_at", "_buffer", "_recv", "_send", "_socket", "refused", "timeout_s")

    def __init__(self, address: Address, *, timeout_s: float, connect_timeout_s: float, tls: ssl.SSLContext | None) -> None:
        """Connects and logs in. Raises OSError, or ReplyError with the need AUTH or SELECT."""
        self._buffer = b""
        self._at = 0
        self.timeout_s = max(timeout_s, SHORTEST_TIMEOUT_S)
        self.refused = False
        """Whether an error was among the last exchange's replies."""
        self._socket = _connected(address, max(connect_timeout_s, SHORTEST_TIMEOUT_S), tls)
        self._send = self._socket.sendall
        self._recv = self._socket.recv
        self._socket.settimeout(self.timeout_s)
        self._log_in(address)

    def _log_in(self, address: Address) -> None:
        needed = {}
        if address.username or address.password:
            login = [address.username] if address.username else []
            needed["AUTH"] = encode(b"AUTH", *(word.encode() for word in (*login, address.password)))
        if address.database:
            needed["SELECT"] = encode(b"SELECT", b"%d" % address.database)
        name = (address.client_name or "persona-cache").encode()
        *answers, named = self.exchange(b"".join(needed.values()) + encode(b"CLIENT", b"SETNAME", name), len(needed) + 1)
        for need, answer in zip(needed, answers, strict=True):
            if isinstance(answer, ReplyError):
                answer.need = need
                raise answer
        if isinstance(named, ReplyError) and "max number of clients" in str(named):
            raise named  # any other refusal of the name does no harm

    def exchange(self, commands: bytes, count: int, block_s: float = 0.0) -> list[Any]:
        """Send the encoded commands and read their `count` replies: bytes, int, None, list, or a ReplyError that was returned.

        `block_s`: how long the server may wait on purpose, before the time-out begins. Raises OSError, a time-out included.
        """
        self.refused = False
        if block_s:
            self._socket.settimeout(self.timeout_s + block_s)
        self._send(commands)
        self._buffer = self._recv(_READ_BYTES)
        self._at = 0
        if not self._buffer:
            raise LostConnectionError("the server closed the connection")
        replies = self._several(count, 0)
        if self._at != len(self._buffer):
            raise GarbledReplyError("more came than was asked for")
        self._buffer = b""
        if block_s:
            self._socket.settimeout(self.timeout_s)
        return replies

    # -- a subscription, after which there is no other exchange

    def subscribe(self, channel: bytes) -> None:
        """From now on `pushed` gives what is published there. Raises OSError, or ReplyError with the need SUBSCRIBE."""
        self._send(encode(b"SUBSCRIBE", channel))
        (answer,) = self._several(1, 0)
        if isinstance(answer, ReplyError):
            answer.need = "SUBSCRIBE"
            raise answer

    def pushed(self, wait_s: float) -> Any:
        """What the server has sent by itself; None if it has sent nothing within that time. Raises OSError, also for a message
        that stops in its middle for as long."""
        if self._at == len(self._buffer):
            if self._socket.gettimeout() != wait_s:
                self._socket.settimeout(wait_s)  # a system call, which a thread that always waits as long need not make
            try:
                piece = self._recv(_READ_BYTES)
            except (TimeoutError, BlockingIOError, ssl.SSLWantReadError):
                return None
            finally:
                if wait_s < self.timeout_s:
                    self._socket.settimeout(self.timeout_s)
            if not piece:
                raise LostConnectionError("the server closed the connection")
            self._buffer, self._at = piece, 0
        return self._reply(0)

    def fileno(self) -> int:
        return self._socket.fileno()

    def keep_alive(self, after_s: int) -> None:
        """Have the kernel ask whether the other side is there when nothing came for so long, and three times more often then."""
        if self._socket.family != socket.AF_UNIX and hasattr(socket, "TCP_KEEPIDLE"):
            often_s = max(1, after_s // 3)
            for option, value in ((socket.TCP_KEEPIDLE, after_s), (socket.TCP_KEEPINTVL, often_s), (socket.TCP_KEEPCNT, 3)):
                self._socket.setsockopt(socket.IPPROTO_TCP, option, value)

    def hang_up(self) -> None:
        """End the connection for every process that shares it, and wake the thread that waits for it. Raises nothing."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this process's end. The connection of a parent process, which shares it after a fork, goes on."""
        self._socket.close()

    def __del__(self) -> None:
        # Not fully made, or lost between two steps of its user.
        if hasattr(self, "_socket"):
            self._socket.close()

    # -- replies

    def _reply(self, depth: int) -> Any:
        buffer, at = self._buffer, self._at
        end = buffer.find(b"\r\n", at)
        while end < 0:
            if len(buffer) - at > _READ_BYTES:
                raise GarbledReplyError("a line without an end")
            buffer, at = self._read_on(), 0
            end = buffer.find(b"\r\n")
        kind = buffer[at]
        if kind == _STRING:
            size = _number(buffer[at + 1 : end])
            start = end + 2
            if size < 0:
                self._at = start
                return None
            if size > _MAX_COUNT:
                raise GarbledReplyError("a text of an impossible size")
            stop = start + size
            if stop + 2 > len(buffer):
                self._at = start
                buffer, start, stop = self._read_on(size + 2), 0, size
            if buffer[stop : stop + 2] != b"\r\n":
                raise GarbledReplyError("a text of another size than was announced")
            self._at = stop + 2
            return buffer[start:stop]
        self._at = end + 2
        line = buffer[at + 1 : end]
        if kind == _NUMBER:
            return _number(line)
        if kind == _TEXT:
            return line
        if kind == _ERROR:
            self.refused = True
            return ReplyError(line.decode(errors="replace"))
        if kind == _ARRAY and depth < _MAX_DEPTH:
            count = _number(line)
            if count > _MAX_COUNT:
                raise GarbledReplyError("an array of an impossible size")
            return None if count < 0 else self._several(count, depth + 1)
        raise GarbledReplyError("not a reply of this protocol")

    def _several(self, count: int, depth: int) -> list[Any]:
        replies: list[Any] = []
        while len(replies) < count:
            # As `_reply`, for the most common replies: texts that have come already.
            buffer, at = self._buffer, self._at
            find = buffer.find
            try:
                while len(replies) < count and buffer[at] == _STRING:
                    end = find(b"\r\n", at)
                    start = end + 2
                    stop = start + int(buffer[at + 1 : end])
                    if end < 0 or stop < start or buffer[stop : stop + 2] != b"\r\n":
                        break
                    replies.append(buffer[start:stop])
                    at = stop + 2
            except (IndexError, ValueError):
                pass  # not come yet, or not a number: `_reply` sees which
            self._at = at
            if len(replies) < count:
                replies.append(self._reply(depth))
        return replies

    def _read_on(self, needed: int = 0) -> bytes:
        """The new buffer: the unused rest and, after it, enough to have `needed` bytes, and at least one byte more."""
        rest = self._buffer[self._at :]
        pieces, missing = [rest], max(needed - len(rest), 1)
        while missing > 0:
            piece = self._recv(min(max(missing, _READ_BYTES), _MAX_PIECE_BYTES))
            if not piece:
                raise LostConnectionError("the server closed the connection in the middle of a reply")
            pieces.append(piece)
            missing -= len(piece)
        self._buffer, self._at = b"".join(pieces), 0
        return self._buffer


def encode(*words: bytes) -> bytes:
    """A command as the server reads it (RESP: an array of byte strings)."""
    return b"*%d\r\n%b" % (len(words), b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words]))


def _number(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        raise GarbledReplyError("a malformed number") from None


def _connected(address: Address, timeout_s: float, tls: ssl.SSLContext | None) -> socket.socket:
    if address.path:
        return _tried(socket.AF_UNIX, 0, address.path, timeout_s)
    failure: OSError | None = None
    for family, _, protocol, _, where in socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM):
        try:
            plain = _tried(family, protocol, where, timeout_s)
        except OSError as error:
            failure = error
            continue
        if tls is None:
            return plain
        try:
            return tls.wrap_socket(plain, server_hostname=address.host)
        except BaseException:
            plain.close()
            raise
    raise failure or LostConnectionError("the host has no address")


def _tried(family: int, protocol: int, where: Any, timeout_s: float) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        if family != socket.AF_UNIX:
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.settimeout(timeout_s)
        made.connect(where)
    except BaseException:
        made.close()
        raise
    return made

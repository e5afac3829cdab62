"""A server's address and how to speak to it, read from a URL and checked before anything is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final, NoReturn
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pipeline.cache.server.tls import TLS_OPTIONS, Tls, shown

SCHEMES: Final = ("redis", "rediss", "unix")
DEFAULT_PORT: Final = 6379
_MAX_DATABASE: Final = 2**31 - 1
_MAX_PATH_BYTES: Final = 107
"""The kernel's limit for a socket's path."""
_MALFORMED: Final = (
    "malformed URL: its host or port cannot be read; a port is 0 to 65535, and a password's / ? # [ ] @ : are "
    "written as %2F %3F %23 %5B %5D %40 %3A"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A server's address: a host and port, or the path of a socket; the login, the database, and this process's own limits.

    `max_connections`: the most at a time; a caller that finds none free waits for one. `timeout_s`, `connect_timeout_s`: the
    URL's, in place of the settings'. Neither its text nor its errors show a password.
    """

    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""
    database: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    tls: Tls | None = None
    client_name: str | None = None
    max_connections: int | None = None
    timeout_s: float | None = None
    connect_timeout_s: float | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """The address in a URL. Touches neither network nor files. Raises ValueError with the fault and what is allowed."""
        return _parsed(url)


def check_redis_url(url: str) -> None:
    """Check that a cache can use this URL. Connects to nothing; reads the files that a `rediss://` URL names.

    Raises ValueError with the fault and what is allowed, never with the URL itself: it may hold a password.
    """
    address = Address.parse(url)
    if address.tls is not None:
        address.tls.context()


def _refuse(why: str) -> NoReturn:
    raise ValueError(why)


def _parsed(url: str) -> Address:
    if not isinstance(url, str):
        _refuse(f"malformed URL: expected text, got {type(url).__name__}")
    if any(character <= " " or character == "\x7f" for character in url):
        _refuse("malformed URL: it has a space or a control character, perhaps at its start or end")
    try:
        parts = urlsplit(url)
        port = parts.port  # raises ValueError unless it is a number from 0 to 65535
        host = unquote(parts.hostname or "")
        login = {"username": unquote(parts.username or ""), "password": unquote(parts.password or "")}
    except ValueError:
        # The library's own message quotes the part that it stumbled on, which may be the password.
        raise ValueError(_MALFORMED) from None
    if parts.scheme not in SCHEMES:
        _refuse(f"malformed URL: its scheme is {parts.scheme!r}; allowed are {', '.join(SCHEMES)}")
    if parts.fragment or "#" in url:
        _refuse("malformed URL: it has a fragment (#); in a password # is written as %23")
    options = _options(parts)
    fields: dict[str, Any] = {name: options.pop(name, login[name]) for name in login}
    if parts.scheme == "unix":
        fields["path"] = _socket_path(parts)
        databases = [options.pop("db", 0)]
    else:
        fields |= {"host": _host(host), "port": _port(port)}
        databases = [*_database_of_path(parts.path), *([options.pop("db")] if "db" in options else [])] or [0]
    if len(set(databases)) > 1:
        _refuse("malformed URL: it names two databases, in its path and as ?db=")
    fields["database"] = databases[0]
    options.pop("protocol", None)
    if parts.scheme == "rediss":
        fields["tls"] = Tls.of({name: options.pop(name) for name in [*options] if name in TLS_OPTIONS})
    return Address(**fields, **{_FIELDS.get(name, name): value for name, value in options.items()})


def _host(host: str) -> str:
    if not host:
        _refuse("malformed URL: it names no host")
    try:
        host.encode("idna")  # as the look-up will, which raises something other than OSError
    except UnicodeError:
        _refuse("malformed URL: its host is not a host name")
    return host


def _port(port: int | None) -> int:
    if port == 0:
        _refuse("malformed URL: its port is 0, where no server listens")
    return DEFAULT_PORT if port is None else port


def _socket_path(parts: SplitResult) -> str:
    path = unquote(parts.path)
    if parts.hostname or parts.port is not None or not path.startswith("/") or path == "/":
        _refuse("malformed URL: expected unix:///absolute/path/of/the/socket")
    if "\0" in path or len(path.encode(errors="surrogatepass")) > _MAX_PATH_BYTES:
        _refuse(f"malformed URL: the socket's path has more than {_MAX_PATH_BYTES} bytes, or a NUL")
    return path


def _database_of_path(path: str) -> list[int]:
    return [_database(path[1:])] if path not in ("", "/") else []


def _database(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:11]) <= _MAX_DATABASE and len(text) <= 10):
        _refuse("malformed URL: its database is not a number, as in redis://host:6379/0")
    return int(text)


def _protocol(text: str) -> int:
    if text != "2":
        _refuse("protocol: allowed is 2, which every server speaks")
    return 2


def _seconds(name: str) -> Callable[[str], float]:
    def seconds(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not (isfinite(value) and 0 < value <= 3600):
            _refuse(f"{name}: expected seconds above 0 and up to 3600")
        return value

    return seconds


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:7]) > 0 and len(text) <= 6):
        _refuse("max_connections: expected a number from 1 to 999999")
    return int(text)


def _client_name(text: str) -> str:
    if not text.isascii() or not text.isprintable() or " " in text:
        _refuse("client_name: expected ASCII without spaces")
    return text


_OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "db": _database,
    "username": str,
    "password": str,
    "client_name": _client_name,
    "max_connections": _count,
    "socket_timeout": _seconds("socket_timeout"),
    "socket_connect_timeout": _seconds("socket_connect_timeout"),
    "protocol": _protocol,
}
_FIELDS: Final = {"socket_timeout": "timeout_s", "socket_connect_timeout": "connect_timeout_s"}


def _options(parts: SplitResult) -> dict[str, Any]:
    """The URL's query, each option once, known, and of its type."""
    known = {**_OPTIONS, **(TLS_OPTIONS if parts.scheme == "rediss" else {})}
    options: dict[str, Any] = {}
    for name, text in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            where = "; ssl_* belong to rediss://" if name in TLS_OPTIONS else ""
            _refuse(f"unknown option {shown(name)}{where}; allowed are {', '.join(known)}")
        if name in options:
            _refuse(f"{name}: is given twice")
        if not text:
            _refuse(f"{name}: is empty")
        options[name] = known[name](text)
    return options

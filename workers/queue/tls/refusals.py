"""Why no connection over TLS comes about, by the variable that has to change.

A server that is away is not this module's matter: workers and beat wait for it. A certificate that is not accepted does not
become good by waiting.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import closing, suppress
from typing import Final
from urllib.parse import urlsplit

from pipeline.cache.server.tls import tls_of
from pipeline.errors import ConfigurationError
from pipeline.settings import PREFIX, Settings
from workers.queue.tls.options import only_tls_options

PATIENCE_S: Final = 2.0
_PORTS: Final = {"rediss": 6379, "amqps": 5671}
_QUESTIONS: Final = {"rediss": b"PING\r\n", "amqps": b"AMQP\x00\x00\x09\x01"}
"""What makes a server say something: one that wants a certificate of its client refuses after the handshake, in TLS 1.3."""


def check_certificates(settings: Settings) -> None:
    """Connect once to each server that is behind TLS, and raise ConfigurationError if a certificate is not accepted, there or
    here, naming the variable. A server that is away is well."""
    seen: dict[str, str] = {}
    for name in ("broker_url", "result_url", "cache_url"):
        parts = urlsplit(getattr(settings, name))
        seen.setdefault(parts._replace(path="").geturl(), PREFIX + name.upper())
    problems = [f"{variable}: {why}" for url, variable in seen.items() if (why := refusal_of(url)) is not None]
    if problems:
        raise ConfigurationError("\n".join(problems))


def refusal_of(url: str) -> str | None:
    """What is wrong with the certificates of a connection to that URL; None if nothing is, or if that cannot be known."""
    tls = tls_of(only_tls_options(url))
    if tls is None:
        return None
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        plain = socket.create_connection((host, parts.port or _PORTS[parts.scheme]), PATIENCE_S)
    except OSError:
        return None
    with closing(plain):
        try:
            connection = tls.context().wrap_socket(plain, server_hostname=host)
        except ssl.SSLCertVerificationError as error:
            return f"the server's certificate is not accepted ({error.verify_message}); {_expected(tls.ca_certs or tls.ca_path)}"
        except ssl.SSLError as error:
            return f"no TLS with that server ({error.reason or type(error).__name__}); does it speak TLS on that port?"
        except OSError:
            return None
        with closing(connection):
            return _refusal_after_handshake(connection, parts.scheme, certificate=tls.certfile)


def _refusal_after_handshake(connection: ssl.SSLSocket, scheme: str, *, certificate: str | None) -> str | None:
    why = None
    with suppress(OSError):  # it may have closed by now; what it said before can be read all the same
        connection.sendall(_QUESTIONS[scheme])
    try:
        connection.recv(1)
    except ssl.SSLError as error:
        why = error.reason
    except OSError:  # slow, or the end: so does a TLS terminator whose server is away
        pass
    if why is None or "EOF" in why:
        return None
    if certificate is None:
        return f"the server wants a certificate of its clients ({why}); expected ssl_certfile and ssl_keyfile"
    return f"the server does not accept the certificate of ssl_certfile ({why})"


def _expected(authority: str | None) -> str:
    if authority is None:
        return "expected one that an authority of this system has signed; name yours by ssl_ca_certs"
    return f"expected one for this host that {authority} has signed"


def explained(error: BaseException | None) -> str | None:
    """What TLS has to do with an error, among it and its causes; None if nothing."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted ({error.verify_message}); see ssl_ca_certs in"
        if isinstance(error, ssl.SSLError):
            return f"no TLS with it ({error.reason or type(error).__name__}); see ssl_certfile in"
        error = error.__cause__ or error.__context__
    return None

"""The `ssl_*` options of the URLs, as Celery, kombu, RedBeat and Flower take them.

Each library reads other options out of a URL (Celery's results four of them, Flower none), so that no URL of theirs holds any:
they get them as Celery's settings, which all of them read whole.
"""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import urlsplit

from pipeline.cache.server.tls import Tls, tls_of
from pipeline.settings import Settings


def tls_settings(settings: Settings) -> dict[str, Any]:
    """Celery's settings of TLS, for those servers that are behind it."""
    broker, results = library_options(settings.broker_url), library_options(settings.result_backend_url)
    found = {"broker_use_ssl": broker, "redis_backend_use_ssl": results}
    if not settings.broker_url.startswith("amqp"):
        found["redbeat_redis_use_ssl"] = broker
    return {name: options for name, options in found.items() if options}


def library_options(url: str) -> dict[str, Any]:
    """The options of a client of that URL, by the client's own names; none for a URL without TLS."""
    tls = tls_of(only_tls_options(url))
    if tls is None:
        return {}
    return _of_amqp(tls) if url.startswith("amqp") else _of_redis(tls)


def without_tls_options(url: str) -> str:
    """The URL for a client that has the options by other means."""
    if "ssl_" not in url:
        return url
    parts = urlsplit(url)
    return parts._replace(query="&".join(each for each in parts.query.split("&") if not each.startswith("ssl_"))).geturl()


def only_tls_options(url: str) -> str:
    """The URL without its other options."""
    parts = urlsplit(url)
    return parts._replace(query="&".join(each for each in parts.query.split("&") if each.startswith("ssl_"))).geturl()


def _of_redis(tls: Tls) -> dict[str, Any]:
    options = {
        "ssl_ca_certs": tls.ca_certs,
        "ssl_ca_path": tls.ca_path,
        "ssl_certfile": tls.certfile,
        "ssl_keyfile": tls.keyfile,
        "ssl_password": tls.key_password,
        "ssl_min_version": tls.min_version,
        "ssl_ciphers": tls.ciphers,
    }
    checks = {"ssl_cert_reqs": tls.cert_reqs, "ssl_check_hostname": tls.check_hostname}
    return {**checks, **{name: value for name, value in options.items() if value is not None}}


def _of_amqp(tls: Tls) -> dict[str, Any]:
    options = {
        "ca_certs": tls.ca_certs,
        "certfile": tls.certfile,
        "keyfile": tls.keyfile,
        "tls_minimum_version": tls.min_version,
        "ciphers": tls.ciphers,
    }
    checks: dict[str, Any] = {"cert_reqs": tls.cert_reqs}
    if tls.check_hostname and tls.cert_reqs != ssl.CERT_NONE:
        checks["server_hostname"] = None  # kombu puts the URL's in its place; without it no name would be compared
    return {**checks, **{name: value for name, value in options.items() if value is not None}}

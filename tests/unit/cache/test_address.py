"""The URLs of the cache's server that are allowed, and the refusal of one that cannot work before anything is asked."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from pipeline.cache import RedisCache
from pipeline.cache.server.address import Address, Tls, check_redis_url
from pipeline.errors import ConfigurationError
from pipeline.settings import load_settings

SECRET = "s3cret"

GOOD = {
    "redis://h": Address(host="h"),
    "redis://h:6380/3": Address(host="h", port=6380, database=3),
    "redis://h/": Address(host="h"),
    "redis://h?db=3": Address(host="h", database=3),
    "redis://h/3?db=3": Address(host="h", database=3),
    "redis://[::1]:6380/1": Address(host="::1", port=6380, database=1),
    "redis://:p%2F%40%3A@h": Address(host="h", password="p/@:"),
    "redis://user@h": Address(host="h", username="user"),
    "redis://user:pw@h": Address(host="h", username="user", password="pw"),
    "redis://h?username=user&password=pw": Address(host="h", username="user", password="pw"),
    "redis://h?max_connections=2": Address(host="h", max_connections=2),
    "redis://h?socket_timeout=0.5&socket_connect_timeout=2": Address(host="h", timeout_s=0.5, connect_timeout_s=2.0),
    "redis://h?client_name=me": Address(host="h", client_name="me"),
    "redis://h?protocol=2": Address(host="h"),
    "REDIS://h": Address(host="h"),
    "unix:///tmp/s.sock": Address(path="/tmp/s.sock"),
    "unix:///tmp/s.sock?db=2": Address(path="/tmp/s.sock", database=2),
    "unix://user:pw@/tmp/s%20s": Address(path="/tmp/s s", username="user", password="pw"),
    "rediss://h": Address(host="h", tls=Tls()),
    "rediss://h?ssl_cert_reqs=none": Address(host="h", tls=Tls(cert_reqs=ssl.CERT_NONE)),
    "rediss://h?ssl_cert_reqs=CERT_NONE": Address(host="h", tls=Tls(cert_reqs=ssl.CERT_NONE)),
    "rediss://h?ssl_cert_reqs=required": Address(host="h", tls=Tls()),
    "rediss://h?ssl_cert_reqs=CERT_REQUIRED": Address(host="h", tls=Tls()),
    "rediss://h?ssl_cert_reqs=optional&ssl_check_hostname=false": Address(
        host="h", tls=Tls(cert_reqs=ssl.CERT_OPTIONAL, check_hostname=False)
    ),
    "rediss://h?ssl_min_version=772": Address(host="h", tls=Tls(min_version=ssl.TLSVersion.TLSv1_3)),
}


@pytest.mark.parametrize("url", GOOD)
def test_a_url_says_where_and_how(url: str) -> None:
    """In every form that redis-py and Celery document and that is of use here."""
    check_redis_url(url)
    assert Address.parse(url) == GOOD[url]


BAD = {
    "redis://h?foo=bar": "unknown option foo; allowed are db",
    "redis://h?decode_responses=True": "unknown option decode_responses",
    "redis://h?retry_on_timeout=1": "unknown option",
    "redis://h?health_check_interval=30": "unknown option",
    "redis://h?ssl_cert_reqs=none": "ssl_\\* belong to rediss://",
    "unix:///tmp/s?ssl_ca_certs=/x": "ssl_\\* belong to rediss://",
    "redis://h?host=other": "unknown option host",
    "redis://h?db=abc": "database is not a number",
    "redis://h?db=": "db: is empty",
    "redis://h?db=1&db=2": "db: is given twice",
    "redis://h/1?db=2": "two databases",
    "redis://h/abc": "database is not a number",
    "redis://h/1/2": "database is not a number",
    "redis://h/-1": "database is not a number",
    "redis://h/1.0": "database is not a number",
    "redis://h/٣": "database is not a number",
    f"redis://h/{10**30}": "database is not a number",
    " redis://h": "space or a control",
    "redis://h ": "space or a control",
    "redis://h\n": "space or a control",
    "redis://h\t/0": "space or a control",
    "redis://": "names no host",
    "redis:///0": "names no host",
    "redis://:pw@/0": "names no host",
    "redis://a..b": "not a host name",
    f"redis://{'a' * 64}.b": "not a host name",
    "redis://h:0": "port is 0",
    "redis://h:65536": "a port is 0 to 65535",
    "redis://h:x": "a port is 0 to 65535",
    "redis://h/0#x": "fragment",
    "http://h": "allowed are redis, rediss, unix",
    "h:6379": "allowed are redis, rediss, unix",
    "": "allowed are redis, rediss, unix",
    "unix://": "unix:///absolute/path",
    "unix:///": "unix:///absolute/path",
    "unix://tmp/s": "unix:///absolute/path",
    "unix:///tmp/s/1?db=x": "database is not a number",
    f"unix:///{'s' * 120}": "more than 107 bytes",
    "redis://h?protocol=3": "protocol: allowed is 2",
    "redis://h?max_connections=0": "max_connections: expected",
    "redis://h?max_connections=-1": "max_connections: expected",
    "redis://h?max_connections=two": "max_connections: expected",
    "redis://h?socket_timeout=0": "socket_timeout: expected seconds",
    "redis://h?socket_timeout=nan": "socket_timeout: expected seconds",
    "redis://h?socket_connect_timeout=None": "socket_connect_timeout: expected seconds",
    "rediss://h?ssl_cert_reqs=maybe": "ssl_cert_reqs: allowed are",
    "rediss://h?ssl_check_hostname=maybe": "ssl_check_hostname: allowed are",
    "rediss://h?ssl_min_version=TLSv1": "ssl_min_version: allowed are",
    "rediss://h?ssl_ciphers=NONE-SUCH": "ssl_ciphers: no cipher",
    "rediss://h?ssl_ca_certs=/no/such/file": "ssl_ca_certs: its file cannot be used",
    "rediss://h?ssl_certfile=/no/such/file": "ssl_certfile: its file cannot be used",
    "rediss://h?ssl_keyfile=/no/such/file": "ssl_keyfile: needs ssl_certfile",
}


@pytest.mark.parametrize("url", BAD)
def test_a_url_that_cannot_work_is_refused_with_what_is_allowed(url: str) -> None:
    """Before anything is asked: else it would fail at every call, or be no tier at all in silence."""
    with pytest.raises(ValueError, match=BAD[url]):
        check_redis_url(url)
    if url:
        with pytest.raises(ConfigurationError, match=f"^PERSONA_CACHE_URL: .*{BAD[url]}"):
            load_settings({"PERSONA_CACHE_URL": url})


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}@h?foo=bar",
        f"redis://:{SECRET}#x@h",
        f"redis://:{SECRET}/x@h",
        f"redis://:{SECRET}]@h",
        f"redis://user:{SECRET}@h:port",
        f"redis://h?password={SECRET}&db=x",
        f"redis://h?db={SECRET}",
        f"redis://h/{SECRET}",
        f"redis://h?%20{SECRET}%20=1",
        f"rediss://h?ssl_password={SECRET}&ssl_certfile=/no",
        f"rediss://h?ssl_ca_certs=/no/{SECRET}",
    ],
)
def test_no_error_shows_a_password(url: str) -> None:
    """It would stand in a log, or on a screen."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        check_redis_url(url)
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigurationError) as configured:
        load_settings({"PERSONA_CACHE_URL": url})
    assert SECRET not in str(configured.value)


def test_an_address_does_not_show_its_passwords() -> None:
    """It is in tracebacks and debuggers."""
    shown = repr(Address.parse(f"rediss://user:{SECRET}@h?ssl_password={SECRET}"))
    assert SECRET not in shown
    assert "user" in shown


def test_a_tier_of_a_url_that_cannot_work_is_not_made() -> None:
    """For a program without settings."""
    with pytest.raises(ValueError, match="unknown option foo"):
        RedisCache(url="redis://h?foo=bar")
    RedisCache(host="::1", port=6380)
    RedisCache(host="localhost")


def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    """At start, by its option's name."""
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(ValueError, match="ssl_ca_certs: its file cannot be used"):
        check_redis_url(f"rediss://h?ssl_ca_certs={file}")

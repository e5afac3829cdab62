"""Every form of the cache's URL that settings accept, as far as the server: a value goes there and comes back.

The contract of the caches over each transport is in test_cache_contract.py; what the forms mean, in unit/cache/test_address.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import redis
from front import KEY_PASSWORD, TlsFront
from servers import ValkeyServer

from pipeline.cache import LocalCache, RedisCache, TwoTierCache
from pipeline.cache.server.address import Address
from pipeline.settings import load_settings

PASSWORD = "p@ss/w:rd"
QUOTED = "p%40ss%2Fw%3Ard"
USER = "persona"

TCP = {
    "a password": "redis://:{quoted}@{host}/0",
    "a user": "redis://{user}:{quoted}@{host}/0",
    "a login as options": "redis://{host}?username={user}&password={quoted}",
    "a database in the path": "redis://:{quoted}@{host}/3",
    "a database as an option": "redis://:{quoted}@{host}?db=3",
    "a host by name": "redis://:{quoted}@localhost:{port}",
    "limits": "redis://:{quoted}@{host}?max_connections=2&socket_timeout=5&socket_connect_timeout=5&protocol=2",
    "a name": "redis://:{quoted}@{host}?client_name=my-program",
}
UNIX = {
    "a password": "unix://:{quoted}@{path}",
    "a user and a database": "unix://{user}:{quoted}@{path}?db=3",
    "a login as options": "unix://{path}?username={user}&password={quoted}&db=3",
}
TLS = {
    "an authority": "?ssl_ca_certs={authority}",
    "a folder of authorities": "?ssl_ca_path={by_hash}",
    "required": "?ssl_cert_reqs=required&ssl_ca_certs={authority}",
    "optional": "?ssl_cert_reqs=CERT_OPTIONAL&ssl_ca_certs={authority}",
    "no check": "?ssl_cert_reqs=none",
    "no check of the name": "?ssl_check_hostname=false&ssl_ca_certs={authority}",
    "a version": "?ssl_min_version=772&ssl_ca_certs={authority}",
    "ciphers": "?ssl_ciphers=ECDHE%2BAESGCM&ssl_ca_certs={authority}",
}
OWN = "?ssl_ca_certs={authority}&ssl_certfile={client}&ssl_keyfile={client_key}&ssl_password={key_password}"


def grant(server: ValkeyServer) -> None:
    """The server's second user: may do everything, and has the same password."""
    with server.client() as control:
        control.execute_command("ACL", "SETUSER", USER, "on", f">{PASSWORD}", "~*", "&*", "+@all")


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer(password=PASSWORD) as server:
        grant(server)
        yield server


@pytest.fixture(scope="module")
def local() -> Iterator[ValkeyServer]:
    with ValkeyServer(password=PASSWORD, unix_socket=True) as server:
        grant(server)
        yield server


@pytest.fixture(scope="module")
def front(server: ValkeyServer) -> Iterator[TlsFront]:
    with TlsFront(server.port) as front:
        yield front


def goes_there_and_back(url: str, server: ValkeyServer, namespace: str) -> None:
    """Settings take the URL, a value is written under it and read by another process's cache, in the database that it names."""
    url = load_settings({"PERSONA_CACHE_URL": url}).cache_url
    writer, reader = (
        TwoTierCache(LocalCache(), RedisCache(url=url, namespace=namespace, timeout_s=5.0)) for _ in ("writer", "reader")
    )
    with closing(writer), closing(reader):
        assert writer.set("k", ["the value"]).durable
        assert reader.fetch("k", lambda: pytest.fail("it is there")).source == "l2"
        assert reader.get("k") == ["the value"]
        assert not writer.degraded
        with redis.Redis.from_url(server.url_of(Address.parse(url).database)) as client:
            assert [name for name in client.scan_iter(f"*{namespace}*") if name.endswith(b"k")]


@pytest.mark.parametrize("form", TCP)
def test_over_tcp(server: ValkeyServer, namespace: str, form: str) -> None:
    """Login, database and limits, in the URL's parts and as options."""
    host = f"127.0.0.1:{server.port}"
    goes_there_and_back(TCP[form].format(host=host, port=server.port, quoted=QUOTED, user=USER), server, namespace)


@pytest.mark.parametrize("form", UNIX)
def test_over_a_sockets_path(local: ValkeyServer, namespace: str, form: str) -> None:
    """A socket has no port to keep alive, and its database no place in the path."""
    goes_there_and_back(UNIX[form].format(path=local.unix_socket, quoted=QUOTED, user=USER), local, namespace)


def test_over_a_sockets_path_with_a_space(tmp_path: Path, local: ValkeyServer, namespace: str) -> None:
    """Written as %20."""
    assert local.unix_socket is not None
    link = local.directory / "a space"
    link.symlink_to(local.unix_socket)
    goes_there_and_back(f"unix://:{QUOTED}@{str(link).replace(' ', '%20')}", local, namespace)


@pytest.mark.parametrize("form", TLS)
def test_over_tls(front: TlsFront, server: ValkeyServer, namespace: str, form: str) -> None:
    """However much of the server's certificate is checked."""
    made = front.certificates
    options = TLS[form].format(authority=made.authority, by_hash=made.by_hash)
    goes_there_and_back(f"rediss://{USER}:{QUOTED}@localhost:{front.port}/3{options}", server, namespace)


def test_over_tls_with_a_certificate_of_ones_own(server: ValkeyServer, namespace: str) -> None:
    """A server that asks for one is told it, its key is under a password; without it there is no L2."""
    with TlsFront(server.port, mutual=True) as front:
        made = front.certificates
        options = OWN.format(authority=made.authority, client=made.client, client_key=made.client_key, key_password=KEY_PASSWORD)
        goes_there_and_back(f"rediss://:{QUOTED}@127.0.0.1:{front.port}/0{options}", server, namespace)
        url = f"rediss://:{QUOTED}@127.0.0.1:{front.port}/0?ssl_ca_certs={made.authority}"
        with closing(TwoTierCache(LocalCache(), RedisCache(url=url, namespace=namespace, timeout_s=5.0))) as cache:
            assert cache.get_or_compute("k", lambda: "computed") == "computed"
            assert cache.degraded

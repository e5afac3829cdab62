"""How the URLs' options of TLS reach each library."""

from __future__ import annotations

import ssl

import pytest

from pipeline.settings import load_settings
from workers.queue.celery_settings import celery_settings
from workers.queue.tls.options import library_options, without_tls_options

QUERY = "?ssl_check_hostname=false&ssl_min_version=772&ssl_ciphers=DEFAULT"


def test_each_library_has_the_same_options_and_its_url_has_none() -> None:
    """Celery's results would leave out three of these four, Flower and beat all."""
    settings = load_settings({"PERSONA_BROKER_URL": f"rediss://:pw@host/0{QUERY}&credential_provider=x.Y"})
    found = celery_settings(settings)
    assert found["broker_use_ssl"] == found["redis_backend_use_ssl"] == found["redbeat_redis_use_ssl"]
    assert found["broker_use_ssl"] == {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": False,
        "ssl_min_version": ssl.TLSVersion.TLSv1_3,
        "ssl_ciphers": "DEFAULT",
    }
    assert found["broker_url"] == found["redbeat_redis_url"] == "rediss://:pw@host/0?credential_provider=x.Y"
    assert found["result_backend"] == "rediss://:pw@host/1?credential_provider=x.Y"


def test_without_tls_nothing_is_said_of_it() -> None:
    """An empty dictionary would turn it on."""
    assert not [name for name in celery_settings(load_settings({})) if name.endswith("use_ssl")]


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("", {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None}),
        ("?ssl_check_hostname=no", {"cert_reqs": ssl.CERT_REQUIRED}),
        ("?ssl_cert_reqs=none", {"cert_reqs": ssl.CERT_NONE}),
        ("?ssl_cert_reqs=none&ssl_min_version=771", {"cert_reqs": ssl.CERT_NONE, "tls_minimum_version": ssl.TLSVersion.TLSv1_2}),
    ],
)
def test_rabbitmqs_client_has_them_by_its_own_names(query: str, options: dict[str, object]) -> None:
    """`server_hostname` is what has the name compared: kombu puts the URL's there."""
    url = f"amqps://user:pw@host//{query}"
    assert library_options(url) == options
    assert without_tls_options(url) == "amqps://user:pw@host//"

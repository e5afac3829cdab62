"""Celery's own variables, which name servers that the settings do not."""

from __future__ import annotations

import pytest

from pipeline.settings import load_settings
from workers.queue.factory import FOREIGN_VARIABLES, not_obeyed

OURS = {"PERSONA_BROKER_URL": "rediss://broker.example:6379/0", "PERSONA_RESULT_URL": "rediss://results.example:6379/1"}


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FOREIGN_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("options", ["", "?ssl_cert_reqs=required", "?ssl_cert_reqs=CERT_REQUIRED"])
def test_the_same_servers_are_obeyed_however_they_are_written(options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings say of each `rediss://` how certificates are checked; no other program need say so."""
    for name in FOREIGN_VARIABLES:
        monkeypatch.setenv(
            name, OURS["PERSONA_RESULT_URL" if name == "CELERY_RESULT_BACKEND" else "PERSONA_BROKER_URL"] + options
        )
    assert not_obeyed(load_settings(OURS)) == []


@pytest.mark.parametrize(
    "other",
    [
        "rediss://other.example:6379/0",
        "rediss://broker.example:6379/1",
        "redis://broker.example:6379/0",
        "rediss://broker.example:6379/0?ssl_ca_certs=ca.pem",
    ],
)
def test_another_server_or_another_way_to_it_is_told(other: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", other)
    assert not_obeyed(load_settings(OURS)) == ["CELERY_BROKER_URL"]


def test_an_empty_variable_names_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "")
    assert not_obeyed(load_settings(OURS)) == []

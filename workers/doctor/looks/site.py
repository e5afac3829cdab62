"""Flower and the model's endpoint, by one request each."""

from __future__ import annotations

import http.client
import json
import time
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

from workers.doctor.seen import Site

MOST_BYTES = 1_000_000


def flower_at(url: str, timeout_s: float) -> Site:
    """Its first page, without a login."""
    return _get(url, "", {}, timeout_s)[0]


def model_at(url: str, key: str, timeout_s: float) -> Site:
    """The list of its models, which costs nothing."""
    site, body = _get(url, "/models", {"Authorization": f"Bearer {key}"} if key else {}, timeout_s)
    return Site(url=site.url, status=site.status, away=site.away, took_s=site.took_s, models=_models(body))


def _get(url: str, path: str, headers: dict[str, str], timeout_s: float) -> tuple[Site, bytes]:
    parts = urlsplit(url)
    kind: Any = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    shown = f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"
    began_s = time.monotonic()
    with closing(kind(parts.hostname, parts.port, timeout=timeout_s)) as connection:
        try:
            connection.request("GET", (parts.path.rstrip("/") + path) or "/", headers=headers)
            answer = connection.getresponse()
            body = answer.read(MOST_BYTES)
        except (OSError, http.client.HTTPException) as error:
            away = f"no answer within {timeout_s:g} s" if isinstance(error, TimeoutError) else _cause(error)
            return Site(url=shown, away=away, took_s=time.monotonic() - began_s), b""
    return Site(url=shown, status=answer.status, took_s=time.monotonic() - began_s), body


def _cause(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def _models(body: bytes) -> tuple[str, ...]:
    try:
        return tuple(str(each["id"]) for each in json.loads(body)["data"])
    except (ValueError, TypeError, KeyError):
        return ()

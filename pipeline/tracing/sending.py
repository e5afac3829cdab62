"""Spans on their way to the collector: OTLP over HTTP, by the variables of OpenTelemetry."""

from __future__ import annotations

import gzip
import http.client
import logging
import os
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from pipeline.errors import ConfigurationError

DEFAULT_ENDPOINT: Final = "http://localhost:4318"
BATCH_BYTES: Final = 1 << 20
EVERY_S: Final = 0.5
AWAY_PAUSE_S: Final = 2.0
MOST_BYTES: Final = 16 << 20
"""Of spans that wait while the collector is away. Then the oldest go."""
_PASSING: Final = (408, 429, 502, 503, 504)

logger: Final = logging.getLogger(__name__)


class Collector(NamedTuple):
    """Where spans go."""

    url: str
    headers: Mapping[str, str] = {}
    timeout_s: float = 10.0
    gzipped: bool = False
    certificate: str = ""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Collector:
        """By OTEL_EXPORTER_OTLP_ENDPOINT and its like. Raises ConfigurationError naming the variable; never shows its value."""
        url = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
        if not url:
            url = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "") or DEFAULT_ENDPOINT
            url = f"{url.rstrip('/')}/v1/traces"
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
        except ValueError:
            usable = False
        if not usable:
            raise ConfigurationError("OTEL_EXPORTER_OTLP_ENDPOINT: expected http://host:4318 or https://...")
        protocol = _of(environ, "PROTOCOL") or "http/protobuf"
        if protocol != "http/protobuf":
            raise ConfigurationError("OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf; the collector's port for it is 4318")
        try:
            timeout_s = float(_of(environ, "TIMEOUT") or 10.0)
        except ValueError:
            raise ConfigurationError("OTEL_EXPORTER_OTLP_TIMEOUT: expected seconds") from None
        pairs = [pair.partition("=") for pair in _of(environ, "HEADERS").split(",") if "=" in pair]
        headers = {unquote(name).strip(): unquote(value).strip() for name, _, value in pairs}
        if any(not f"{name}{value}".isprintable() or not f"{name}{value}".isascii() for name, value in headers.items()):
            raise ConfigurationError("OTEL_EXPORTER_OTLP_HEADERS: holds what no header can carry; expected name=value,...")
        return cls(url, headers, max(0.1, timeout_s), _of(environ, "COMPRESSION") == "gzip", _of(environ, "CERTIFICATE"))


def _of(environ: Mapping[str, str], name: str) -> str:
    return environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}", "") or environ.get(f"OTEL_EXPORTER_OTLP_{name}", "")


class Sender:
    """Sends parts to a collector. For one thread. Never raises because the collector is away: the log says so once, and once when
    it is back."""

    def __init__(self, collector: Collector, clock: Callable[[], float] = time.monotonic) -> None:
        self._collector = collector
        self._clock = clock
        self._parts = urlsplit(collector.url)
        self._connection: http.client.HTTPConnection | None = None
        self._away = False
        self._pause_ends_s = 0.0
        self.refused = 0
        """How many spans' parts the collector did not want, and will not want another time."""

    @property
    def pausing(self) -> bool:
        """Whether it is not to be tried again yet."""
        return self._clock() < self._pause_ends_s

    def send(self, head: bytes, scope: bytes, parts: Sequence[bytes]) -> bool:
        """Whether these are done with: the collector has them, or does not want them."""
        if not parts:
            return True
        body = request(head, scope, parts)
        headers = {"Content-Type": "application/x-protobuf", "User-Agent": "persona-worker", **self._collector.headers}
        if self._collector.gzipped:
            body, headers["Content-Encoding"] = gzip.compress(body, 5), "gzip"
        try:
            status, pause_s = self._post(body, headers)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._drop()
            return self._failed(type(error).__name__, AWAY_PAUSE_S)
        if status < 300:
            if self._away:
                logger.warning("traces.sent_again: the collector takes spans")
            self._away = False
            return True
        if status in _PASSING:
            return self._failed(f"HTTP {status}", pause_s)
        self._failed(f"HTTP {status}", 0.0)
        self.refused += len(parts)
        return True

    def close(self) -> None:
        self._drop()

    def _failed(self, why: str, pause_s: float) -> bool:
        if not self._away:
            logger.warning("traces.not_sent (%s): the collector takes no spans; requests are not held up (told once)", why)
        self._away = True
        self._pause_ends_s = self._clock() + pause_s
        return False

    def _post(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, float]:
        for again in (True, False):
            fresh = self._connection is None
            connection = self._connection or self._connect()
            try:
                connection.request("POST", self._path, body, dict(headers))
                response = connection.getresponse()
                response.read(1 << 16)
                if not response.isclosed():
                    self._drop()
                asked = response.getheader("Retry-After") or ""
                return response.status, min(60.0, float(asked)) if asked.isdecimal() else AWAY_PAUSE_S
            except (ConnectionError, http.client.BadStatusLine):
                self._drop()
                if fresh or not again:  # else it lay idle, and the collector had closed it
                    raise
        raise ConnectionError  # not reached: the second turn returns or raises

    @property
    def _path(self) -> str:
        return (self._parts.path or "/") + (f"?{self._parts.query}" if self._parts.query else "")

    def _connect(self) -> http.client.HTTPConnection:
        host, port, timeout_s = self._parts.hostname or "", self._parts.port, self._collector.timeout_s
        if self._parts.scheme == "https":
            context = ssl.create_default_context(cafile=self._collector.certificate or None)
            self._connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def request(head: bytes, scope: bytes, parts: Sequence[bytes]) -> bytes:
    """An ExportTraceServiceRequest of these parts, each the spans of a unit: as `pipeline.tracing.wire` writes them."""
    return _field(1, head + _field(2, scope + b"".join(parts)))


def _field(number: int, payload: bytes) -> bytes:
    """A field of protobuf that holds a message."""
    length, sized = len(payload), bytearray([number << 3 | 2])
    while length > 0x7F:
        sized.append(length & 0x7F | 0x80)
        length >>= 7
    sized.append(length)
    return bytes(sized) + payload


def resource_of(environ: Mapping[str, str], role: str, instance: str, version: str) -> dict[str, str]:
    """Whose spans they are: OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME win."""
    found = {"service.name": f"persona-{role}", "service.version": version, "service.instance.id": instance}
    for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        name, equals, value = pair.partition("=")
        if equals and name.strip():
            found[name.strip()] = unquote(value.strip())
    if name := environ.get("OTEL_SERVICE_NAME", ""):
        found["service.name"] = name
    return found


def sampler_of(environ: Mapping[str, str]) -> Callable[[int], bool]:
    """Whether a trace that begins here is recorded: OTEL_TRACES_SAMPLER. Of one that goes on here its beginning decides, as with
    every `parentbased_` sampler. Raises ConfigurationError naming the variable."""
    name = environ.get("OTEL_TRACES_SAMPLER", "") or "parentbased_always_on"
    kind = name.removeprefix("parentbased_")
    if kind == "always_on":
        return lambda _: True
    if kind == "always_off":
        return lambda _: False
    if kind != "traceidratio":
        raise ConfigurationError("OTEL_TRACES_SAMPLER: expected parentbased_ with always_on, always_off or traceidratio")
    try:
        ratio = float(environ.get("OTEL_TRACES_SAMPLER_ARG", "") or 1.0)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise ConfigurationError("OTEL_TRACES_SAMPLER_ARG: expected a share from 0 to 1")
    bound = round(ratio * (1 << 64))
    return lambda trace_id: trace_id & 0xFFFF_FFFF_FFFF_FFFF < bound


def is_disabled(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry is off for the whole program: OTEL_SDK_DISABLED."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or environ.get("OTEL_TRACES_EXPORTER", "") == "none"


def instance_name() -> str:
    return f"{os.uname().nodename}/{os.getpid()}"

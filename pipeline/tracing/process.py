"""This process's tracer, and the thread by which the spans of a program that is no worker go to the collector."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from pipeline.cache.locks import Lock, begins_anew_in_children
from pipeline.errors import MissingExtraError

if TYPE_CHECKING:
    from pipeline.tracing.relaying import Waiting
    from pipeline.tracing.spans import Tracer, Unit

CLOSE_S: Final = 3.0
"""How long a program that ends waits for its collector."""
SPAN_BYTES: Final = 1 << 10
"""What a span that waits takes here, about."""

_tracer: Tracer | None = None
_outgoing: Outgoing | None = None


def tracer_here() -> Tracer | None:
    """See `pipeline.tracing.tracer_of`, which asks this."""
    global _tracer, _outgoing  # noqa: PLW0603 - one a process, made at its first use
    from pipeline.tracing.sending import is_disabled

    if is_disabled(os.environ):
        return None
    if _tracer is None:
        _outgoing = Outgoing(os.environ, "client")
        _tracer = tracer_to(_outgoing.put, os.environ)
    return _tracer


def close() -> None:
    """Send what waits, for CLOSE_S at most. What comes later is sent by a thread that is begun anew."""
    if _outgoing is not None:
        _outgoing.close()


def provide(tracer: Tracer) -> None:
    """Have `tracer_here` return this one, here and in the children forked from now on."""
    global _tracer  # noqa: PLW0603 - as above
    _tracer = tracer


def tracer_to(sink: Callable[[Unit], None], environ: Mapping[str, str]) -> Tracer:
    """Raises ConfigurationError naming the variable of OpenTelemetry."""
    from pipeline.tracing.caller import place_of_caller
    from pipeline.tracing.sending import sampler_of
    from pipeline.tracing.spans import Tracer

    return Tracer(sink, samples=sampler_of(environ), caller=place_of_caller)


def check_extra() -> None:
    """Raises MissingExtraError if what the tracer needs is not installed."""
    try:
        import opentelemetry.proto.trace.v1.trace_pb2
        import opentelemetry.trace  # noqa: F401
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("opentelemetry", "google"):
            raise
        raise MissingExtraError("opentelemetry-proto", "PERSONA_TRACES", "traces") from None


class Outgoing:
    """Units on their way to the collector, by a thread that lives while there are some. Thread-safe, and bounded: while the
    collector is away the oldest units go. A forked child begins with none, and with a thread and a connection of its own."""

    def __init__(self, environ: Mapping[str, str], role: str) -> None:
        """Connects on first use. Raises ConfigurationError naming the variable."""
        from pipeline.tracing.sending import Collector, instance_name, resource_of

        check_extra()
        from pipeline.tracing import wire
        from pipeline.tracing.stencil import written

        version = version_of_this()
        self._collector = Collector.of(environ)
        self._head = wire.head(resource_of(environ, role, instance_name(), version))
        self._scope = wire.scope(version)
        self._encode = written
        self._lock = Lock()
        self.begin_anew()
        begins_anew_in_children(self)
        atexit.register(self.close)

    def begin_anew(self) -> None:
        from pipeline.tracing.relaying import Waiting

        self._waiting: Waiting[Unit] = Waiting()
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._closing = False

    def put(self, unit: Unit) -> None:
        self._waiting.put(unit, SPAN_BYTES * len(unit.spans))
        if self._thread is None:
            self._begin()

    def _begin(self) -> None:
        with self._lock:
            if self._thread is not None or self._closing:
                return
            thread = threading.Thread(target=self._run, name="traces", daemon=True)
            self._thread = thread
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending: `close` sends what is left
                self._thread = None

    def _run(self) -> None:
        from pipeline.tracing.relaying import send_all
        from pipeline.tracing.sending import Sender

        sender, ended = Sender(self._collector), self._ended
        send_all(self._waiting, sender, self._head, self._scope, encode=self._encode, ended=ended, last_s=0.0)

    def close(self) -> None:
        """Send what is left, for CLOSE_S at most."""
        with self._lock:
            thread, self._closing = self._thread, True
            self._ended.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_S)
        with self._lock:
            self._thread, self._closing = None, False
            self._ended = threading.Event()


def version_of_this() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("persona-worker")
    except PackageNotFoundError:
        return "0"

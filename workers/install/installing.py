"""`install`: one call for an app, or for a program that has none."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any, Final

import billiard
from celery import Celery
from celery.signals import worker_process_shutdown

from pipeline.assembly import Equipment, build_cache
from pipeline.cache import TwoTierCache, provide_default_cache
from pipeline.cache.locks import Lock
from pipeline.errors import ConfigurationError
from pipeline.settings import Settings, discover_settings
from pipeline.tracing import send_the_rest
from workers.install.node import Node, join, node_of
from workers.install.parent import Parent
from workers.queue.broadcast import Announcer
from workers.queue.outbox import Outbox

STEP: Final = "workers.install.step:FollowStep"


class InstallError(ConfigurationError):
    """The call of `install` cannot be met. The message is one sentence that says why."""


class Installed:
    """What `install` gives: `cache`, and the way to end it."""

    def __init__(self, app: Celery | None, node: Node, build: Callable[[], TwoTierCache], outbox: Outbox | None) -> None:
        self.app = app
        self.node = node
        self._build = build
        self._outbox = outbox
        self._lock = Lock()
        self._cache: TwoTierCache | None = None
        self._parent: Parent | None = None

    @property
    def settings(self) -> Settings:
        return self.node.settings

    @property
    def cache(self) -> TwoTierCache:
        """The program's cache, which `@cached` uses by default. One object before and after a fork: each child has an L1,
        connections and leases of its own."""
        cache = self._cache
        if cache is None:
            made = self._build()
            with self._lock:
                cache = self._cache
                if cache is None:
                    cache = self._cache = made
        return cache

    def follow(self) -> None:
        """Have this process follow the log for the children that it forks from now on, as a worker's main process does: for the
        parent of a web server (gunicorn with `preload_app`). They then need no listener, and no beats, of their own.

        Costs this process two threads. It must not end before its children; they would go on by the lease. Harmless twice.
        """
        if self._parent is None:
            self._parent = Parent(self.node)

    def close(self) -> None:
        """End this process's part: connections, the listener, what is not yet announced. A later use begins anew."""
        if self._parent is not None:
            self._parent.close()
        if self._outbox is not None:
            self._outbox.close()
        if self._cache is not None:
            self._cache.close()


_installed: Installed | None = None


def install(
    app: Celery | None = None,
    *,
    cache_url: str | None = None,
    namespace: str | None = None,
    settings: Settings | None = None,
    step: str = STEP,
    default: bool = True,
    **others: Any,
) -> Installed:
    """Give this program the coherent cache. Call it once, where the app is made.

    With a Celery `app`, each of its workers becomes a node: its main process follows the invalidation log for all its pool
    children, whatever the pool; and what any program of the app invalidates is broadcast over the app's own broker. Nothing else
    about the app changes: its tasks, queues, routes, transport and signals. Without an app (gunicorn, uvicorn, a script) the
    program follows by a thread of its own, begun at its first read.

    `cache_url`: the Redis or Valkey that keeps entries and log, redis://, rediss:// or unix://; else `PERSONA_CACHE_URL`, or the
    stack that runs here. `namespace`: the prefix of every key there; all programs that share entries say the same. `others` are
    fields of `pipeline.settings.Settings`, such as `staleness_bound_s` or `strict`; what is not given comes from the environment.

    For the product's own app: `settings` in the place of all that, `step` (what its workers' consumer runs), and not `default`,
    by which this cache would become that of `@cached`.

    Raises InstallError, one sentence: there is no cache URL, it was called before in this program, the app's worker has begun
    already, or the memory that the node's processes share cannot be made. ConfigurationError for a setting that does not fit.
    """
    global _installed  # noqa: PLW0603 - one a program, made here
    if app is not None and not isinstance(app, Celery):
        raise InstallError(f"install: expected a Celery app or none, got {type(app).__name__}")
    if _installed is not None or (app is not None and node_of(app) is not None):
        raise InstallError("install: this program has called it before; call it once, where the app is made")
    if settings is None:
        settings = _settings({"cache_url": cache_url, "cache_namespace": namespace, **others})
        if not settings.cache_url:
            raise InstallError("install: no cache URL; pass cache_url='redis://host:port/0', or set PERSONA_CACHE_URL")
    if app is not None and _has_begun(app):
        raise InstallError(
            f"install: the worker of app {app.main!r} has begun, and its children would not share the node's memory; call it "
            "where the app is made, in the module that `celery -A` names"
        )
    try:
        node = Node(settings)
    except (OSError, MemoryError) as error:
        raise InstallError(f"install: the memory that a node's processes share cannot be made: {error or 'no memory'}") from error
    outbox = announce = None
    if app is not None:
        join(app, node)
        app.steps["consumer"].add(step)
        if default:
            outbox = Outbox(app)
            announce = Announcer(app, settings, outbox)
    whole = settings
    installed = Installed(app, node, lambda: build_cache(whole, Equipment(bus=node.bus, announce=announce)), outbox)
    if default:
        provide_default_cache(lambda: installed.cache)
    worker_process_shutdown.connect(_end_child)
    _installed = installed
    return installed


def _end_child(**_: Any) -> None:
    """A pool child ends without running exit handlers."""
    if _installed is not None:
        _installed.close()
    send_the_rest()


def _settings(given: dict[str, Any]) -> Settings:
    """The settings of the environment, with these on top."""
    fields = {name: value for name, value in given.items() if value is not None}
    if unknown := sorted(fields.keys() - Settings.model_fields.keys()):
        raise InstallError(f"install: unknown setting {unknown[0]!r}; the fields of pipeline.settings.Settings are known")
    return discover_settings(overrides=fields)


def _has_begun(app: Celery) -> bool:
    """Whether a worker of this app has put itself together in this process, or in the one that this was forked from."""
    if not getattr(app.loader, "worker_initialized", False):
        return False
    if billiard.current_process().name != "MainProcess":
        return True
    worker = getattr(sys.modules.get("celery.worker.worker"), "WorkController", None)
    # Celery keeps no list of them. One that has made its blueprint has made its pool, and has read the app's steps.
    return worker is not None and any(
        isinstance(each, worker) and each.app is app and each.blueprint is not None for each in gc.get_objects()
    )

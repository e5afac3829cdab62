"""The operations of a program, as calls of the real cache; each is written down in the world's history."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from coherence.history import Applied, Made, Written

from pipeline.cache import MISS, AsOf, Found, Grace, Invalidation, Kind, TwoTierCache
from schedules.programs import DEPS, Op
from schedules.tasks import ALWAYS, WAITING, Run, point
from schedules.world import World, me, meant_by


class Acts:
    """What the processes of a world do."""

    def __init__(self, world: World) -> None:
        self._world = world

    def do(self, process: str, op: Op) -> None:
        """One operation, as a line of a program names it."""
        what, *given = op
        point(ALWAYS, f"{process} begins: {' '.join(op)}", None)
        if process == "!":
            getattr(self._world, what)(*given)
        elif process == "n":
            getattr(self, f"_main_{what}")(process, *given)
        else:
            getattr(self, f"_{what}")(process, *given)

    def _get(self, process: str, key: str) -> None:
        """The fast path, which does not say where the value came from: judged as what L1 may serve."""
        began_ns, trouble = self._world.clock.now_ns(), self._world.trouble(process)
        value = self._world.cache(process).get(key)
        if value is not MISS:
            self._world.served(process, key, Found(value, "l1"), began_ns, began_ns, (), trouble)

    def _look(self, process: str, key: str) -> None:
        self._found(process, key, lambda cache: cache.lookup(key))

    def _peek(self, process: str, key: str) -> None:
        self._found(process, key, lambda cache: cache.peek(key))

    def _stale(self, process: str, key: str) -> None:
        self._found(process, key, lambda cache: cache.lookup(key, stale_age_s=self._world.options.grace))

    def _found(self, process: str, key: str, look: Callable[[TwoTierCache], Any]) -> None:
        began_ns, trouble = self._world.clock.now_ns(), self._world.trouble(process)
        found = look(self._world.cache(process))
        if found is not MISS:
            self._world.served(process, key, found, began_ns, began_ns, (), trouble)

    def _fetch(self, process: str, key: str) -> None:
        self._fetched(process, key)

    def _ahead(self, process: str, key: str) -> None:
        """What L2 has will not do, so that it is not asked."""
        self._fetched(process, key, least_s=self._world.options.ttl)

    def _respond(self, process: str, key: str) -> None:
        """As the pipeline answers: an answer that is computed from a routing which was read before."""
        operation_ns = self._world.clock.now_ns()
        as_of = self._world.cache(process).as_of()
        routed = self._fetched(process, "g", as_of=as_of, operation_ns=operation_ns)
        as_of_answer = None if self._world.options.stage else as_of
        self._fetched(process, key, as_of=as_of_answer, operation_ns=operation_ns, inputs=lambda: dict(routed["versions"]))

    def _fetched(
        self,
        process: str,
        key: str,
        *,
        as_of: AsOf | None = None,
        operation_ns: int | None = None,
        inputs: Callable[[], dict[str, int]] | None = None,
        **given: Any,
    ) -> dict[str, Any]:
        options = self._world.options
        direct = (key, *(dep for dep in DEPS[key] if dep == "u"))
        began_ns, trouble = self._world.clock.now_ns(), self._world.trouble(process)
        grace = Grace(options.grace, refresh=lambda: None) if options.grace else None

        def compute() -> dict[str, Any]:
            made, made_ns = f"v{self._world.number()}", self._world.clock.now_ns()
            versions = {}
            for name in direct:
                point(ALWAYS, f"{process} reads {name} at its source", None)
                versions[name] = self._world.source[name]
            of_inputs = inputs or (lambda: self._read_deps(process, key, operation_ns or began_ns))
            for name, version in of_inputs().items():
                versions[name] = min(version, versions.get(name, version))
            self._world.history.append(Made(made, key, versions, made_ns))
            return {"made": made, "versions": versions}

        kind = Kind(ttl=options.ttl)
        found = self._world.cache(process).fetch(key, compute, kind, deps=DEPS[key], as_of=as_of, grace=grace, **given)
        self._world.served(process, key, found, began_ns, operation_ns or began_ns, direct, trouble)
        value: dict[str, Any] = found.value
        return value

    def _read_deps(self, process: str, key: str, operation_ns: int) -> dict[str, int]:
        """The values that it is computed from, through the cache."""
        versions: dict[str, int] = {}
        for dep in DEPS[key]:
            if dep != "u":
                versions |= self._fetched(process, dep, operation_ns=operation_ns)["versions"]
        return versions

    def _fill(self, process: str, key: str) -> None:
        as_of = self._world.cache(process).as_of()
        point(ALWAYS, f"{process} reads {key} at its source", None)
        made, versions = f"v{self._world.number()}", {key: self._world.source[key]}
        self._world.history.append(Made(made, key, versions, self._world.clock.now_ns()))
        self._world.cache(process).fill(key, {"made": made, "versions": versions}, as_of=as_of)

    def _inv(self, process: str, *patterns: str) -> None:
        keys = tuple(dict.fromkeys(key for pattern in patterns for key in meant_by(pattern)))
        write = partial(self._write, process, patterns, keys, lambda _: self._world.cache(process).invalidate(*patterns))
        if "s" in keys:
            self._alone(write)
        else:
            write()

    def _set(self, process: str, key: str) -> None:
        def act(versions: dict[str, int]) -> Invalidation:
            made = f"v{self._world.number()}"
            self._world.history.append(Made(made, key, versions, self._world.clock.now_ns()))
            return self._world.cache(process).set(key, {"made": made, "versions": versions}, self._world.options.ttl)

        self._alone(lambda: self._write(process, (key,), (key,), act))

    def _del(self, process: str, key: str) -> None:
        self._alone(lambda: self._write(process, (key,), (key,), lambda _: self._world.cache(process).delete(key)))

    def _alone(self, write: Callable[[], None]) -> None:
        """Two that set without agreeing on an order leave the older value by right."""
        if self._world.setting:
            return
        self._world.setting = True
        try:
            write()
        finally:
            self._world.setting = False

    def _write(self, process: str, patterns: tuple[str, ...], keys: tuple[str, ...], act: Callable[[Any], Any]) -> None:
        """Change the source, then tell the cache, and write down its acknowledgement; nothing if it is broken off."""
        written, mine = f"w{self._world.number()}", me()
        for key in keys:
            self._world.source[key] += 1
        versions = {key: self._world.source[key] for key in keys}
        self._world.writing[mine] = (written, versions)
        began_ns = self._world.clock.now_ns()
        act(versions)
        self._world.history.append(
            Written(
                id=written,
                pid=self._world.pids[process],
                patterns=patterns,
                versions=versions,
                began_ns=began_ns,
                ended_ns=self._world.clock.now_ns(),
                durable=self._world.durable[mine],
            )
        )

    def _refresh(self, process: str) -> None:
        self._world.cache(process).refresh()

    def _sweep(self, process: str) -> None:
        self._world.cache(process).sweep()

    def _warm(self, process: str, *keys: str) -> None:
        self._world.cache(process).warm(dict.fromkeys(keys, Any))

    def _forget(self, process: str) -> None:
        """Its L1 had no room."""
        self._world.cache(process).l1.clear()

    def _anew(self, process: str) -> None:
        self._world.begin_anew(process)

    # -- a main process

    def _main_hear(self, node: str, number: str = "") -> None:
        """Take in the next notice, or that one, which may have been heard before. Waits for it."""
        at = int(number) if number else self._world.heard[node]
        self._world.heard[node] = max(self._world.heard[node], at + 1)
        main = self._world.main(node)
        while len(self._world.notices) <= at:
            run = Run.current
            if run is None:
                return
            self._world.waiting.append(run.task)
            run.pause(WAITING)
        notice = self._world.notices[at]
        main.receive(notice.epoch, notice.seq, notice.patterns)
        self._world.history.append(Applied(node, notice.written, notice.versions, self._world.clock.now_ns()))

    def _main_beat(self, node: str) -> None:
        self._world.main(node).beat()

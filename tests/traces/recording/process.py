"""The programs of a workload, as `coherence.process` has them, each with a recorder: `python -m traces.recording.process`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from coherence import process
from coherence.manners import ByTask
from coherence.settings import ProcessSettings
from coherence.source import Source

from traces.recording.hooking import wrap
from traces.recording.hooks import install
from traces.recording.hooks_aio import branch
from traces.recording.recorder import Recorder


class _Recorded:
    """The programs of this process; a mutant is installed before they begin."""

    def __init__(self) -> None:
        self._recorder: Recorder | None = None

    def program(self, run: Callable[[ProcessSettings, Source], None]) -> Callable[[ProcessSettings, Source], None]:
        def recorded(settings: ProcessSettings, source: Source) -> None:
            self._recorder = Recorder(settings.directory, settings.name)
            install(self._recorder)
            run(settings, source)
            self._recorder.flush()

        return recorded

    def fork(self, fork: Callable[[Callable[[], None]], int]) -> Callable[[Callable[[], None]], int]:
        def forked(act: Callable[[], None]) -> int:
            def recorded() -> None:
                act()
                if self._recorder is not None:  # a child of a pool
                    self._recorder.flush()

            return fork(recorded)

        return forked

    def task(self, real: Callable[..., None]) -> Callable[..., None]:
        def init(manner: ByTask, *given: Any) -> None:
            if self._recorder is not None:
                branch(self._recorder)
            real(manner, *given)

        return init


def main() -> None:
    recorded = _Recorded()
    parts: dict[str, Any] = vars(process)
    for name in ("run_lone", "run_prefork", "run_threads", "run_newcomer"):
        parts[name] = recorded.program(parts[name])
    parts["_fork"] = recorded.fork(parts["_fork"])
    wrap(ByTask, "__init__", recorded.task)
    process.main()


if __name__ == "__main__":
    main()

"""All hooks. They change the classes of the process that `install` is called in, for good; after those of a mutant, if there is
one."""

from __future__ import annotations

from traces.recording import hooks_aio, hooks_node, hooks_tiers, hooks_view
from traces.recording.hooking import Names
from traces.recording.recorder import Recorder


def install(recorder: Recorder) -> None:
    """From here on what the process does is written down."""
    names = Names(recorder)
    hooks_node.install(recorder, names)
    hooks_tiers.install(recorder, names)
    hooks_view.install(recorder, names)
    hooks_aio.install(recorder, names)

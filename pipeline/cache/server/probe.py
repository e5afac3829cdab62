"""A trial of the commands and scripts that a cache needs of its server."""

from __future__ import annotations

from typing import Final

from pipeline.cache.keys import KeySpace
from pipeline.cache.server.commands import Commands, integer
from pipeline.cache.server.scripts import run_script

_KEPT_MS: Final = 1000


def probe(client: Commands, keys: KeySpace) -> None:
    """Keep a value for a second, read it, read the log's tail, run a script. Raises the errors of `Commands`."""
    with client.pipeline() as pipe:
        pipe.set(keys.probe, b"1", px=_KEPT_MS)
        pipe.get(keys.probe)
        pipe.getex(keys.tail)
        pipe.execute()
    run_script(client, "probe", [keys.tail], [], integer)

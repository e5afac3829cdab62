"""The fleet's hot set, in the cache's Redis: a bounded list of keys by how much they are asked for, which decays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import msgspec

from pipeline.cache.server.commands import Commands, several, texts
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.scripts import Script
from pipeline.errors import InvalidRequestError
from pipeline.hot.keys import HotKeys
from pipeline.hot.recent import Asked
from pipeline.models import PersonaRequest

HALF_LIFE_S: Final = 600.0
"""In so long a score halves. At a steady rate it stands at some 870 times the requests a second."""
DECAY_EVERY_S: Final = 10.0
TRACKED: Final = 2000
"""So many keys have a score: more than are hot, else a key that is asked for twice a minute would be pushed out between the two
by those that are asked for once."""
HOT: Final = 500
"""So many keys at most are hot."""
HOT_SCORE: Final = 2.0
"""From here on a key is hot: an answer that was asked for once is not computed ahead."""
FORGOTTEN_SCORE: Final = 0.25
"""Below it a key is not tracked any more: one that was asked for once after 20 minutes."""
COUNTED_AT_ONCE: Final = 256
"""So many keys, those asked for most, a process counts at once. A main process stands for all children of its node."""
IDLE_S: Final = 3600.0
"""The whole list ends so long after its last count."""
REQUEST_S: Final = 1200.0
"""A request is kept for so long after it was last asked: it holds a user's words, as the answer does."""
REQUEST_BYTES: Final = 4096
"""A longer one is not kept, so that its answer is not renewed: 500 of them are 2 MB at most."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class HotSet:
    """How much keys are asked for, by all processes. Approximate on purpose: a count lost, or counted twice, changes little.

    Nothing with a personal context may be counted: what is kept here is computed again for everybody. All methods raise
    SharedTierUnavailableError.
    """

    def __init__(self, connection: RedisConnection, keys: HotKeys, *, keeps_requests: bool = True) -> None:
        """Without `keeps_requests` no user's words are kept, and nothing can be renewed."""
        self._connection = connection
        self._keys = keys
        self._keeps_requests = keeps_requests

    def count(self, asked: Mapping[str, Asked]) -> None:
        """Add to the scores; keep the requests of those that are hot."""
        most = sorted(asked, key=lambda key: -asked[key].times)[:COUNTED_AT_ONCE]
        if not most:
            return
        counts = [part for key in most for part in (key, asked[key].times)]
        gone, hot = self._run(DECAY_EVERY_S, counts)
        self._keep({key: asked[key].request for key in map(bytes.decode, hot)}, gone)

    def decay(self) -> int:
        """Let the scores decay by the time that has passed and drop what has become too low; how many keys have one."""
        gone, _ = self._run(0.0, [])
        self._keep({}, gone)
        return self._connection.call(lambda client: client.zcard(self._keys.scores))

    def top(self, most: int = HOT) -> list[tuple[str, float]]:
        """The hot keys, highest score first."""
        if most < 1:
            return []
        pairs = self._connection.call(lambda client: client.zrevrange(self._keys.scores, 0, most - 1))
        return [(key.decode(), score) for key, score in pairs if score >= HOT_SCORE]

    def request(self, key: str) -> PersonaRequest | None:
        """A request whose answer has that key; None if none is kept, or one that is no request here, or a personal one."""
        raw = self._connection.call(lambda client: client.get(self._keys.request(key)))
        if raw is None:
            return None
        try:
            request = PersonaRequest.from_wire(_decode(raw))
        except (InvalidRequestError, msgspec.DecodeError):
            return None
        return None if request.context is not None and request.context.is_personal else request

    def forget(self, key: str) -> None:
        """Drop a key that cannot be asked for any more."""

        def command(client: Commands) -> None:
            with client.pipeline() as pipe:
                pipe.zrem(self._keys.scores, key)
                pipe.unlink(self._keys.request(key))
                pipe.execute()

        self._connection.call(command)

    def _run(self, decay_every_s: float, counts: Sequence[Any]) -> tuple[list[bytes], list[bytes]]:
        keys = [self._keys.scores, self._keys.decayed]
        times = [round(HALF_LIFE_S * 1000), round(decay_every_s * 1000)]
        arguments = [*times, TRACKED, FORGOTTEN_SCORE, round(IDLE_S * 1000), HOT, HOT_SCORE, *counts]
        return self._connection.call(lambda client: script().run(client, keys, arguments, _counted))

    def _keep(self, requests: Mapping[str, PersonaRequest], gone: Sequence[bytes]) -> None:
        """Keep these requests, and none of the keys that are gone."""
        wires = {}
        if self._keeps_requests:
            for key, request in requests.items():
                wire = _encode(msgspec.structs.replace(request, max_age_s=None))
                if len(wire) <= REQUEST_BYTES:
                    wires[self._keys.request(key)] = wire
        doomed = [self._keys.request(key.decode()) for key in gone]
        if not wires and not doomed:
            return

        def command(client: Commands) -> None:
            with client.pipeline() as pipe:
                if doomed:
                    pipe.unlink(*doomed)
                for name, wire in wires.items():
                    pipe.set(name, wire, px=round(REQUEST_S * 1000))
                pipe.execute()

        self._connection.call(command)


@cache
def script() -> Script:
    return Script.read(__file__, "count")


def _counted(reply: Any) -> tuple[list[bytes], list[bytes]]:
    """What count.lua returns."""
    gone, hot = several(2)(reply)
    return texts(gone), texts(hot)

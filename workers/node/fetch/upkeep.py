"""The life of a node's claims beside its turns: its beats, the end, and what others that ended have left."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import Any, Final, Protocol

from redis.exceptions import RedisError

from workers.node.fetch.claims import BEAT_S, Beat, Claim, Claims
from workers.node.fetch.legacy import restore_abandoned
from workers.node.guard.bounds import is_cut

logger: Final = logging.getLogger(__name__)

ABANDONED_S: Final = 60.0
"""So often it is looked whether a worker without claims, of another release, has left something; and the node names its tasks."""
RECOVERED_A_BEAT: Final = 200
UNREACHED_S: Final = 10.0
"""So long after it did not answer the broker is not asked once for each list."""

_unreturned: Final[list[tuple[str, list[str]]]] = []
"""This process's earlier names, whose claims it could not give back: the broker was away. The next connection does it."""


class Known(Protocol):
    """What the node itself knows."""

    def sources(self) -> list[str]: ...

    def known(self) -> Counter[Claim]: ...


class Upkeep:
    """Used by the thread of the loop, but for the thread of `beat_aside`, which has a connection of its own."""

    def __init__(self, channel: Any, claims: Claims, node: Known) -> None:
        self._channel = channel
        self._claims = claims
        self._node = node
        self._due_s = self._abandoned_due_s = self._unreached_until_s = 0.0
        self._strays: Counter[Claim] = Counter()
        self._stopped = threading.Event()
        self._aside: threading.Thread | None = None

    def hurry(self) -> None:
        """Beat at the next turn: there are new sources, and a claim from one that is not registered would be found by nobody."""
        self._due_s = 0.0

    def turn(self, now_s: float) -> bool:
        """Beat if it is time; whether that has put something into a queue."""
        if now_s < self._due_s:
            return False
        self._due_s = now_s + BEAT_S
        beat = self._claims.beat(self._node.sources())
        given = self._return_own() + self._return_strays(beat) + self._recover(beat)
        given += self._claims.restore_due() if beat.due else 0
        is_ours = self._channel.hooks.is_ours
        if now_s >= self._abandoned_due_s and is_ours is not None:
            self._abandoned_due_s = now_s + ABANDONED_S
            if self._channel.hooks.tasks is not None:
                self._claims.name_tasks(self._channel.hooks.tasks())
            given += restore_abandoned(self._channel, self._channel._create_client(), self._node.sources(), is_ours)
        return given > 0

    def is_known(self, task: str) -> bool:
        """Whether a node has lately named that task."""
        return self._claims.is_known(task)

    def _return_own(self) -> int:
        """What this process had under an earlier name."""
        given = 0
        while _unreturned:
            given += self._claims.take_over(*_unreturned[-1])
            _unreturned.pop()
        if given:
            logger.info("fetch.given_back: %d messages, after the connection was lost", given)
        return given

    def _return_strays(self, beat: Beat) -> int:
        """What the server claimed for a connection that broke before the reply is known to nobody: at the second look it goes
        back. (At the first, the reply may be on its way.)"""
        known = self._node.known()
        if beat.claimed <= known.total():
            self._strays = Counter()
            return 0
        unknown = Counter(claim for source in self._node.sources() for claim in self._claims.kept(source)) - known
        strays, self._strays = self._strays & unknown, unknown
        return self._claims.give_back(strays.elements(), redelivered=True)

    def return_unknown(self, source: str, now_s: float) -> None:
        """Give back what the server has claimed from that list for a wait that was ended. With several lists and no broker, only
        the first of them waits for it."""
        if now_s < self._unreached_until_s:
            return
        known = self._node.known()
        try:
            unknown = [claim for claim in self._claims.kept(source) if claim not in known]
            self._claims.give_back(unknown, redelivered=False)
        except (RedisError, OSError) as error:
            self._unreached_until_s = now_s + UNREACHED_S
            logger.warning("fetch.not_given_back (%s): of queue %s; done with a later beat", type(error).__name__, source)

    def cut_short(self, source: str) -> list[bytes]:
        """What the server has claimed from that list for a wait and is too long to be read, in its short form. None where that
        cannot be had now: then it is a stray like any other."""
        known = self._node.known()
        try:
            return [claim.item for claim in self._claims.kept(source) if is_cut(claim.item) and claim not in known]
        except (RedisError, OSError) as error:
            logger.info("fetch.not_cut (%s): of queue %s; it goes back with a later beat", type(error).__name__, source)
            return []

    def _recover(self, beat: Beat) -> int:
        given = 0
        for node in beat.silent:
            while given < RECOVERED_A_BEAT and (portion := self._claims.recover(node)):
                given += portion
                logger.warning("fetch.recovered: %d messages of %s, which has not been heard of for 10 s", portion, node)
        return given

    def beat_aside(self) -> None:
        """From now on beat from a thread: the loop does not turn any more while the last tasks run."""
        sources = self._node.sources()
        if self._aside is not None or not sources:
            return
        claims = Claims(self._channel._create_client(), self._claims.node)

        def run() -> None:
            while not self._stopped.wait(BEAT_S):
                try:
                    claims.beat(sources)
                except (RedisError, OSError):
                    continue  # the next beat may come through

        self._aside = threading.Thread(target=run, name="fetch-beat", daemon=True)
        self._aside.start()

    def leave(self, sources: list[str], settled: list[Claim]) -> None:
        """Give up what was acknowledged, and give back all else. Never raises because the broker is away."""
        self._stopped.set()
        try:
            self._claims.exchange(settled, [], 1, 0)
            given = self._claims.leave(sources)
        except (RedisError, OSError) as error:
            _unreturned.append((self._claims.node, sources))
            logger.warning("fetch.not_given_back (%s): done with the next connection, or by another node", type(error).__name__)
        else:
            if given:
                logger.info("fetch.given_back: %d messages", given)

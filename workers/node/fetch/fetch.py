"""What one channel claims, when, and what becomes of it.

*Credit* is what the consumer may still be given (Celery's prefetch count). With credit, a turn claims what is there; where
nothing is, a waiter for each list claims the next item as soon as it comes. What was claimed goes to the door first, if there is
one: it answers some. The rest is delivered within the credit; what exceeds it goes back to where it lay.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from redis.exceptions import RedisError, ResponseError

from workers.node.fetch.claims import PORTION, Claim, Claims, claims_of, node_name
from workers.node.fetch.hooks import Door, Hooks, judged
from workers.node.fetch.pause import PAUSE_S, Pause
from workers.node.fetch.queues import Queues
from workers.node.fetch.shared import FOREIGN_S, Shared
from workers.node.fetch.upkeep import Upkeep
from workers.node.fetch.waiter import BLOCK_S, Waiter
from workers.node.fetch.waits import Waits
from workers.node.guard.replies import ReplyTooLongError
from workers.node.poison import BROKEN

logger: Final = logging.getLogger(__name__)

LOOK_S: Final = 0.005
"""So often, with all slots busy, the door is shown what came in."""
QUIET_LOOK_S: Final = 0.02
"""The same while nothing comes in: a busy node of a fleet costs its broker 50 looks a second, not 200."""
SELDOM_S: Final = 1.0
"""So often the lists of lower priorities are looked at while the others are empty."""


class Fetch:
    """The claims of a channel. Used by the thread of the channel's loop, but for `settle`.

    `deliver` hands an item to the channel's consumer. Methods raise ConnectionError and OSError, as the channel's own do.
    """

    def __init__(
        self, channel: Any, deliver: Callable[[Fetch, Claim], None], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._channel = channel
        self._hooks: Hooks = channel.hooks
        self._deliver = deliver
        self._clock = clock
        self._claims = Claims(channel._create_client(), node_name(socket.gethostname(), os.getpid()))
        self.upkeep = Upkeep(channel, self._claims, self)
        self._waits = Waits(channel, self._rung)
        self._queues = Queues(channel)
        self._shared = Shared(self._claims)
        self._thread = threading.get_ident()
        self._settled: deque[Claim] = deque()
        self._held: Counter[Claim] = Counter()
        self._undelivered: deque[Claim] = deque()
        """Of those: what the consumer is still to be given. It waits here only while the server refuses."""
        self._more = True
        self._window = PORTION
        self._seldom_due_s = 0.0
        self._pause = Pause()
        self._pause_of_waits = Pause()
        """A full server gives its messages away to scripts, and refuses to wait for more."""
        self._seen: dict[str, bytes] = {}
        self._looking = False
        self._look_s = LOOK_S
        self._closed = False

    # -- what is fetched

    def add(self, queue: str, *, shared: bool = False) -> None:
        """Fetch from this queue from the next turn on. `shared`: other programs put messages of their own there."""
        if queue in self._waits:
            return
        self._waits.add(queue, claims_of(self._claims.node, queue), claiming=not shared)
        if shared:
            for source in self._queues.lists_of(queue):
                self._shared.add(source)
        else:
            self._queues.names.append(queue)
        self.upkeep.hurry()
        self._more = True
        self._waits.ring()

    def remove(self, queue: str) -> None:
        """Fetch nothing more from it. What is claimed stays claimed; what the server had claimed for a wait goes back."""
        if queue not in self._waits:
            return
        self._waits.end(queue)
        self._queues.remove(queue)
        for source in self._queues.lists_of(queue):
            self._shared.remove(source)
        self.upkeep.return_unknown(queue, self._clock())

    # -- a turn of the loop

    def turn(self) -> None:
        """Beat if it is time, give up what was acknowledged, and claim what there is credit for."""
        if self._closed:
            return
        now_s = self._clock()
        if self._pause.goes_on(now_s):
            return
        try:
            self._turn(now_s)
        except ResponseError as error:  # it is full, read-only, or not allowed: it may be well again, and nothing is lost
            self._hold(error, now_s)

    def _turn(self, now_s: float) -> None:
        if self._queues.names or self._shared:
            self._more = self.upkeep.turn(now_s) or self._more
            self._more = self._waits.break_off_overdue(now_s) or self._pause_of_waits.goes_on(now_s) or self._more
        if self._undelivered:
            self._deliver_some()
        credit = self._credit()
        if credit > 0 and self._more and self._queues.names:
            limit = credit if self._hooks.door is None else max(credit, self._window)
            claims = self._exchange([*self._queues.names, *self._queues.seldom()], limit)
            self._seldom_due_s = now_s + SELDOM_S
            self._more = bool(claims)
            if claims:
                self._queues.served(claims[-1].source)
                self._take(claims)
                self._waits.ring()
        elif credit > 0 and now_s >= self._seldom_due_s and self._queues.names:
            self._seldom_due_s = now_s + SELDOM_S
            shared = [source for source in self._shared if source not in self._waits]
            if self._settled or self._claims.any_in([*self._queues.seldom(), *shared]):
                self._take(self._exchange(self._queues.seldom(), credit))
            else:
                self._shared.look_later(shared, now_s + SELDOM_S)
        elif self._settled:
            self._exchange([], 0)
        if credit > 0:
            self._take_from_shared(now_s)
        if self._credit() > 0:
            if not self._pause_of_waits.goes_on(now_s):
                self._wait(now_s)
        elif self._hooks.door is not None:
            self._look_past_soon()

    def _exchange(self, sources: Sequence[str], limit: int) -> list[Claim]:
        settled = list(self._settled)
        claims = self._claims.exchange(settled, sources, len(self._queues.names), limit)
        for _ in settled:
            self._settled.popleft()
        return claims

    def _take(self, claims: Sequence[Claim]) -> None:
        """Have the door answer some, deliver others, and give back the rest."""
        self._held.update(claims)
        if self._hooks.door is not None:
            claims = self._through_the_door(self._hooks.door, claims)
        self._undelivered.extend(claims)
        self._deliver_some()

    def _deliver_some(self) -> None:
        while self._undelivered:
            if self._credit() <= 0:
                self._give_back(list(self._undelivered))
                self._undelivered.clear()
                self._window = 1
                return
            self._deliver(self, self._undelivered[0])
            self._undelivered.popleft()
        self._window = min(PORTION, 2 * self._window)

    def _through_the_door(self, door: Door, claims: Sequence[Claim]) -> Sequence[Claim]:
        """Those that are not answered there."""
        answers = judged(door, [claim.item for claim in claims])
        found = [answer for answer in answers if answer is not None]
        if not found or not door.tell(found):
            return claims
        for claim, answer in zip(claims, answers, strict=True):
            if answer is not None:
                self.settle(claim)
        return [claim for claim, answer in zip(claims, answers, strict=True) if answer is None]

    def _give_back(self, claims: Sequence[Claim]) -> None:
        self._claims.give_back(claims, redelivered=False)
        for claim in claims:
            self._let_go(claim)
            self._seen[claim.source] = claim.item
        self._more = True

    def _take_from_shared(self, now_s: float) -> None:
        due = [source for source in self._shared if self._shared.due(source, now_s)]
        seldom = [source for source in due if source not in self._waits]
        if seldom and not self._claims.any_in(seldom):  # as ever: one question for all of them
            self._shared.look_later(seldom, now_s + SELDOM_S)
            due = [source for source in due if source in self._waits]
        for source in due:
            self._take_ours(source, now_s)

    def _take_ours(self, source: str, now_s: float) -> None:
        """Claim what is ours from a list that is not ours alone."""
        if self._hooks.is_ours is None:
            return
        limit = self._credit() if self._hooks.door is None else PORTION
        claims, occupied = self._shared.claim(source, self._hooks.is_ours, limit, now_s)
        if claims:
            self._take(claims)
            self._waits.ring()
        elif occupied:  # not by ours, so that a waiter would be told at once
            self._shared.look_at(source, now_s + FOREIGN_S)
        elif source in self._waits:
            self._shared.look_at(source, now_s + BLOCK_S + PAUSE_S)
            self._waits.ask(source, now_s)
        else:
            self._shared.look_at(source, now_s + SELDOM_S)

    # -- waiting

    def _wait(self, now_s: float) -> None:
        if not self._more:
            for queue in self._queues.names:
                self._waits.ask(queue, now_s)

    def _rung(self, waiter: Waiter) -> None:
        """A waiter's reply has come. An empty item is one that was claimed, too."""
        try:
            items = [item for item in [waiter.read()] if item is not None]
        except ReplyTooLongError:  # claimed, unless the list is shared
            self._waits.break_off(waiter)
            items = [] if waiter.source in self._shared else self.upkeep.cut_short(waiter.source)
        except ResponseError as error:
            self._pause_of_waits.begin(error, self._clock())
            if waiter.source in self._shared:
                self._shared.look_at(waiter.source, self._clock() + PAUSE_S)
            return
        except BROKEN as error:  # the broker itself is asked at the next turn
            logger.info("fetch.wait_broken (%s): of queue %s; it is begun anew", type(error).__name__, waiter.source)
            self._waits.break_off(waiter)
            self.upkeep.hurry()
            self._more, items = True, []
        if waiter.source in self._shared:
            self._shared.look_at(waiter.source, 0.0)
        elif items:
            self._more = True
            try:
                self._take([Claim(waiter.source, item) for item in items])
            except ResponseError as error:
                self._hold(error, self._clock())

    # -- without credit

    def _look_past_soon(self) -> None:
        if self._hooks.later is not None and not self._looking and self._queues.names:
            self._looking = True
            self._hooks.later(self._look_s, self._look_past)

    def _look_past(self) -> None:
        """With all slots busy: have the door answer what came in behind the messages that wait for a slot, and stay there."""
        self._looking = False
        if self._closed or self._hooks.door is None or self._credit() > 0:
            return
        try:
            found = self._claims.look({source: self._seen.get(source, b"") for source in self._queues.names}, PORTION)
            self._look_s = LOOK_S if any(found.values()) else min(2 * self._look_s, QUIET_LOOK_S)
            for source, items in found.items():
                if items:
                    self._seen[source] = items[0]
                    self._answer_some(self._hooks.door, source, items)
        except ResponseError as error:
            self._hold(error, self._clock())
        self._look_past_soon()

    def _answer_some(self, door: Door, source: str, items: Sequence[bytes]) -> None:
        """Claim those that the door can answer; the others stay where they lie."""
        answers = {item: answer for item, answer in zip(items, judged(door, items), strict=True) if answer is not None}
        claims = self._claims.pick(source, list(answers))
        self._held.update(claims)
        if claims and door.tell([answers[claim.item] for claim in claims]):
            for claim in claims:
                self.settle(claim)
        elif claims:
            self._undelivered.extend(claims)
            self._deliver_some()

    # -- what the consumer says

    def settle(self, claim: Claim) -> None:
        """Give up a claim: at the next turn, or at once from another thread, whose loop may not turn for a while."""
        self._let_go(claim)
        if threading.get_ident() == self._thread and not self._closed:
            self._settled.append(claim)
        else:
            try:
                self._claims.acknowledge(claim)
            except (RedisError, OSError):
                if self._closed:
                    raise
                self._settled.append(claim)
        if not self._closed:
            self._waits.ring()  # there is credit

    def give_back(self, claim: Claim) -> None:
        """Put a delivered item back to the head of its list, marked as delivered before."""
        self._let_go(claim)
        try:
            self._claims.give_back([claim], redelivered=True)
        except (RedisError, OSError) as error:
            logger.warning("fetch.not_given_back (%s): done with a later beat", type(error).__name__)

    def postpone(self, claim: Claim, due_s: float, headers: Mapping[str, Any]) -> bool:
        """Take it aside until that time, in seconds since 1970; False if too many are aside."""
        if not self._claims.postpone(claim, due_s, headers):
            return False
        self._let_go(claim)
        return True

    # -- its life

    def close(self) -> None:
        """Claim nothing more and give back all. Never raises because the broker is away: then another node gives it back."""
        if self._closed:
            return
        self._closed = True
        sources = self.sources()
        self._waits.close()
        self.upkeep.leave(sources, list(self._settled))

    # -- details

    def _credit(self) -> int:
        credit = self._channel.qos.can_consume_max_estimate()
        return PORTION if credit is None else int(credit)

    def sources(self) -> list[str]:
        """All lists that it may claim from."""
        return list(dict.fromkeys([*self._queues.names, *self._queues.seldom(), *self._shared, *self._queues.former]))

    def known(self) -> Counter[Claim]:
        return self._held + Counter(self._settled)

    def _let_go(self, claim: Claim) -> None:
        self._held[claim] -= 1
        if self._held[claim] <= 0:
            del self._held[claim]

    def _hold(self, error: ResponseError, now_s: float) -> None:
        self._pause.begin(error, now_s)
        self._more = True

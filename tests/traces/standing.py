"""Where a process stands in the middle of its trace: its views with all their states, and what its threads are doing. The states
are put into the terms of `tests/model`, so that the model's own rules can be asked about them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import model.search  # noqa: F401 - all rules are entered by it
import msgspec
from model import state as of_model
from model.configs import CONFIGS
from model.stepping import Model

from traces import events
from traces.recording.recorder import Trace
from traces.truth import Truth, means

MODEL: Final = Model(CONFIGS["tiers"])
"""Its rules; how much there is of everything does not matter here."""


class At(NamedTuple):
    """What some rules of the model ask of the thread that they are about."""

    process: of_model.Process
    thread: of_model.Thread = of_model.IDLE


def at_view(view: of_model.View, **thread: Any) -> At:
    return At(of_model.Process(of_model.NEVER, view, (), ()), of_model.Thread(**thread))


class Epochs:
    """Numbers for epochs, as the model has them: 0 is none."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {"": 0}

    def __call__(self, epoch: str) -> int:
        return self._numbers.setdefault(epoch, len(self._numbers))


class Era:
    """What is pending in a view, from when the first pattern was until none is."""

    def __init__(self) -> None:
        self.since: dict[str, list[int]] = {}
        self.moments: dict[str, int] = {}
        """By pattern: when it was last called for, or put on the bus."""

    def note(self, patterns: Iterable[str], generation: int) -> None:
        for pattern in patterns:
            self.since.setdefault(pattern, []).append(generation)

    def date(self, moments: Iterable[tuple[str, int]]) -> None:
        for pattern, moment in moments:
            self.moments[pattern] = max(moment, self.moments.get(pattern, 0))


class Standing(msgspec.Struct, gc=False):
    """One state of a view. `at`: since when."""

    at: int
    epoch: str
    seq: int
    floor: int
    known: bool
    generation: int
    era: Era | None
    answered: float = float("-inf")
    """When its log had answered, as which it was taken."""


class View:
    """A view with all of its states, in order."""

    def __init__(self, made: events.ViewMade) -> None:
        self.bus, self.bound, self.strict = made.bus, made.bound, made.strict
        self.states: list[Standing] = []
        self.by_generation: dict[int, Standing] = {}
        self.generation = -1
        self.moment = float("-inf")
        self.entered = False
        """Whether all of it, as it was when its trace began, was told."""
        self.open = 0
        """How many calls are about to change it."""
        self.ended = -1
        """When the last of these ended."""
        self.broken_off = False
        self.contacts: int | None = None
        """The newest connection on which the log was asked."""
        self.heard_until = 0
        self.followed: list[tuple[int, int]] = []
        """The bus's version that was followed, rising, and the number of the newest state by then."""

    @property
    def now(self) -> Standing:
        return self.states[-1]

    def between(self, since: int, until: int, first: int = 0) -> Iterator[Standing]:
        """The states that a step may have seen, the newest first; none before the one of that number."""
        for place in range(len(self.states) - 1, first - 1, -1):
            state = self.states[place]
            if state.generation < since:
                return
            if state.generation <= until:
                yield state

    def later(self, moment: int) -> Iterator[Standing]:
        """The state at that moment and all since, the newest first."""
        for state in reversed(self.states):
            yield state
            if state.at <= moment:
                return

    def add(self, state: Standing) -> None:
        self.states.append(state)
        self.by_generation[state.generation] = state


class Thread:
    """What a thread has done last; or a task, in whichever threads its calls ran."""

    def __init__(self) -> None:
        self.call: events.Call | None = None
        self.call_place = 0
        """The number of its view's newest state when that began."""
        self.done: list[str] = []
        """What it has published in this call."""
        self.tail: events.TailRead | None = None
        self.append: events.Appended | None = None
        self.read: events.LogRead | None = None
        self.bus: events.BusRead | None = None
        self.followed: tuple[int, int] = (-1, 0)
        """When it followed the bus last, and the number of its view's newest state then."""
        self.applied: tuple[int, bool] = (0, False)
        """The page that it applied last, and whether all of it was known then."""
        self.heard = False
        self.failed = -1
        """When it last could not reach the server."""
        self.refused: events.Judged | None = None
        self.filled: dict[str, events.Filled] = {}
        """By key: what it has kept last."""
        self.computing: dict[str, tuple[events.Computing, int]] = {}
        self.seen: dict[str, tuple[tuple[str, ...], int, int]] = {}
        """By key: the deps of the entry that it had last, the view's newest state then, and the place in the trace."""


class Process:
    """One process in the middle of its trace."""

    def __init__(self, trace: Trace, truth: Truth) -> None:
        self.trace, self.truth = trace, truth
        self.epochs = Epochs()
        self.views: dict[int, View] = {}
        self.threads: defaultdict[int, Thread] = defaultdict(Thread)
        self.pages: dict[int, events.Page] = {}
        self.asked: dict[int, events.LogRead] = {}
        """By page: how it was read from the log."""
        self.buses: dict[str, events.BusWritten] = {}
        """Those that it writes, as they are now."""
        self.place = 0

    # -- in the model's terms

    def view_of(self, state: Standing, moment: float = 0.0, names: tuple[str, ...] = ()) -> of_model.View:
        """Source i of the model is the name i. Its record, and what is pending, are the newest that mean this name."""
        records = tuple([self.truth.newest(state.epoch, name, state.seq) for name in names])
        pending = tuple([pending_since(state, name) for name in names])
        return of_model.View(
            epoch=self.epochs(state.epoch),
            seq=state.seq,
            floor=state.floor,
            known=state.known,
            records=records,
            pending=pending,
            revision=state.generation,
            generation=state.generation,
            confirmed=moment,  # type: ignore[arg-type]
        )

    def page_of(self, page: events.Page) -> of_model.Page:
        """Without its records, which are held against the log itself."""
        return of_model.Page(self.epochs(page.epoch), page.seq, page.floor, page.after, (), page.restart)

    def bus_of(self, bus: events.BusWritten) -> of_model.Bus:
        return of_model.Bus(
            epoch=self.epochs(bus.epoch),
            seq=bus.seq,
            floor=bus.floor,
            base=bus.base,
            settled=bus.settled,
            confirmed=bus.confirmed,  # type: ignore[arg-type]
        )

    def valid(self, state: Standing, entry: Any) -> bool:
        """What the model says of this entry, by this state."""
        names = (entry.key, *entry.deps)
        known = self.view_of(state, 0.0, names)
        sources = tuple(range(len(names)))
        return bool(MODEL.valid(MODEL, known, self.epochs(entry.epoch), entry.seq, entry.generation, sources))


def pending_since(state: Standing, name: str) -> int:
    """The generation since when a pending pattern means the name; 0 for none."""
    if state.era is None:
        return 0
    newest = 0
    for pattern, generations in state.era.since.items():
        if generations[-1] > newest and means(pattern, name):
            newest = max(newest, max((g for g in generations if g <= state.generation), default=0))
    return newest

"""How a trace is written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from traces import events

S = 1_000_000_000
E1, E2 = "epoch1", "epoch2"
NEVER = float("-inf")
BUS = "1.1"


class Tape:
    """A trace that is written step by step; each step takes a millisecond. `bad`: the test's one wrong thing is to be done."""

    def __init__(self, bad: bool, *, bus: str = "", bound_s: float = 1.0, strict: bool = True, view: bool = True) -> None:
        self.bad = bad
        self.events: list[Any] = []
        self.now = 10 * S
        self.thread = 1
        self._numbers = 0
        self._stands = ("", 0, 0, False, False)
        self._generation = 0
        if view:
            self.step(events.ViewMade, 1, bus, round(bound_s * S), strict)
            self.step(events.Published, 1, *self._stands, 0)
            self.step(events.Generation, 1, 0)
            self.step(events.Confirmed, 1, NEVER)

    def step(self, kind: type, *fields: Any, length_s: float = 0.0005) -> Any:
        began, self.now = self.now, self.now + round(length_s * S)
        event = kind(self.thread, began, self.now, *fields)
        self.events.append(event)
        self.now += S // 2000
        return event

    def call(self, what: str, **given: Any) -> None:
        fields = {"view": 1, "bus": "", "page": 0, "asked": NEVER, "tail": "", "patterns": [], "count": 0} | given
        self.step(events.Call, what, *fields.values())

    def back(self, what: str, outcome: bool | None = True, view: int = 1) -> None:
        self.step(events.Return, what, view, outcome)

    def append(self, *patterns: str, seq: int, epoch: str = E1, floor: int = 0) -> events.Appended:
        appended: events.Appended = self.step(events.Appended, list(patterns), epoch, seq, floor)
        return appended

    def page(
        self, origin: str, seq: int, *records: tuple[str, int], after: int = 0, epoch: str = E1, restart: bool = False
    ) -> int:
        self._numbers += 1
        self.step(events.Page, self._numbers, origin, epoch, seq, 0, after, list(records), restart)
        return self._numbers

    def read(self, seq: int, *records: tuple[str, int], known: tuple[str, int] = ("", 0), epoch: str = E1) -> tuple[int, float]:
        """Read the log. Returns the page, and when it was asked for."""
        asked_s = self.now / S
        restart = known[0] != epoch
        page = self.page("log", seq, *records, after=0 if restart else known[1], epoch=epoch, restart=restart)
        self.events.insert(-1, self.events.pop())
        began = round(asked_s * S)
        self.events.append(events.LogRead(self.thread, began, self.now, page, *known, False))
        return page, asked_s

    def publish(self, epoch: str, seq: int, *, floor: int = 0, pending: bool = False, known: bool = True) -> None:
        self._stands = (epoch, seq, floor, known, pending)
        self._generation += 1
        self.step(events.Published, 1, *self._stands, self._generation)

    def generation(self) -> None:
        self.step(events.Generation, 1, self._generation)

    def apply(self, page: int, asked_s: float, epoch: str, seq: int) -> None:
        self.call("apply", page=page, asked=asked_s)
        self.publish(epoch, seq)
        self.generation()
        self.step(events.Confirmed, 1, asked_s)
        self.back("apply")

    def knows(self, seq: int = 0, *records: tuple[str, int]) -> None:
        """Read the log as it is, and take it in."""
        known = self._stands[:2] if self._stands[3] else ("", 0)
        page, asked_s = self.read(seq, *records, known=known)
        self.apply(page, asked_s, E1, seq)

    def served(self, seq: int, source: str, by: str = "lookup", *, generation: int | None = None, **given: Any) -> None:
        fields = {"deps": (), "epoch": E1, "seq": seq, "generation": self._generation if generation is None else generation}
        fields |= {"since": self._generation, "until": self._generation, "bus_since": -1, "degraded": False} | given
        self.step(events.Served, by, 1, source, "k", *fields.values())

    def judged(self, seq: int, *deps: str, valid: bool = True) -> None:
        told = (E1, seq, self._generation, self._generation, self._generation, valid)
        self.step(events.Judged, 1, "k", deps, *told)

    def filled(self, seq: int, *deps: str, by: str = "compute", generation: int | None = None) -> None:
        generation = self._generation if generation is None else generation
        self.step(events.Filled, by, 1, "k", deps, E1, seq, generation, self._generation)

    def computing(self, *deps: str) -> None:
        self.step(events.Computing, 1, "k", deps, self._generation)

    def pend(self, what: str = "pend", *patterns: str, count: int = 0) -> None:
        self.call(what, patterns=list(patterns), count=count)
        self.publish(*self._stands[:2], pending=True, known=self._stands[3])
        self.generation()
        self.back(what)

    def written(
        self, version: int, seq: int, confirmed: float = NEVER, *, volatile: int = 0, settled: int = 0, epoch: str = E1
    ) -> None:
        self.step(events.BusWritten, BUS, version, epoch, seq, 0, 0, volatile, settled, confirmed)

    def bus(self, seq: int = 0) -> float:
        """A bus that its main process has brought to the log. Returns its moment."""
        self.step(events.BusWritten, BUS, 0, "", 0, 0, 0, 0, 0, NEVER)
        page, asked_s = self.read(seq)
        self.call("publish", view=0, bus=BUS, page=page, asked=asked_s)
        self.step(events.BusWritten, BUS, 2, E1, seq, 0, seq, 0, 0, asked_s)
        self.back("publish", view=0)
        return asked_s

    def bus_read(
        self, version: int, *, page: int = 0, empty: bool = False, volatile: tuple[str, ...] = (), confirmed: float
    ) -> None:
        known = self._stands[:2]
        told = (page, empty, list(volatile), len(volatile), 0, confirmed)
        self.step(events.BusRead, BUS, *known, 0, version, *told)

    def claim(self, what: str, owner: str, held: str = "", *, by: tuple[str, int] = (E1, 0), done: bool = True) -> None:
        self.step(events.Claimed, what, "lease:k", owner, held, *by, done, 5 * S)


Case = Callable[[bool], list[Tape]]
CASES: list[tuple[str, Case]] = []


def case(row: str) -> Callable[[Case], Case]:
    def enter(build: Case) -> Case:
        CASES.append((row, build))
        return build

    return enter


def child(bad: bool) -> tuple[Tape, Tape, float]:
    """A main process whose bus has one record, and a child that has read the log before."""
    main, tape = Tape(bad, view=False), Tape(bad, bus=BUS)
    tape.knows()
    main.now = tape.now
    main.bus()
    main.append("k", seq=1)
    page, asked_s = main.read(1, ("k", 1), known=(E1, 0))
    main.call("publish", view=0, bus=BUS, page=page, asked=asked_s)
    main.written(4, 1, asked_s)
    tape.now = main.now
    return main, tape, asked_s

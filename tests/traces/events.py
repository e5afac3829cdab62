"""What the processes of a run write down. Times are CLOCK_MONOTONIC in ns, which all processes of a machine share.

Two events of one process stand in the order in which they happened, as far as the order matters: what changes a view or a bus is
written under its lock, before other threads can see it. What a reader saw is said by numbers (`since`, `until`): the view's state
had the first one before the step and the second one after it, so that the step saw one of these or one in between.

`view` is the number of a view in its process; `page` that of a page of the log, whose content was written down before.
"""

from __future__ import annotations

import msgspec

Records = list[tuple[str, int]]
NOBODY = ""


class Header(msgspec.Struct, array_like=True, frozen=True):
    """The first item of a file. `name`: of the program."""

    pid: int
    name: str


class Event(msgspec.Struct, array_like=True, gc=False):
    """`thread`: its id in the process. `began` and `ended`: moments before and after the step; equal where the step has no
    length."""

    thread: int
    began: int
    ended: int


# -- the log


class Appended(Event, tag=1):
    """The answer to an append: the tail. Without an epoch: none came, and it may be appended or not."""

    patterns: list[str]
    epoch: str
    seq: int
    floor: int


class LogRead(Event, tag=2):
    """A page that was read from the log by a reader that stood at `known_epoch`, `known_seq` ('' and 0: nowhere)."""

    page: int
    known_epoch: str
    known_seq: int
    failed: bool


class Page(Event, tag=3):
    """The content of a page. `origin`: `log`, `bus`, `heard` (a notice that the cache's server published), or `made` from a tail
    and a process's own records or a notice of the broker."""

    number: int
    origin: str
    epoch: str
    seq: int
    floor: int
    after: int
    records: Records
    restart: bool


class TailRead(Event, tag=4):
    """The log's tail as it came with an entry, a claim (`by`: entry, entries, claim), or a beat. Empty: there is none."""

    by: str
    key: str
    tail: str
    failed: bool


# -- the view


class ViewMade(Event, tag=10):
    """`bus`: of its node; `NOBODY` without one. `bound`: the staleness bound in ns."""

    view: int
    bus: str
    bound: int
    strict: bool


class Call(Event, tag=11):
    """Something is about to be done to a view or a bus (`what`), by a page that was asked for at the moment `asked` (s), a tail,
    patterns, or a count: of volatile patterns, or (`confirm`) of the connections to the log's server so far. What this thread
    publishes until `Return` belongs to it."""

    what: str
    view: int
    bus: str
    page: int
    asked: float
    tail: str
    patterns: list[str]
    count: int


class Return(Event, tag=12):
    """`outcome`: what it returned, True if that is nothing; None if it was broken off."""

    what: str
    view: int
    outcome: bool | None


class Published(Event, tag=13):
    """The state that judges. `known`: the log was read. `pending`: something is that the log lacks."""

    view: int
    epoch: str
    seq: int
    floor: int
    known: bool
    pending: bool
    generation: int


class Generation(Event, tag=14):
    """The view's generation, as threads read it that take no lock."""

    view: int
    generation: int


class Confirmed(Event, tag=15):
    """The moment (s) of confirmation."""

    view: int
    moment: float


class Judged(Event, tag=16):
    """An entry for `key`, computed from `deps` by the knowledge of (`epoch`, `seq`, `generation`)."""

    view: int
    key: str
    deps: tuple[str, ...]
    epoch: str
    seq: int
    generation: int
    since: int
    until: int
    valid: bool


class AsOfTaken(Event, tag=17):
    """What is known, for a computation that is to begin."""

    view: int
    epoch: str
    seq: int
    generation: int


# -- the node


class BusWritten(Event, tag=20):
    """The bus after a write, before a reader can see it; or what a write has left that was broken off."""

    bus: str
    version: int
    epoch: str
    seq: int
    floor: int
    base: int
    volatile: int
    settled: int
    confirmed: float
    broken_off: bool = False


class BusRead(Event, tag=21):
    """What a process has read from its bus, standing at `known_epoch`, `known_seq`. `version` -1: the writer was at work."""

    bus: str
    known_epoch: str
    known_seq: int
    seen: int
    version: int
    page: int
    empty: bool
    volatile: list[str]
    volatile_count: int
    settled: int
    confirmed: float


class Followed(Event, tag=22):
    """The view has all that the bus had at that version."""

    view: int
    version: int


class Received(Event, tag=23):
    """A notice was taken in. `epoch` empty: the invalidation is in no log."""

    bus: str
    patterns: list[str]
    epoch: str
    seq: int


class Heard(Event, tag=24):
    """What the cache's server has published was told to a process, for its view or (`bus`) its node. `page` 0: it says only that
    something was appended, or may have been."""

    view: int
    bus: str
    page: int


class Met(Event, tag=25):
    """From here on the log counts as asked on connection number `contacts`: a tail that came by it may confirm the view."""

    view: int
    contacts: int


# -- entries


class Served(Event, tag=30):
    """A read ended with an entry. `by`: lookup, get, peek, promote, join. `source`: l1, l2, stale, joined. The entry is told as
    in `Judged`; with an empty epoch and seq -1 nothing was judged. `bus_since`: the version of the bus when the read began."""

    by: str
    view: int
    source: str
    key: str
    deps: tuple[str, ...]
    epoch: str
    seq: int
    generation: int
    since: int
    until: int
    bus_since: int
    degraded: bool


class Computing(Event, tag=31):
    """A computation begins: what follows are its inputs, but for those that its caller has read before. `deps`: those that it
    names. `until`: the view's newest state."""

    view: int
    key: str
    deps: tuple[str, ...]
    until: int


class Filled(Event, tag=32):
    """A value is about to be kept, judged by (`epoch`, `seq`, `generation`). `by`: compute, fill, set."""

    by: str
    view: int
    key: str
    deps: tuple[str, ...]
    epoch: str
    seq: int
    generation: int
    until: int


class Wrote(Event, tag=33):
    """An entry is about to be written to L2."""

    key: str
    deps: tuple[str, ...]
    epoch: str
    seq: int


class Invalidated(Event, tag=34):
    """`invalidate` returns."""

    view: int
    patterns: list[str]
    epoch: str
    seq: int
    durable: bool
    until: int


class Branched(Event, tag=35):
    """A task begins, which has a number in a thread's place. `parent`: the one, or the thread, that it came from."""

    parent: int


class Brought(Event, tag=36):
    """A task has what another one has found or computed for it."""

    key: str
    by: int


# -- claims


class Claimed(Event, tag=40):
    """`what`: take, replace, release, give back; with a `?` it is about to be asked for. `owner` asks; `held`, of a claim by
    (`epoch`, `seq`), is the owner that it found, or wants to take the place of. `done`: whether the claim is now as `owner` wants
    it. `ttl` in ns."""

    what: str
    name: str
    owner: str
    held: str
    epoch: str
    seq: int
    done: bool
    ttl: int


AnyEvent = (
    Appended
    | LogRead
    | Page
    | TailRead
    | ViewMade
    | Call
    | Return
    | Published
    | Generation
    | Confirmed
    | Judged
    | AsOfTaken
    | BusWritten
    | BusRead
    | Followed
    | Received
    | Heard
    | Met
    | Served
    | Computing
    | Filled
    | Wrote
    | Invalidated
    | Branched
    | Brought
    | Claimed
)

"""What there is: the server, the nodes, the processes with their threads. All of it immutable, and small.

Patterns are the names of sources, by number, and stand for any pattern. A value is the versions of the sources that it was
computed
from, `NONE` for a source that it was not: the version of a source is the number of times that it was changed, which is also
when its
invalidation is called. So a value is stale for an invalidation exactly if its version is lower than that of the invalidation.

Time is counted in returns. `confirmed` and `asked` are moments: how many durable invalidations had returned by then; `elapsed`
says
for how many of these the staleness bound has passed since. A lease holds if it was confirmed after the last of those. Nothing
else
about time can matter to a promise that speaks of "the bound after it returned"; a lease may run out at any moment before.
"""

from __future__ import annotations

from typing import Final

import msgspec

NONE: Final = 99
"""The version of a source that a value does not depend on."""
NEVER: Final = -1

Numbers = tuple[int, ...]


class Log(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """The log in the server. `epoch` 0: there is no tail. `history`: of the server that began it. `records`: the seq of each
    pattern's latest invalidation, 0 for none; `whole`: since when these are all, `NEVER` if the set was evicted."""

    epoch: int = 0
    history: int = 0
    seq: int = 0
    floor: int = 0
    records: Numbers = ()
    whole: int = NEVER


class Entry(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """In L2. `old`: past its time to live, within its grace."""

    epoch: int
    seq: int
    deps: Numbers
    value: Numbers
    old: bool = False


class Slot(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """In L1. `known`: the generation that `as_of` carries; `generation`: the last at which it was found valid."""

    epoch: int
    seq: int
    known: int
    deps: Numbers
    value: Numbers
    generation: int


class Claim(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """The lease of a key. `epoch` and `seq`: what its owner knew."""

    owner: int
    epoch: int
    seq: int


class Server(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """One server. `contact` is another number for another server, or after its restart: connections do not outlive that."""

    history: int
    contact: int
    log: Log
    entries: tuple[Entry | None, ...]
    claims: tuple[Claim | None, ...]


class Page(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """As in `pipeline/cache/coherence/tail.py`. `records` has 0 for a pattern that the page says nothing of."""

    epoch: int
    seq: int
    floor: int
    after: int
    records: Numbers
    restart: bool


class View(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """One process's knowledge. All but `generation` and `confirmed` is published in one step; `revision` is the generation that
    belongs to it. `known`: the log was read. `pending`: by pattern the generation since when, 0 for none; `own` and `heard`
    say why, and `heard_until` how many of the bus's volatile patterns were heard of."""

    epoch: int = 0
    seq: int = 0
    floor: int = 0
    known: bool = False
    records: Numbers = ()
    pending: Numbers = ()
    own: Numbers = ()
    heard: Numbers = ()
    heard_until: int = 0
    revision: int = 0
    generation: int = 0
    confirmed: int = NEVER


class Bus(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """A node's bus. `epoch` 0: empty. `busy`: its writer is at work, readers get nothing. `ring`: records, as (seq, pattern).
    Its version is kept as `followed` of the processes and `outdated` of the threads."""

    busy: bool = False
    epoch: int = 0
    seq: int = 0
    floor: int = 0
    base: int = 0
    ring: tuple[tuple[int, int], ...] = ()
    volatile: Numbers = ()
    settled: int = 0
    confirmed: int = NEVER


class News(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """What a process has read from its bus."""

    page: Page | None
    empty: bool
    volatile: Numbers
    count: int
    settled: int
    confirmed: int


class Notice(msgspec.Struct, frozen=True, cache_hash=True, gc=False, order=True):
    """On its way to the nodes, for ever: it comes late, twice or never. `epoch` 0: of an invalidation that is in no log.
    `version`: of the source, for the promises only."""

    epoch: int
    seq: int
    pattern: int
    version: int


class Thread(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """What a thread is about to do, step by step, and what it has in its hands. Idle without steps.

    A step `?name` catches failures of the steps before it: a step that could not reach the server goes on there.
    `must`, `must_l1`, `here`: the versions that the read must not fall short of, from L2, from L1, and from this process's own L1
    with the server away; by what had returned when it began. `token` names a caller of `fetch`, `joins` the flight that it
    would join,
    `needs` the moment at which it asked. `nested`: the read is for a computation. `stale`: what is past its time to live will do.
    """

    steps: tuple[str, ...] = ()
    key: int = 0
    must: Numbers = ()
    must_l1: Numbers = ()
    here: Numbers = ()
    elapsed: int = 0
    asked: int = NEVER
    generation: int = 0
    slot: Slot | None = None
    entry: Entry | None = None
    tail: tuple[int, int] | None = None
    floor: int = 0
    page: Page | None = None
    news: News | None = None
    outdated: bool = False
    as_of: tuple[int, int, int] = ()  # type: ignore[assignment]
    value: Numbers = ()
    deps: Numbers = ()
    pattern: int = 0
    version: int = 0
    pending: Numbers = ()
    contact: int = 0
    token: int = 0
    joins: int = 0
    needs: int = NEVER
    claim: Claim | None = None
    nested: bool = False
    stale: bool = False


IDLE: Final = Thread()


class Flight(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """A computation of a key in this process, which its threads may join. `token` names its leader."""

    token: int
    as_of: tuple[int, int, int]


class Process(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """`node` is the number of its node, `NEVER` for a process without a bus. `locked`: one of its threads holds the view's lock.
    `made`: the server that its newest connection leads to, `contacts`: that of the last reading of the log. `at_old`: its
    connections
    lead to the server that was demoted. `own`: the versions that it has invalidated itself, for the promises only."""

    node: int
    view: View
    slots: tuple[Slot | None, ...]
    threads: tuple[Thread, ...]
    flights: tuple[Flight | None, ...] = ()
    locked: bool = False
    followed: bool = False
    volatile_seen: int = 0
    made: int = 0
    contacts: int = 0
    at_old: bool = False
    own: Numbers = ()


class Node(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """A node's bus and the threads of its main process. `pending`: what it heard and is to append, by pattern the count of
    volatile patterns by then, 0 for none. `applied`: the versions of the notices that it took in, for the promises only;
    `told`: of those
    that had no seq."""

    bus: Bus
    threads: tuple[Thread, ...]
    pending: Numbers
    applied: Numbers
    told: Numbers


class State(msgspec.Struct, frozen=True, cache_hash=True, gc=False):
    """One moment of all. `returned`: the durable invalidations that have returned, as (pattern, version). `left`: how many more
    of each fault there may be, by the order of `faults.FAULTS`, and last of all of them together. `broken`: the promise that
    the last step broke."""

    server: Server
    processes: tuple[Process, ...]
    nodes: tuple[Node, ...]
    versions: Numbers
    invalidations_left: int
    left: Numbers
    returned: tuple[tuple[int, int], ...] = ()
    elapsed: int = 0
    up: bool = True
    copy: Server | None = None
    demoted: Server | None = None
    notices: tuple[Notice, ...] = ()
    epochs: int = 0
    broken: str = ""

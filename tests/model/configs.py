"""How much there is of everything, in each exploration: all of the protocol at once is too much for any, so that each looks at
a part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from model.faults import FAULTS
from model.state import IDLE, NEVER, NONE, Bus, Entry, Log, Node, Numbers, Page, Process, Server, Slot, State, View


class Key(msgspec.Struct, frozen=True):
    """`direct`: the sources that its computation reads; `deps`: the patterns that it names as deps, its own key's among them;
    `through`: the key of the entry that it is computed from as well, `NEVER` for none; `all`: every source that is in its
    value."""

    direct: Numbers
    deps: Numbers
    through: int = NEVER
    all: Numbers = ()


KEY: Final = Key((0,), (0,), all=(0,))
WITH_DEP: Final = Key((0, 1), (0, 1), all=(0, 1))
"""Its own key's pattern is 0, its dep's 1."""
THREE: Final = {"keys": (WITH_DEP,), "patterns": 3, "invalidated": (1, 2)}
"""A key, its dep, and a pattern that means neither."""
CHAIN: Final = (Key((0,), (0, 1), all=(0,)), Key((), (1, 2), through=0, all=(0,)))
"""a is source 0 and pattern 0; b, of pattern 1, is computed from a; c, of pattern 2, from b."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """`processes`: for each the node, or `NEVER`, and what its threads may begin, of `read`, `compute`, `fetch`, `stale`,
    `refresh`, `invalidate` and `tell`, which is to invalidate and to do nothing else, ever. `node_threads`: of each node's
    main process. `faults`: how many times each at most, and
    `faults_in_all`
    together. `trims`: any append may trim.
    `answers_lost`: an append may be done and its answer lost. `ring`: how many records a bus holds. `invalidated`: the patterns
    that may be. `start`: empty is cold, where no process knows
    anything; `warm`: all have read the log and have the first key in L1; `settled`: as warm, and on the bus a volatile
    invalidation was
    settled a moment ago, and the server is away; `loading`: two threads of the first process load the log, which was just
    lost. `comes_back`: it may return.
    `short`: whether `make test` explores it."""

    name: str
    about: str
    keys: tuple[Key, ...] = (KEY,)
    patterns: int = 1
    invalidated: Numbers = (0,)
    invalidations: int = 2
    processes: tuple[tuple[int, tuple[str, ...]], ...]
    node_threads: tuple[int, ...] = ()
    faults: Mapping[str, int] = {}
    faults_in_all: int = 99
    trims: bool = False
    answers_lost: bool = False
    strict: bool = True
    ring: int = 2
    start: str = ""
    comes_back: bool = True
    short: bool = True


def initial(config: Config) -> State:
    """An empty server and processes that know nothing."""
    zeros, keys = (0,) * config.patterns, len(config.keys)
    processes = tuple(
        Process(
            node=node,
            view=View(records=zeros, pending=zeros, own=zeros, heard=zeros),
            slots=(None,) * keys,
            threads=(IDLE,) * len(does),
            flights=(None,) * keys,
            own=zeros,
        )
        for node, does in config.processes
    )
    nodes = tuple(Node(Bus(), (IDLE,) * count, zeros, zeros, zeros) for count in config.node_threads)
    state = State(
        server=Server(1, 1, Log(records=zeros), (None,) * keys, (None,) * keys),
        processes=processes,
        nodes=nodes,
        versions=zeros,
        invalidations_left=config.invalidations,
        left=(*(config.faults.get(name, 0) for name in FAULTS), config.faults_in_all),
    )
    return _STARTS[config.start](config, state) if config.start else state


def _warm(config: Config, state: State) -> State:
    key, none = config.keys[0], (None,) * (len(config.keys) - 1)
    value = tuple(0 if source in key.direct else NONE for source in range(config.patterns))
    log = Log(1, 1, 0, 0, (0,) * config.patterns, 0)
    slot = Slot(1, 0, 1, key.deps, value, 1)
    processes = tuple(
        replace(
            process,
            view=replace(process.view, epoch=1, known=True, revision=1, generation=1, confirmed=0),
            slots=(slot, *none),
            made=1,
            contacts=1,
            followed=process.node != NEVER,
        )
        for process in state.processes
    )
    nodes = tuple(replace(node, bus=replace(node.bus, epoch=1, confirmed=0)) for node in state.nodes)
    server = replace(state.server, log=log, entries=(Entry(1, 0, key.deps, value), *none))
    return replace(state, server=server, processes=processes, nodes=nodes, epochs=1)


def _settled(config: Config, state: State) -> State:
    """In the log as 1:1, and on the bus from there."""
    state = _warm(config, state)
    slot = replace(state.processes[0].slots[0], seq=1, value=(1,))
    processes = tuple(
        replace(process, view=replace(process.view, seq=1, records=(1,)), slots=(slot,), followed=False)
        for process in state.processes
    )
    bus = Bus(epoch=1, seq=1, ring=((1, 0),), volatile=(0,), settled=1, confirmed=0)
    nodes = tuple(replace(node, bus=bus) for node in state.nodes)
    server = replace(state.server, log=Log(1, 1, 1, 0, (1,), 0), entries=(None,))
    return replace(state, server=server, processes=processes, nodes=nodes, versions=(1,), up=False)


def _loading(config: Config, state: State) -> State:
    """One thread has asked for the log, another was answered, neither has taken an answer in; and then the log was lost."""
    warm = _warm(config, state)
    first, *others = warm.processes
    page = Page(1, 0, 0, 0, (0,) * config.patterns, True)
    asking = replace(IDLE, steps=("read_log", "apply", "?go_on"), asked=0)
    answered = replace(IDLE, steps=("apply", "?go_on"), asked=0, page=page, contact=1)
    threads = (asking, answered, *first.threads[2:])
    first = replace(first, view=state.processes[0].view, slots=state.processes[0].slots, contacts=0, threads=threads)
    lost = replace(warm.server.log, epoch=0, history=0)
    return replace(warm, processes=(first, *others), server=replace(warm.server, log=lost))


_STARTS: Final = {"warm": _warm, "settled": _settled, "loading": _loading}


LONE: Final = NEVER
USES: Final = "read compute"
ALL: Final = "read compute invalidate"
TELLS: Final = "tell"

_BUS: Final = {"patterns": 2, "invalidated": (0, 1), "node_threads": (1,), "ring": 1}

_ALL: Final = (
    Config(
        name="tiers",
        about="reads, fills and invalidations of two processes, and the lease",
        processes=((LONE, (USES,)), (LONE, (TELLS,))),
    ),
    Config(
        name="tiers-wide",
        about="as tiers, with two processes that do everything",
        processes=((LONE, (ALL,)), (LONE, (ALL,))),
        short=False,
    ),
    Config(
        name="threads",
        about="two threads that share a view and an L1, and a process that invalidates",
        processes=((LONE, ("read", USES)), (LONE, (TELLS,))),
        invalidations=1,
        start="warm",
        short=False,
    ),
    Config(
        name="threads-broken",
        about="as threads, and one of them may be broken off",
        processes=((LONE, ("read", "read")), (LONE, (TELLS,))),
        invalidations=1,
        faults={"break_off": 1},
        start="warm",
    ),
    Config(
        name="threads-wide",
        about="as threads, with two invalidations, and threads that do the same",
        processes=((LONE, (USES, USES)), (LONE, (TELLS,))),
        short=False,
    ),
    Config(
        name="records",
        about="two patterns, of the key and of its dep; records are trimmed with any append, or evicted",
        processes=((LONE, (USES,)), (LONE, (TELLS,))),
        trims=True,
        faults={"evict_records": 1},
        start="warm",
        short=False,
        **THREE,
    ),
    Config(
        name="records-wide",
        about="as records, with three invalidations, which the reader makes, too",
        invalidations=3,
        processes=((LONE, (ALL,)), (LONE, (TELLS,))),
        trims=True,
        faults={"evict_records": 1},
        short=False,
        **THREE,
    ),
    Config(
        name="beginners",
        about="there is no log, and two processes begin one",
        processes=((LONE, ("read",)), (LONE, ("compute invalidate",))),
        invalidations=1,
    ),
    Config(
        name="beginnings",
        about="the server gives up the tail or everything, and two processes begin the log anew",
        processes=((LONE, (USES,)), (LONE, (TELLS,))),
        faults={"evict_tail": 1, "flush": 1},
        faults_in_all=1,
        start="warm",
        short=False,
    ),
    Config(
        name="beginnings-wide",
        about="as beginnings, twice, and a second process that reads",
        processes=((LONE, (USES,)), (LONE, ("read invalidate",))),
        faults={"evict_tail": 1, "evict_records": 1, "flush": 1},
        faults_in_all=2,
        short=False,
    ),
    Config(
        name="succession",
        about="a failover to a copy that lags, or a restart",
        processes=((LONE, (USES,)), (LONE, (TELLS,))),
        faults={"take_copy": 1, "fail_over": 1, "restart": 1},
        faults_in_all=2,
        start="warm",
        short=False,
    ),
    Config(
        name="demotion",
        about="a failover after which the old master lives on as a replica, with its connections",
        processes=((LONE, ("read refresh",)), (LONE, (TELLS,))),
        faults={"take_copy": 1, "demote": 1},
        start="warm",
    ),
    Config(
        name="succession-wide",
        about="failovers twice, demotions and restarts",
        processes=((LONE, (USES,)), (LONE, (TELLS,))),
        faults={"take_copy": 2, "fail_over": 1, "demote": 1, "restart": 1},
        faults_in_all=4,
        short=False,
    ),
    Config(
        name="node",
        about="a node's main process, its bus with room for one record, a child, and a program that invalidates",
        processes=((0, (USES,)), (LONE, (TELLS,))),
        node_threads=(1,),
        ring=1,
        invalidations=1,
        start="warm",
    ),
    Config(
        name="node-broken",
        about="as node, and the main process may be broken off, also in the middle of a write",
        processes=((0, (USES,)), (LONE, (TELLS,))),
        node_threads=(1,),
        ring=1,
        invalidations=1,
        faults={"break_off_main": 1},
        start="warm",
    ),
    Config(
        name="node-wide",
        about="as node, with two invalidations of two patterns",
        processes=((0, (USES,)), (LONE, (TELLS,))),
        short=False,
        **_BUS,
    ),
    Config(
        name="away",
        about="the server is out of reach for a time; answers of appends are lost; a strict cache",
        processes=((LONE, (ALL,)),),
        faults={"go_away": 1},
        answers_lost=True,
    ),
    Config(
        name="away-threads",
        about="as away, with a second thread that reads",
        processes=((LONE, (ALL, "read")),),
        invalidations=1,
        faults={"go_away": 1},
        start="warm",
        short=False,
    ),
    Config(
        name="away-wide",
        about="as away, a cache that is not strict, and another process",
        processes=((LONE, (ALL,)), (LONE, (USES,))),
        faults={"go_away": 1},
        answers_lost=True,
        strict=False,
        short=False,
    ),
    Config(
        name="volatile",
        about="a node hears of an invalidation that could not be appended",
        processes=((0, (USES,)), (LONE, (TELLS,))),
        node_threads=(1,),
        invalidations=1,
        faults={"go_away": 1},
        start="warm",
        short=False,
    ),
    Config(
        name="volatile-threads",
        about="as volatile, twice, and two threads that follow the bus",
        processes=((0, (USES, "read")), (LONE, (TELLS,))),
        node_threads=(1,),
        faults={"go_away": 1},
        short=False,
    ),
    Config(
        name="volatile-settled",
        about="a volatile invalidation was settled, the server is away, and there is another; two threads follow the bus",
        processes=((0, ("read", "read")), (LONE, (TELLS,))),
        node_threads=(1,),
        invalidations=1,
        comes_back=False,
        start="settled",
    ),
    Config(
        name="loading",
        about="three threads of a process that begins load the log, which has just begun anew; another invalidates",
        processes=((LONE, ("", "", "read")), (LONE, (TELLS,))),
        start="loading",
    ),
    Config(
        name="records-own",
        about="a process that reads and invalidates, and another that invalidates something else",
        processes=((LONE, (ALL,)), (LONE, (TELLS,))),
        start="warm",
        short=False,
        **THREE,
    ),
    Config(
        name="node-two",
        about="as node, with two invalidations of two patterns",
        processes=((0, ("read",)), (LONE, (TELLS,))),
        start="warm",
        short=False,
        **_BUS,
    ),
    Config(
        name="chain",
        about="c computed from b, and b from a",
        keys=CHAIN,
        patterns=3,
        invalidated=(0, 1),
        invalidations=1,
        processes=((LONE, (USES,)), (LONE, (TELLS,))),
        faults={"evict_entry": 1, "drop_slot": 1},
        short=False,
    ),
    Config(
        name="chain-wide",
        about="as chain, with two invalidations",
        keys=CHAIN,
        patterns=3,
        invalidated=(0, 1),
        processes=((LONE, (USES,)), (LONE, (TELLS,))),
        faults={"evict_entry": 1, "drop_slot": 1},
        faults_in_all=1,
        short=False,
    ),
    Config(
        name="joins",
        about="two threads of a process after the same key, neither of which has looked into L2",
        processes=((LONE, ("fetch", "fetch")), (LONE, (TELLS,))),
        invalidations=1,
        start="warm",
        short=False,
    ),
    Config(
        name="leases",
        about="two processes after the same key; leases run out; owners are broken off",
        processes=((LONE, ("fetch",)), (LONE, ("fetch",)), (LONE, (TELLS,))),
        invalidations=1,
        faults={"end_claim": 1, "break_off": 1},
        faults_in_all=1,
        short=False,
    ),
    Config(
        name="succession-threads",
        about="a failover to a copy that lags, and two threads that read",
        processes=((LONE, ("read", "read")), (LONE, (TELLS,))),
        invalidations=1,
        faults={"take_copy": 1, "fail_over": 1},
        start="warm",
        short=False,
    ),
    Config(
        name="succession-node",
        about="a failover to a copy that lags, under a node's main process and its child",
        processes=((0, ("read",)), (LONE, (TELLS,))),
        node_threads=(1,),
        ring=1,
        invalidations=1,
        faults={"take_copy": 1, "fail_over": 1},
        start="warm",
        short=False,
    ),
    Config(
        name="succession-leases",
        about="two processes after the same key, and a failover that may lose the lease",
        processes=((LONE, ("fetch",)), (LONE, ("fetch",)), (LONE, (TELLS,))),
        invalidations=1,
        faults={"take_copy": 1, "fail_over": 1},
        start="warm",
        short=False,
    ),
    Config(
        name="nodes",
        about="two nodes with a child each",
        processes=((0, ("read",)), (1, ("read",)), (LONE, (TELLS,))),
        node_threads=(1, 1),
        ring=1,
        invalidations=1,
        start="warm",
        short=False,
    ),
    Config(
        name="chain-node",
        about="c computed from b, and b from a, in a child that follows a bus",
        keys=CHAIN,
        patterns=3,
        invalidated=(0,),
        processes=((0, ("compute",)), (LONE, (TELLS,))),
        node_threads=(1,),
        ring=1,
        invalidations=1,
        short=False,
    ),
    Config(
        name="chain-threads",
        about="as chain, and a second thread that reads while c is computed; all have read the log",
        keys=CHAIN,
        patterns=3,
        invalidated=(0,),
        processes=((LONE, ("compute", "read")), (LONE, (TELLS,))),
        invalidations=1,
        start="warm",
        short=False,
    ),
    Config(
        name="volatile-evicted",
        about="as volatile, and the server gives up records or the tail",
        processes=((0, ("read",)), (LONE, (TELLS,))),
        node_threads=(1,),
        invalidations=1,
        faults={"go_away": 1, "evict_tail": 1, "evict_records": 1},
        faults_in_all=2,
        start="warm",
        short=False,
    ),
    Config(
        name="everything",
        about="two nodes, a key with its dep, three invalidations of three patterns, and one fault of any kind",
        processes=((0, ("read",)), (1, ("read",)), (LONE, (TELLS,))),
        node_threads=(1, 1),
        ring=1,
        invalidations=3,
        trims=True,
        faults=dict.fromkeys(
            ("flush", "evict_tail", "evict_records", "evict_entry", "restart", "break_off", "break_off_main"), 1
        ),
        faults_in_all=1,
        start="warm",
        short=False,
        **THREE,
    ),
    Config(
        name="stale",
        about="entries past their time to live, within their grace",
        processes=((LONE, ("stale compute",)), (LONE, (TELLS,))),
        faults={"age_entry": 1},
        start="warm",
    ),
)
CONFIGS: Final[dict[str, Config]] = {config.name: config for config in _ALL}

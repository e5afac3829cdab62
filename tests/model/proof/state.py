"""What there is, in any number: epochs, records, processes, nodes, pages, reads, entries, keys and patterns.

Epochs are numbered in the order in which they began, and times are those of one clock. The steps compare epochs for equality
alone; their order, and whatever is called a ghost below, stand in the invariants only.
"""

from __future__ import annotations

from typing import Any, Final

import z3

from model.proof.logic import BOOL, ENTRY, EPOCH, INT, KEY, NODE, PAGE, PATTERN, PROCESS, READ, SEQ, TIME, Scope, State

PARTS: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    # -- fixed
    "means": ((PATTERN, KEY), BOOL),
    "bound": ((), TIME),  # the staleness bound
    "home": ((PROCESS,), NODE),
    "page_of": ((PAGE,), PROCESS),  # whose page it is
    "reader": ((READ,), PROCESS),
    "maker": ((ENTRY,), PROCESS),  # who computes it
    "key": ((ENTRY,), KEY),
    # -- time
    "now": ((), TIME),
    # -- the log in the server: `epoch` is the latest that has begun, `stands` whether its tail is there
    "epoch": ((), EPOCH),
    "stands": ((), BOOL),
    "last": ((EPOCH,), SEQ),  # the tail's seq; of former epochs the highest that there was
    "floor": ((), SEQ),
    "whole": ((), SEQ),
    "lost": ((), BOOL),  # the records were evicted, and no script has noted it yet
    "record": ((PATTERN,), SEQ),
    "contact": ((), INT),  # another number after each failover or restart: connections do not outlive it
    "bare": ((), BOOL),  # without a log that stands: whether there is no tail at all; else it is a former one:
    "old_epoch": ((), EPOCH),
    "old_seq": ((), SEQ),
    # ghosts: the whole history, by epoch and seq
    "pattern": ((EPOCH, SEQ), PATTERN),
    "called": ((EPOCH, SEQ), TIME),  # when `invalidate` was called
    "appended": ((EPOCH, SEQ), TIME),
    "done": ((EPOCH, SEQ), BOOL),  # it has returned, and when:
    "returned": ((EPOCH, SEQ), TIME),
    "began": ((EPOCH,), TIME),
    # -- an entry, from the beginning of its computation on: 0 not begun, 1 being computed, 2 computed
    "stage": ((ENTRY,), INT),
    "as_epoch": ((ENTRY,), EPOCH),
    "as_seq": ((ENTRY,), SEQ),
    "names": ((ENTRY, KEY), BOOL),  # its key and its deps
    "stored": ((ENTRY,), BOOL),  # was written to L2 at some time; L2 may have it, or not
    # ghosts: what it was truly computed from, and when each was read from its source
    "of": ((ENTRY, KEY), BOOL),
    "read_at": ((ENTRY, KEY), TIME),
    # -- L1
    "slot": ((PROCESS, ENTRY), BOOL),
    "judged": ((PROCESS, ENTRY), INT),  # the generation at which the slot was found valid
    # -- a process's view: what judges, published in one step, with its number `revision`; then `generation`; then `confirmed`
    "v_epoch": ((PROCESS,), EPOCH),
    "v_seq": ((PROCESS,), SEQ),
    "v_floor": ((PROCESS,), SEQ),
    "v_record": ((PROCESS, PATTERN), SEQ),
    "v_known": ((PROCESS,), BOOL),  # the log was read
    "v_answered": ((PROCESS,), TIME),  # a moment after the log's answer
    "revision": ((PROCESS,), INT),
    "generation": ((PROCESS,), INT),
    "confirmed": ((PROCESS,), TIME),
    "locked": ((PROCESS,), BOOL),
    "g_epoch": ((PROCESS,), EPOCH),  # ghosts: the position that belongs to `generation`
    "g_seq": ((PROCESS,), SEQ),
    "made": ((PROCESS,), INT),  # the latest contact that one of its connections leads to
    "contacts": ((PROCESS,), INT),  # that of its last reading of the log
    "followed": ((PROCESS,), INT),  # the bus's version that it has followed
    # -- a page: 0 none, 1 being read, 2 in hand, 3 state published, 4 generation published, 5 confirmed, 6 gone
    "at": ((PAGE,), INT),
    "p_epoch": ((PAGE,), EPOCH),
    "p_seq": ((PAGE,), SEQ),
    "p_floor": ((PAGE,), SEQ),
    "p_after": ((PAGE,), SEQ),
    "p_record": ((PAGE, PATTERN), SEQ),
    "p_restart": ((PAGE,), BOOL),
    "p_asked": ((PAGE,), TIME),  # below 0: it confirms nothing
    "p_came": ((PAGE,), TIME),  # when the log answered
    "p_contact": ((PAGE,), INT),  # below 0: it was not read from the log by this process
    "p_version": ((PAGE,), INT),  # of the bus that it was read from; below 0: of none
    # -- a read: 0 none, 1 begun, 2 leased, 3 L2 is asked, 4 has the entry, 5 has the tail, 6 the view is caught up, 7 has the
    # generation, 8 has judged; 9 and 10 the same before it keeps what it has in hand
    "step": ((READ,), INT),
    "begun": ((READ,), TIME),
    "lease": ((READ,), TIME),  # the moment of confirmation that its lease was granted by
    "asked": ((READ,), TIME),
    "found": ((READ,), BOOL),
    "entry": ((READ,), ENTRY),
    "r_generation": ((READ,), INT),
    "r_contact": ((READ,), INT),
    "no_tail": ((READ,), BOOL),
    "t_epoch": ((READ,), EPOCH),
    "t_seq": ((READ,), SEQ),
    "b_epoch": ((READ,), EPOCH),  # ghosts: where the node's bus stood when the lease was granted
    "b_seq": ((READ,), SEQ),
    "got_at": ((READ,), TIME),  # ghost: when the server gave the entry
    "stood": ((READ,), BOOL),  # ghost: the tail was that of a log that stands
    "t_latest": ((READ,), EPOCH),  # ghost: the latest epoch then
    # -- a node's bus. `n_epoch` below 0: of no log
    "n_epoch": ((NODE,), EPOCH),
    "n_seq": ((NODE,), SEQ),
    "n_floor": ((NODE,), SEQ),
    "n_base": ((NODE,), SEQ),
    "n_record": ((NODE, PATTERN), SEQ),
    "n_confirmed": ((NODE,), TIME),
    "n_version": ((NODE,), INT),
}


def any_state(scope: Scope) -> State:
    return State({name: scope.function(name, sorts, result) for name, (sorts, result) in PARTS.items()})


def no(value: Any) -> Any:
    return lambda *_: value


def first_state(scope: Scope) -> State:
    """Nothing has happened yet: no log, no entry. What is fixed may be anything."""
    s = any_state(scope)
    numbers = {name: no(z3.IntVal(0)) for name, (sorts, result) in PARTS.items() if sorts and result in (INT, TIME, SEQ, EPOCH)}
    flags = {
        name: no(z3.BoolVal(False)) for name, (sorts, result) in PARTS.items() if sorts and result == BOOL and name != "means"
    }
    constants = {name: z3.IntVal(0) for name in ("now", "epoch", "floor", "whole", "old_epoch", "old_seq")}
    never = no(z3.IntVal(-1))
    zeros = {**numbers, **flags, **constants, "contact": z3.IntVal(1), "bare": z3.BoolVal(True)}
    zeros |= {name: z3.BoolVal(False) for name in ("stands", "lost")}
    return s.but(**zeros | dict.fromkeys(("confirmed", "n_epoch", "n_confirmed", "followed"), never))

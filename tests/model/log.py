"""The log in the server: `lua/history.lua`, `append.lua`, `read.lua`; the tail and the page of `coherence/tail.py`."""

from __future__ import annotations

from msgspec.structs import replace

from model.state import NEVER, Log, Numbers, Page, Server
from model.stepping import Model, put, rule


@rule
def standing(_: Model, server: Server) -> bool:
    """Whether there is a tail, of this history of this server."""
    return server.log.epoch != 0 and server.log.history == server.history


@rule
def begun(model: Model, server: Server, epochs: int) -> tuple[Server, int]:
    """A log without records, of an epoch that never was."""
    log = Log(epochs + 1, server.history, 0, 0, (0,) * model.config.patterns, 0)
    return replace(server, log=log), epochs + 1


@rule
def append(model: Model, server: Server, patterns: Numbers, epochs: int, *, trims: bool = False) -> tuple[Server, int]:
    """One script. `trims`: all that is older goes, and the floor rises; it does so with an append only."""
    if not model.standing(model, server):
        server, epochs = model.begun(model, server, epochs)
    log = server.log
    before, seq, records = log.seq, log.seq, log.records
    for pattern in patterns:
        seq += 1
        records = put(records, pattern, seq)  # an equal pattern replaces its older record
    floor = model.trimmed(model, log, before) if trims else log.floor
    whole = max(floor, log.whole if log.whole != NEVER else before)
    records = tuple(0 if at <= floor else at for at in records) if trims else records
    return replace(server, log=Log(log.epoch, log.history, seq, floor, records, whole)), epochs


@rule
def trimmed(_: Model, __: Log, before: int) -> int:
    """The floor after a trim."""
    return before


@rule
def read(model: Model, server: Server, epoch: int, known: int, epochs: int) -> tuple[Server, int, Page]:
    """One script, and the page that its caller makes of the answer. `epoch` 0: the caller knows nothing."""
    log = server.log
    if not model.standing(model, server) or (log.epoch == epoch and known > log.seq):
        server, epochs = model.begun(model, server, epochs)
        return server, epochs, model.page_of(model, server.log, server.log.records, 0, restart=True)
    whole = log.whole if log.whole != NEVER else log.seq
    restart = not (epoch == log.epoch and known >= max(whole, log.floor))
    after = whole if restart else known
    return server, epochs, model.page_of(model, log, newer(log.records, after), after, restart=restart)


@rule
def page_of(_: Model, log: Log, records: Numbers, after: int, *, restart: bool) -> Page:
    """All that the log has after that. The latest record always has the tail's own seq; if it is not there, records were lost."""
    floor = max(log.floor, after) if restart else log.floor
    if log.seq > max(after, floor) and max(records, default=0) != log.seq:
        floor, records = log.seq, (0,) * len(records)
    return Page(log.epoch, log.seq, floor, 0 if restart else after, records, restart)


def newer(records: Numbers, after: int) -> Numbers:
    return tuple(seq if seq > after else 0 for seq in records)

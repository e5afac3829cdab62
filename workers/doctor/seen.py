"""What was observed of each part, as plain values: what the looks bring, and the checks judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from pipeline.cache.encoding.decoders import ready
from pipeline.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Server:
    """A Redis server, by one of its URLs. `away`: why nothing else is known; `login`: why it let nobody in;
    `crowded`: it takes no more connections, and that is why.

    `is_open`: it serves programs without a login, too. `config` is None where the user may not read it. `skew_s`: its clock less
    this machine's, as far as `round_trip_s` lets tell.
    """

    part: str
    where: str
    cli: str
    remote: bool = False
    tls: bool = False
    verified: bool = True
    has_login: bool = False
    is_open: bool = False
    away: str = ""
    crowded: bool = False
    login: str = ""
    info: Mapping[str, object] = field(default_factory=dict)
    config: Mapping[str, str] | None = None
    skew_s: float = 0.0
    round_trip_s: float = 0.0
    refused: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        return not self.away and not self.login

    @property
    def identity(self) -> str:
        """Equal for two URLs of one server."""
        return str(self.info.get("run_id", "")) or self.where

    def number(self, name: str) -> int:
        """A number of INFO; 0 where it is missing."""
        value = self.info.get(name, 0)
        return int(value) if isinstance(value, int | float) else 0

    def text(self, name: str) -> str:
        return str(self.info.get(name, ""))


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """Claims of a node that was last heard of so long ago; None: it is on no list of nodes."""

    node: str
    claims: int
    silent_s: float | None


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """What waits at the broker. `lists`: length by queue and step of priority. `oldest_s`: how long the next message of a queue
    waits. `denied`: what this user may not look at."""

    lists: Mapping[tuple[str, int], int] = field(default_factory=dict)
    oldest_s: Mapping[str, float] = field(default_factory=dict)
    orphans: tuple[Orphan, ...] = ()
    aside: int = 0
    overdue: int = 0
    overdue_s: float = 0.0
    letters: int = 0
    denied: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Of results or entries: how many names were looked at, and some of those without an end."""

    looked_at: int = 0
    endless: tuple[str, ...] = ()
    endless_count: int = 0
    denied: bool = False


@dataclass(frozen=True, kw_only=True)
class Log:
    """The invalidation log. `tail` is its text, None where there is none; `of_here` says whether it is this server's history.
    `alive`: the nodes that follow it."""

    tail: str | None = None
    epoch: str = ""
    seq: int = -1
    malformed: bool = False
    of_here: bool = True
    records: int = 0
    alive: tuple[str, ...] = ()
    checks: int = 0
    stale: int = 0
    denied: str = ""


@ready
class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker told of itself; see `workers.install.standing`. `skew_s`: its clock less this machine's, half a round trip
    more or less. `waits_s`: for how long the next message of each queue has waited. `lags`: it stood behind the log although
    it had time to follow."""

    name: str
    app: str = ""
    product: bool = False
    node: str = ""
    skew_s: float = 0.0
    epoch: str = ""
    seq: int = -1
    release: str = ""
    namespace: str = ""
    bound_s: float = 0.0
    max_ttl_s: float = 0.0
    model: str = ""
    endpoint: str = ""
    sampling: str = ""
    fetch: str = ""
    pool: str = ""
    queues: tuple[str, ...] = ()
    steps: tuple[int, ...] = ()
    accepts: tuple[str, ...] = ()
    acks_late: bool = True
    returns_lost: bool = True
    result_expires_s: float = 0.0
    prefetch: int = 0
    limit_s: float = 0.0
    visible_s: float = 0.0
    shows_secret: bool = False
    refused: tuple[str, ...] = ()
    waits_s: dict[str, float] = msgspec.field(default_factory=dict)
    lags: int = 0


@dataclass(frozen=True, kw_only=True)
class Stranger:
    """A worker that has no node: another project's, or a release without this command."""

    name: str
    queues: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """The workers that answered by remote control. `away`: why none could be asked. `denied`: this user may not ask."""

    told: tuple[Told, ...] = ()
    strangers: tuple[Stranger, ...] = ()
    away: str = ""
    denied: bool = False


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One entry of beat's schedule, and by how long it is overdue (less than 0: it is to come)."""

    name: str
    task: str
    overdue_s: float


@dataclass(frozen=True, kw_only=True)
class Beat:
    """`locked`: a beat holds the lock. `unlocked`: beats on this host, with this broker, by a scheduler that knows no lock."""

    locked: bool = False
    entries: tuple[Entry, ...] = ()
    unlocked: tuple[str, ...] = ()
    known: bool = True


@dataclass(frozen=True, kw_only=True)
class Site:
    """Something that answers HTTP. `status`: of the answer to a request, 0 for none, whose cause is `away`."""

    url: str
    status: int = 0
    away: str = ""
    took_s: float = 0.0
    models: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Seen:
    """All of it. What is None was not asked for (there is none), or did not answer in time: then its name is in `late`."""

    settings: Settings
    broker: Server | None = None
    results: Server | None = None
    cache: Server | None = None
    waiting: Waiting = field(default_factory=Waiting)
    kept_results: Kept = field(default_factory=Kept)
    kept_entries: Kept = field(default_factory=Kept)
    log: Log | None = None
    nodes: Nodes | None = None
    beat: Beat | None = None
    flower: Site | None = None
    model: Site | None = None
    showing: tuple[str, ...] = ()
    """Processes of this host with one of our passwords on their command line."""
    variables: tuple[str, ...] = ()
    """Variables of Celery that name another server than the settings do."""
    late: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    """What could not be looked at, and why."""

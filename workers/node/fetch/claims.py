"""What a node has claimed at the broker, and how a living node gives back what a dead one had.

Every item lies in exactly one place at any moment: in its queue, in the claims of one node, or aside until it is due. Each step
that moves one is a single command or script, so that a node may die, or its connection break, between any two. A claim that is
given back is removed by its whole text: of two that do so, one moves it, and the acknowledgement of a node that has lost it
removes nothing.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from redis.exceptions import ResponseError

from workers.node.guard.bounds import MAX_BYTES, is_readable
from workers.queue.aside.messages import ASIDE
from workers.queue.names import DELIVERIES_HEADER, RETURNS_HEADER

PREFIX: Final = "persona.fetch"
CLAIMS: Final = f"{PREFIX}.claims:"
SOURCES: Final = f"{PREFIX}.sources:"
NODES: Final = f"{PREFIX}.nodes"
"""A sorted set: nodes by the time of their last beat, in ms by the server's clock."""
TASKS: Final = f"{PREFIX}.tasks"
"""A sorted set: the tasks that nodes know, by the time at which one has last said so."""
KNOWN_MS: Final = 150_000
"""For so long a task counts as known: nodes name theirs once a minute."""
BEAT_S: Final = 3.0
SILENT_MS: Final = 10_000
"""The claims of a node that has not been heard of for so long are given back by others."""
FORGET_MS: Final = 600_000
"""For so long a silent node is looked after: what its connection had asked for may still reach it."""
PORTION: Final = 64
LOOK_DEPTH: Final = 1000
MOST_ASIDE: Final = 100_000
NEAR_S: Final = 4.0
"""What is due so soon is back in its list: nodes look every BEAT_S."""
DUE_PORTION: Final = 1000


class Claim(NamedTuple):
    """An item, and the list that it was claimed from."""

    source: str
    item: bytes


class Beat(NamedTuple):
    """What a beat has told: how many claims the server has of the node, silent others with claims or to be forgotten, and whether
    something that is aside is due."""

    claimed: int
    silent: list[str]
    due: bool


def node_name(host: str, pid: int) -> str:
    """A name that no other node has, ever."""
    return f"{host}/{pid}/{secrets.token_hex(4)}"


def claims_of(node: str, source: str) -> str:
    return f"{CLAIMS}{node}:{source}"


def sources_of(node: str) -> str:
    return f"{SOURCES}{node}"


def refused_needs(client: Any) -> dict[str, str]:
    """What this needs and the server does not do for this user, with its words: an older server lacks it, or a rule forbids it.

    A server that is only full, read-only or busy now lacks nothing.
    """
    name = f"{PREFIX}.probe"  # of which there is no list
    tried = {
        "BLMOVE": ("BLMOVE", name, name, "RIGHT", "LEFT", 0.001),
        "LPOS": ("LPOS", name, ""),
        "scripts (EVALSHA, EVAL)": ("EVAL", "return 1", 0),
    }
    refused = {}
    for need, words in tried.items():
        try:
            client.execute_command(*words)
        except ResponseError as error:
            if str(error).lower().startswith(("unknown command", "noperm", "no permission", "user ", "this user has no")):
                refused[need] = str(error)[:100]
    return refused


class Claims:
    """One node's claims. Not thread-safe, but for `acknowledge`. Methods raise RedisError.

    `sources` are the lists that it may claim from: register them by a `beat` before the first claim, and no less often than every
    BEAT_S.
    """

    def __init__(self, client: Any, node: str) -> None:
        self.node = node
        self._client = client
        self._scripts: dict[str, Any] = {}
        self._registered: frozenset[str] = frozenset()

    # -- this node's own

    def beat(self, sources: Sequence[str]) -> Beat:
        """Show that the node lives."""
        keys = [NODES, sources_of(self.node), ASIDE, *(claims_of(self.node, source) for source in sources)]
        named = frozenset(sources)
        new = int(named != self._registered)
        arguments = [self.node, SILENT_MS, FORGET_MS, SOURCES, CLAIMS, int(NEAR_S * 1000), new, *sources]
        count, silent, due = self._run("beat", keys, arguments)
        self._registered = named
        return Beat(int(count), [name.decode(errors="replace") for name in silent], bool(due))

    def exchange(self, settled: Sequence[Claim], sources: Sequence[str], equals: int, limit: int) -> list[Claim]:
        """Give up these claims, and claim up to `limit` items: from the first `equals` sources in turns, then from the next.
        Items come in the order of their lists, and no more of them than have MAX_BYTES together, but for the last; of one that is
        longer, its short form is claimed (`workers.node.guard.bounds`). One round trip."""
        everywhere = list(dict.fromkeys([*sources, *(claim.source for claim in settled)]))
        places = {source: number for number, source in enumerate(everywhere, start=1)}
        keys = [name for source in everywhere for name in (source, claims_of(self.node, source))]
        arguments: list[Any] = [limit, max(1, equals), len(set(sources)), MAX_BYTES]  # none of a list that it only acknowledges
        for claim in settled:
            arguments += [places[claim.source], claim.item]
        reply = self._run("exchange", keys, arguments)
        return [Claim(everywhere[number - 1], item) for number, item in zip(reply[::2], reply[1::2], strict=True)]

    def name_tasks(self, names: Sequence[str]) -> None:
        """Tell other nodes which tasks this one knows."""
        self._run("known", [TASKS], [KNOWN_MS, "", *names])

    def is_known(self, task: str) -> bool:
        """Whether a node has lately said that it knows that task."""
        return bool(task and self._run("known", [TASKS], [KNOWN_MS, task]))

    def any_in(self, sources: Sequence[str]) -> bool:
        """Whether one of these lists has an item."""
        return bool(self._client.exists(*sources))

    def pick(self, source: str, items: Sequence[bytes]) -> list[Claim]:
        """Claim these, wherever they lie in the list; those that were still there."""
        if not items:
            return []
        picked = self._run("pick", [source, claims_of(self.node, source)], [MAX_BYTES, *items])
        return [Claim(source, item) for item, done in zip(items, picked, strict=True) if done]

    def oldest(self, source: str, most: int) -> list[bytes]:
        """Up to `most` items of a list that is not ours alone, the newest of them first, and as `exchange` bounds them. Claims
        nothing."""
        items: list[bytes] = self._run("oldest", [source], [most, MAX_BYTES])
        return items

    def look(self, seen: dict[str, bytes], most: int, *, deep: bool = False) -> dict[str, list[bytes]]:
        """Items that came into each list since the one that was seen last, up to `most`, the newest first. Claims nothing.
        `deep`: also when many have come in since; else, as when the one is gone, they are the oldest of the list. Bounded as
        those of `exchange`. Deep looks are for lists that are not ours alone: nothing in these is changed."""
        found = self._run("look", list(seen), [most, 0 if deep else LOOK_DEPTH, MAX_BYTES, int(not deep), *seen.values()])
        return dict(zip(seen, found, strict=True))

    def acknowledge(self, claim: Claim) -> None:
        """Give up one claim. From any thread."""
        self._client.lrem(claims_of(self.node, claim.source), -1, claim.item)

    def give_back(self, claims: Iterable[Claim], *, redelivered: bool) -> int:
        """Put claims back at the head of their lists, in the order in which they were claimed. How many were still claims."""
        by_source: dict[str, list[bytes]] = {}
        for claim in claims:
            by_source.setdefault(claim.source, []).append(claim.item)
        return sum(self._swap(self.node, source, reversed(items), redelivered) for source, items in by_source.items())

    def postpone(self, claim: Claim, due_s: float, headers: Mapping[str, Any]) -> bool:
        """Take a claim aside until that time, in seconds since 1970, with these headers more; False if too many are aside."""
        keys = [claims_of(self.node, claim.source), ASIDE]
        arguments = [claim.item, claim.source, int(due_s * 1000), marked(claim.item, headers), MOST_ASIDE]
        return bool(self._run("postpone", keys, arguments))

    def restore_due(self) -> int:
        """Put some of what is aside and soon due back to the head of its list; how many."""
        return int(self._run("due", [ASIDE], [int(NEAR_S * 1000), DUE_PORTION]))

    def kept(self, source: str) -> list[Claim]:
        """All claims from that list as the server has them, the oldest first."""
        return [Claim(source, item) for item in reversed(self._held(self.node, source))]

    def leave(self, sources: Iterable[str]) -> int:
        """Give back all, whatever this process knows of it, and let others look after what comes late; how many."""
        return self.take_over(self.node, sources)

    def take_over(self, node: str, sources: Iterable[str]) -> int:
        """The same, of a name that this process had before."""
        given = 0
        for source in sources:
            given += self._swap(node, source, self._held(node, source), redelivered=True)
        seconds, _ = self._client.time()
        self._client.zadd(NODES, {node: int(seconds) * 1000 - SILENT_MS})
        return given

    # -- another's

    def recover(self, dead: str) -> int:
        """Give back some claims of a node that has been silent, marked; how many. To be repeated while it gives some."""
        sources = sorted(name.decode(errors="replace") for name in self._client.smembers(sources_of(dead)))
        given = 0
        for source in sources:
            items = self._held(dead, source, PORTION)
            if items:
                moved = self._swap(dead, source, items, redelivered=True, counted=True, silent_ms=SILENT_MS)
                if moved < 0:
                    return given  # it lives
                given += moved
        if given == 0:
            keys = [NODES, sources_of(dead), *(claims_of(dead, source) for source in sources or [""])]
            self._run("forget", keys, [dead, FORGET_MS])
        return given

    # -- how

    def _held(self, node: str, source: str, most: int = 0) -> list[bytes]:
        items: list[bytes] = self._run("held", [claims_of(node, source)], [MAX_BYTES, most])
        return items

    def _swap(
        self,
        node: str,
        source: str,
        items: Iterable[bytes],
        redelivered: bool,
        *,
        counted: bool = False,
        silent_ms: int = 0,
    ) -> int:
        arguments: list[Any] = [node if silent_ms else "", silent_ms]
        for item in items:
            arguments += [item, _again(item, counted) if redelivered else item]
        if len(arguments) == 2:
            return 0
        return int(self._run("give_back", [claims_of(node, source), source, NODES], arguments))

    def _run(self, name: str, keys: Sequence[Any], arguments: Sequence[Any]) -> Any:
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self._client.register_script(_source(name))
        try:
            return script(keys, arguments)
        except ResponseError as error:
            if "compil" not in str(error).lower():
                raise
        # Redis 6.2 knows no flags. Then a full server refuses to give its messages away.
        _, _, source = _source(name).partition("\n")
        script = self._scripts[name] = self._client.register_script(source)
        return script(keys, arguments)


def deliveries(item_headers: Any) -> int:
    """How often a message's node has died with it."""
    return _count(item_headers, DELIVERIES_HEADER)


def _count(item_headers: Any, name: str) -> int:
    count = item_headers.get(name) if isinstance(item_headers, dict) else None
    return count if type(count) is int and count > 0 else 0


def marked(item: bytes, headers: Mapping[str, Any], *, redelivered: bool = False) -> bytes:
    """The item with these headers more. What cannot be read stays as it is."""
    if not is_readable(item):
        return item
    try:
        envelope = json.loads(item)
        envelope["headers"] |= headers
        if redelivered:
            envelope["properties"]["delivery_info"]["redelivered"] = True
        return json.dumps(envelope).encode()
    except (ValueError, TypeError, KeyError, RecursionError):
        return item


def _again(item: bytes, counted: bool) -> bytes:
    """The item as one that is delivered again; `counted`: its node has died with it. Another text than that of each delivery
    before: a node may still have one of these in hand, or on its way, and claim this one as well."""
    if not is_readable(item):
        return item
    try:
        headers = json.loads(item)["headers"]
        new = {"redelivered": True, RETURNS_HEADER: _count(headers, RETURNS_HEADER) + 1}
    except (ValueError, TypeError, KeyError, RecursionError):
        return item
    if counted:
        new[DELIVERIES_HEADER] = deliveries(headers) + 1
    return marked(item, new, redelivered=True)


def _source(name: str) -> str:
    """A script, with what it uses before it."""
    source = _read(name)
    flags, _, rest = source.partition("\n")
    return f"{flags}\n{_read('short')}{rest}" if "short(" in rest or "told(" in rest else source


def _read(name: str) -> str:
    return (Path(__file__).with_name("lua") / f"{name}.lua").read_text(encoding="utf-8")

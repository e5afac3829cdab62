"""Which node is meant: its name, which workers of one host share unless they are given others, and the process behind it."""

from __future__ import annotations

import re
import secrets
from collections import Counter
from collections.abc import Iterable
from typing import Final

_ID: Final = re.compile(r"(.*)/(\d+)-[0-9a-f]{4}", re.DOTALL)


def node_id(name: str, pid: int) -> str:
    """A node's own id: another for each start of each worker. The pid alone is not, where containers share a host's name."""
    return f"{name}/{pid}-{secrets.token_hex(2)}"


def name_of(node: str) -> str:
    """The name in a node's id. A node of an older release has none but its name."""
    parts = _ID.fullmatch(node)
    return parts.group(1) if parts else node


def shown_nodes(nodes: Iterable[str]) -> dict[str, str]:
    """How these nodes are told apart for people, by their ids: by the name alone; `name/pid` where several share it; the whole id
    where they share the pid, too. A node without an id of its own keeps its name."""
    each = set(nodes)
    named = Counter(map(name_of, each))
    placed = Counter(map(_placed, each))
    return {
        node: name_of(node) if named[name_of(node)] == 1 else _placed(node) if placed[_placed(node)] == 1 else node
        for node in each
    }


def _placed(node: str) -> str:
    parts = _ID.fullmatch(node)
    return f"{parts.group(1)}/{parts.group(2)}" if parts else node

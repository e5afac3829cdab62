"""Which node an app has in this program."""

from __future__ import annotations

import os
import weakref
from typing import Final

from celery import Celery

from pipeline.cache.coherence.bus import NodeBus
from pipeline.cache.coherence.identity import node_id
from pipeline.settings import Settings


class Node:
    """What one app's worker lends its processes: made before the pool forks, in the process that will be the main one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bus = NodeBus()
        self.id = ""
        """Empty in a program that is no worker, and until the worker begins."""

    def begin(self, hostname: str) -> str:
        """The node's id, from now on: workers of one host have one name, unless they are given others."""
        self.id = self.id or node_id(hostname, os.getpid())
        return self.id


_nodes: Final[weakref.WeakKeyDictionary[Celery, Node]] = weakref.WeakKeyDictionary()


def node_of(app: Celery) -> Node | None:
    """The node of an app that `workers.install` has installed in this program."""
    return _nodes.get(app)


def join(app: Celery, node: Node | None) -> None:
    """Make this the app's node; None: it has none any more."""
    if node is None:
        _nodes.pop(app, None)
    else:
        _nodes[app] = node

"""Processes of a test's own that begin at once."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext


def fresh_processes() -> ForkServerContext:
    """Where to begin processes that inherit nothing of the test's: no connection, no lock, no changed class. The cache is already
    imported there, which is most of what a start takes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.cache", "redis"])
    return context

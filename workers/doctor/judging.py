"""What the checks say to what was seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from workers.doctor.checks import beat, cache, coherence, keeping, nodes, queues, servers, settings, sites, work
from workers.doctor.finding import Finding, error
from workers.doctor.seen import Seen, Server

OF_ALL: Final = (
    *cache.BY_ALL,
    *queues.CHECKS,
    *nodes.CHECKS,
    *work.CHECKS,
    *coherence.CHECKS,
    *beat.CHECKS,
    *sites.CHECKS,
    *settings.CHECKS,
)
COUNT: Final = len(OF_ALL) + len(servers.CHECKS) + len(keeping.CHECKS) + len(keeping.BY_SETTINGS) + len(cache.CHECKS) + 1
"""How many different checks there are, that of parts that are late included."""


def judge(seen: Seen) -> tuple[Finding, ...]:
    """The findings, errors first; those of one part together."""
    found = [*_late(seen), *_of_servers(seen), *(finding for check in OF_ALL if (finding := check(seen)) is not None)]
    return tuple(sorted(found, key=lambda finding: finding.severity != "error"))


def _late(seen: Seen) -> Iterator[Finding]:
    for name in seen.late:
        why = "It was not seen to the end: what is wrong with it is not known."
        yield error(name, "late", "no answer within --timeout", why, "persona doctor --timeout 30")


def _of_servers(seen: Seen) -> Iterator[Finding]:
    """A server is judged once, whatever parts it has."""
    broker, results, stored = seen.broker, seen.results, seen.cache
    apart = results is not None and (broker is None or results.identity != broker.identity)
    for server in filter(None, (broker, results if apart else None)):
        yield from _run([*servers.CHECKS, *keeping.CHECKS], server)
        yield from (finding for check in keeping.BY_SETTINGS if (finding := check(seen, server)) is not None)
    if results is not None and not apart:
        yield from _run([servers.rights], results)
    if stored is not None:
        shared = broker is not None and stored.known and stored.identity == broker.identity
        yield from _run([servers.rights] if shared else [*servers.CHECKS, *cache.CHECKS], stored)


def _run(checks: list[Callable[[Server], Finding | None]], server: Server) -> Iterator[Finding]:
    for check in checks:
        if (finding := check(server)) is not None:
            yield finding

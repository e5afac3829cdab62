"""What processes and servers hold, at a moment."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import redis
from fleet import Fleet

TIMEOUT_S: Final = 1.0


class Sample(NamedTuple):
    """`values`: figures by what they are of, such as `rss_mb node1`. A server that does not answer has none."""

    at_s: float
    values: Mapping[str, float]


def sample(fleet: Fleet, at_s: float, steady: str) -> Sample:
    """`steady`: the node that nobody kills, whose memory and descriptors are told, those of its children together."""
    values: dict[str, float] = {}
    node = next(each for each in fleet.nodes if each.name == steady)
    with contextlib.suppress(OSError):
        values["rss_mb main"] = rss_mb(node.pid)
        values["descriptors main"] = descriptors(node.pid)
        for number, pid in enumerate(node.pids):
            values[f"rss_mb child {pid}"] = rss_mb(pid)
            values[f"descriptors child {pid}"] = descriptors(pid)
            values["children"] = number + 1
    values |= _server("broker", fleet.broker.url)
    values |= _server("cache", fleet.cache.url)
    return Sample(at_s, values)


def _server(name: str, url: str) -> dict[str, float]:
    """`keys`: those that do not end by themselves, of all databases."""
    found: dict[str, float] = {}
    with (
        contextlib.suppress(redis.RedisError, OSError),
        redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S) as client,
    ):
        found[f"connections {name}"] = float(client.info("clients")["connected_clients"])
        found[f"memory_mb {name}"] = client.info("memory")["used_memory"] / 2**20
        databases = client.info("keyspace").values()
        found[f"keys {name}"] = float(sum(each["keys"] - each["expires"] for each in databases))
        found[f"all_keys {name}"] = float(sum(each["keys"] for each in databases))
    return found


def rss_mb(pid: int) -> float:
    """Raises ProcessLookupError, as an OSError, also for one that has ended and that nobody has waited for."""
    status = Path(f"/proc/{pid}/status").read_text()
    told = next((line for line in status.splitlines() if line.startswith("VmRSS")), None)
    if told is None:
        raise ProcessLookupError(pid)
    return int(told.split()[1]) / 1024


def descriptors(pid: int) -> float:
    return float(len(list(Path(f"/proc/{pid}/fd").iterdir())))

"""What a server is asked while a benchmark only looks: by its own counts, and by a monitor that sees each sender."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

import redis

from benchmarks.kit.errors import BenchmarkFailedError

READY_S: Final = 5.0


class Listening:
    """`with Listening(url) as heard:` counts what the server does in the block. `calls`: by command, those within a script
    included, as INFO commandstats counts them, less what the counting itself sends. `received`: by the sender's port, what came
    from clients; what runs one of `scripts`, which are named by their digests, counts as that one's name. Complete when the
    block has ended."""

    def __init__(self, url: str, scripts: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._scripts = scripts or {}
        self.calls: Counter[str] = Counter()
        self.received: dict[int, Counter[str]] = {}

    def __enter__(self) -> Self:
        self._client = _connected(self._url, socket_timeout=READY_S)
        self._own = int(self._client.client_info()["addr"].rpartition(":")[2])
        self._monitor = _connected(self._url).monitor()
        self._monitor.__enter__()
        self._thread = threading.Thread(target=self._listen, name="listening", daemon=True)
        self._thread.start()
        self._before = _calls(self._client)
        return self

    def __exit__(self, *_: object) -> None:
        self.calls = _calls(self._client) - self._before - Counter({"info": 1})
        self._client.echo("the end")  # what came before it has been told when the monitor tells of it
        self._thread.join(READY_S)
        silent = self._thread.is_alive()
        self._monitor.__exit__(None, None, None)
        self._client.close()
        if silent:
            raise BenchmarkFailedError(["the server's monitor fell silent"])

    def _listen(self) -> None:
        for told in self._monitor.listen():
            if told["client_type"] != "tcp":
                continue  # a command within a script
            port, (word, *rest) = int(told["client_port"]), told["command"].split(" ", 2)
            name = self._scripts.get(rest[0] if rest else "", word.lower())
            if port != self._own:
                self.received.setdefault(port, Counter())[name] += 1
            elif name == "echo":
                return


def ports_of(pid: int) -> set[int]:
    """The local TCP ports that a process is connected from, by /proc: none on other systems, nor of a process that has ended."""
    found = set()
    for folder in Path(f"/proc/{pid}/fd").glob("*"):
        with suppress(OSError):
            found.add(str(folder.readlink()).removeprefix("socket:[").removesuffix("]"))
    with suppress(OSError):
        lines = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
        return {int(line[1].rpartition(":")[2], 16) for line in lines if line[9] in found}
    return set()


def children_of(pid: int) -> Iterator[int]:
    """A process's children, theirs included, by /proc."""
    with suppress(OSError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()):
            yield child
            yield from children_of(child)


def by_sender(received: Mapping[int, Counter[str]], senders: Mapping[str, set[int]]) -> dict[str, Counter[str]]:
    """What was received, by the sender that has the port; `other` has none."""
    named = {port: name for name, ports in senders.items() for port in ports}
    found: dict[str, Counter[str]] = {}
    for port, counted in received.items():
        found.setdefault(named.get(port, "other"), Counter()).update(counted)
    return found


def _connected(url: str, **options: Any) -> Any:
    """A client, whose library has not typed all of it."""
    return redis.Redis.from_url(url, **options)


def _calls(client: Any) -> Counter[str]:
    stats: dict[str, Any] = client.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items()})

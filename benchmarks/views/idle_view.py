"""What an idle node sends: all of it, by command, and by process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from benchmarks.views.view import Table, View, shown, shown_number

_TEXT: Final = """
Nodes by the default settings that nobody asks, without the scheduler and Flower. All figures are a second and a node.
*Received*: what clients sent, by the server's MONITOR. *Calls*: what the server ran, by INFO commandstats, so that a script
counts once as itself and once more for each command within it; INFO's `total_commands_processed` counts the same. The
counting's own questions are taken off.
"""
_SERVERS: Final = ("cache", "broker")
_SENT: Final = re.compile(r"nodes(\d+)_(cache|broker)_received_(main|children|other)_(.+)_per_s")
_RAN: Final = re.compile(r"nodes(\d+)_(cache|broker)_calls_(.+)_per_s")


def view_idle(figures: Mapping[str, float]) -> View:
    nodes = sorted({int(match[1]) for name in figures if (match := re.match(r"nodes(\d+)_", name))})
    sums = Table(
        ("nodes", "received", "calls", "cache: received", "calls", "broker: received", "calls"),
        tuple((str(count), *shown(figures, *_names(f"nodes{count}"))) for count in nodes),
    )
    sent = [(match, number) for name, number in figures.items() if (match := _SENT.fullmatch(name))]
    ran = [(match, number) for name, number in figures.items() if (match := _RAN.fullmatch(name))]
    return View(
        text=_TEXT,
        tables=(
            sums,
            Table(
                ("received", "a second"),
                tuple((_subject(match[1], match[2], match[4], match[3]), shown_number(number)) for match, number in sent),
                "By sender",
            ),
            Table(
                ("calls", "a second"),
                tuple((_subject(match[1], match[2], match[3]), shown_number(number)) for match, number in ran),
                "By command",
            ),
        ),
    )


def _names(prefix: str) -> list[str]:
    of_all = ["received_per_s", "calls_per_s"]
    return [f"{prefix}_{name}" for name in (*of_all, *(f"{server}_{name}" for server in _SERVERS for name in of_all))]


def _subject(nodes: str, server: str, command: str, sender: str = "") -> str:
    of = f", {sender}" if sender else ""
    return f"{nodes} node{'s' if nodes != '1' else ''}, {server}{of}: {command}"

"""The table of one whole run, as lines, and its place in docs/doctor.md: `python -m doctor --record`."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from fleet import ROOT

from doctor.planting import Said, name_of
from workers.doctor.finding import Finding

PAGE: Final = ROOT / "docs" / "doctor.md"
BEGIN: Final = "<!-- the table: `PYTHONPATH=tests python -m doctor --record` -->\n"
END: Final = "<!-- the end of the table -->\n"
HEADING: Final = "| planted | named | seen |\n|---|---|---|"


def rows(said: Said) -> Iterator[str]:
    """A row of the table for each name that the fault must lead to."""
    named = [f"{finding.severity}, `{name_of(finding)}`" for finding in said.findings] + [f"NOT {name}" for name in said.missing]
    seen = [finding.seen for finding in said.findings] + [""] * len(said.missing)
    for number, (name, text) in enumerate(zip(named, seen, strict=True)):
        yield f"| {said.what if number == 0 else ''} | {name} | {text.replace('|', '/')} |"


def healthy_line(name: str, found: Sequence[Finding]) -> str:
    return f"healthy: {name}: {'; '.join(f'{name_of(finding)} ({finding.seen})' for finding in found) or 'nothing'}"


def counts(said: Sequence[Said], healthy: Mapping[str, Sequence[Finding]]) -> str:
    """All of it in a sentence or two."""
    named = sum(not one.missing for one in said)
    quiet = sum(not found for found in healthy.values())
    planted = f"Of {len(said)} planted faults {named} were named, by {sum(len(one.findings) for one in said)} findings."
    well = f"Of {len(healthy)} healthy stacks {quiet} led to none."
    return " ".join([planted] * bool(said) + [well] * bool(healthy))


def record(said: Sequence[Said], healthy: Mapping[str, Sequence[Finding]]) -> None:
    """Put a run into the page, in the place of the one before. This machine's name is not told."""
    table = [HEADING, *(row for one in said for row in rows(one))]
    lines = [healthy_line(name, found) for name, found in healthy.items()]
    text = "\n".join([counts(said, healthy), "", *table, "", "```", *lines, "```"]).replace(socket.gethostname(), "host")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n\n{END}{after}", encoding="utf-8")

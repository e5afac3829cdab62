"""The table of the last runs in docs/reliability.md: by `python -m reliability --record`, or from a file that `--json` made."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fleet import ROOT

from reliability.registry import ROWS

PAGE: Final = ROOT / "docs" / "reliability.md"
RECORD: Final = ROOT / "docs" / "reliability.json"
BEGIN: Final = "<!-- the table: `make test-faults` -->\n"
END: Final = "<!-- the end of the table -->\n"
_COLUMNS: Final = ("row", "what befalls", "times", "tasks", "lost", "wrong", "twice", "back after s at most", "stock Celery")


def table(recorded: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each row that was run."""
    lines = [f"| {' | '.join(_COLUMNS)} |", f"|{'---|' * len(_COLUMNS)}"]
    for row in ROWS:
        if row.name in recorded:
            figures = recorded[row.name]
            back = f"{max(figures['back_s']):.1f}" if figures["back_s"] else "-"
            counts = (f"{figures[name]:,}" for name in ("trials", "tasks", "lost", "wrong", "twice"))
            stock = row.stock or "-"
            if "stock_lost" in figures["more"]:
                stock = f"loses {figures['more']['stock_lost']:g} of {figures['more']['stock_trials']:g}"
            lines.append(f"| `{row.name}` | {' | '.join((row.title, *counts, back, stock))} |")
    return "\n".join(lines) + "\n"


def record(new: Mapping[str, Mapping[str, Any]]) -> None:
    """Put these rows into the record, in the place of earlier runs of them, and the table into the page."""
    recorded: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    merged = recorded | {name: dict(figures) for name, figures in new.items()}
    ordered = {row.name: merged[row.name] for row in ROWS if row.name in merged}
    RECORD.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), table(ordered)), encoding="utf-8")


def with_table(page: str, new: str) -> str:
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{new}\n{END}{after}"


if __name__ == "__main__":
    for path in sys.argv[1:]:
        record(json.loads(Path(path).read_text(encoding="utf-8")))

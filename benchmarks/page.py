"""The results of a run in a folder: a record of each benchmark as JSON, its plots, and one page made from all records there.

DIR/benchmarks.md, and DIR/benchmarks/NAME.json, NAME-PLOT.png, NAME-PLOT.svg
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.registry import all_benchmarks
from benchmarks.views.plots import HOW_TO_INSTALL, SUFFIXES, draw, plots_available
from benchmarks.views.view import Table, View, as_list

PAGE: Final = "benchmarks.md"
FOLDER: Final = "benchmarks"
_MOMENTARY: Final = ("load_1m", "date")  # of the machine's facts: they differ from one benchmark of a run to the next


class Report:
    """The folder of a run's results. Files appear whole or not at all."""

    def __init__(self, directory: Path) -> None:
        """Makes the folder. Raises OSError naming the path."""
        self.page = directory / PAGE
        self.folder = directory / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)

    def record(self, document: Mapping[str, Any], *, quick: bool, problems: Sequence[str] = ()) -> None:
        """Keep one benchmark's document in place of its last one. With `problems` its figures are not kept: they are wrong.
        A run that measured nothing, since a program is not installed here, leaves the last one's record."""
        place = self._path(document["bench"])
        if not document["figures"] and not problems and place.exists():
            return
        kept = dict(document)
        if quick:
            kept["quick"] = True
        if problems:
            kept |= {
                "figures": {},
                "problems": list(problems[:1]),
            }  # the rest may be lines of a log, with paths of the machine
        _write(place, json.dumps(kept, ensure_ascii=False, indent=2) + "\n")

    def write_page(self) -> tuple[str, ...]:
        """Draw the plots and write the page, from every record in the folder. Returns notes on what was left out."""
        records = [json.loads(path.read_text(encoding="utf-8")) for path in map(self._path, all_benchmarks()) if path.exists()]
        notes = []
        if not plots_available():
            notes.append(f"no plots: matplotlib is not installed ({HOW_TO_INSTALL})")
        drawn: dict[str, list[str]] = {}
        for record in records:
            for suffix in SUFFIXES:
                for old in self.folder.glob(f"{record['bench']}-*{suffix}"):
                    old.unlink()
            if plots_available():
                drawn[record["bench"]] = draw(_view(record).plots, self.folder, record["bench"])
        _write(self.page, page_of(records, drawn))
        return tuple(notes)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def page_of(records: Sequence[Mapping[str, Any]], drawn: Mapping[str, Sequence[str]]) -> str:
    """The page, in Markdown. `drawn`: by benchmark, the names of the plots that lie in the folder."""
    return "\n\n".join(_paragraphs(records, drawn)) + "\n"


def _paragraphs(records: Sequence[Mapping[str, Any]], drawn: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield "# Benchmarks"
    yield (
        "Made by `make bench` from its last run; an edit here would be lost with the next one. `python -m benchmarks NAME` "
        "measures one of them anew and prints it, with `--out docs` it also puts it here. Every run checks the answers that it "
        "measures: a wrong one fails it and leaves no figures. A ratio is one of medians of rounds taken in turn, and behind it "
        "stand the smallest and the largest of any one round."
    )
    places = [_place(record) for record in records]
    common = bool(places) and all(place == places[0] for place in places)
    if common:
        yield places[0]
    if any(record.get("quick") for record in records):
        yield "**Some of these figures come from `--quick`: too few measurements to be quoted. They are marked.**"
    for record, place in zip(records, places, strict=True):
        yield from _section(record, drawn.get(record["bench"], ()))
        if not common:
            yield place


def _section(record: Mapping[str, Any], drawn: Sequence[str]) -> Iterator[str]:
    name = record["bench"]
    yield f"## {name}{' (quick: not to be quoted)' if record.get('quick') else ''}"
    yield all_benchmarks()[name].about
    if all_benchmarks()[name].long:
        yield f"It takes many minutes, and `make bench` leaves it out: `python -m benchmarks {name} --out docs` renews it."
    if record.get("problems"):
        yield "**It failed in the last run, and has no figures:**"
        yield "\n".join(f"- {problem}" for problem in record["problems"])
        return
    view = _view(record)
    if view.text:
        yield view.text.strip()
    for table in view.tables:
        if table.title:
            yield f"### {table.title}"
        yield _markdown(table)
    titles = {f"{name}-{plot.name}": plot.title for plot in view.plots}
    for plot in drawn:
        yield f"![{titles[plot]}]({FOLDER}/{plot}.svg)"
    for note in record.get("notes", ()):
        yield f"Note: {note}"
    if not view.tables:
        yield _markdown(as_list(record["figures"]))
    files = [f"[JSON]({FOLDER}/{name}.json)", *(f"[{titles[plot]} (PNG)]({FOLDER}/{plot}.png)" for plot in drawn)]
    yield f"Files: {', '.join(files)}"
    if view.tables:
        yield f"<details><summary>All figures of {name}</summary>"
        yield _markdown(as_list(record["figures"]))
        yield "</details>"


def _place(record: Mapping[str, Any]) -> str:
    """The machine of the measurement; equal for the benchmarks of one run on one machine."""
    facts = [f"{key} {fact}" for key, fact in record["machine"].items() if key not in _MOMENTARY]
    versions = [f"{key} {version}" for key, version in record["versions"].items()]
    date = record["machine"].get("date", "")
    return f"Measured{f' on {date}' if date else ''}: {', '.join(facts)}. Versions: {', '.join(versions)}."


def _view(record: Mapping[str, Any]) -> View:
    view = all_benchmarks()[record["bench"]].view
    return view(record["figures"]) if view is not None and record["figures"] else View()


def _markdown(table: Table) -> str:
    align = ["---", *["---:"] * (len(table.header) - 1)]
    rows = [table.header, align, *table.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _write(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)

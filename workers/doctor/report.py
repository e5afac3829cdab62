"""The outcome of one examination, as a document and as lines of a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final

import msgspec

from workers.doctor.finding import Finding, counted
from workers.doctor.judging import COUNT
from workers.doctor.seen import Seen, Server

NOT_KEPT: Final = "CONFIG SET holds until the server restarts: write it into its configuration file, too."


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`healthy`: no error. `parts`: what answered, in a few words each. `unseen`: what could not be looked at, and why."""

    healthy: bool
    errors: int
    warnings: int
    findings: tuple[Finding, ...]
    parts: dict[str, str]
    unseen: tuple[str, ...]
    checks: int
    took_s: float


def report_of(seen: Seen, findings: tuple[Finding, ...], took_s: float) -> Report:
    errors = sum(finding.severity == "error" for finding in findings)
    return Report(
        healthy=not errors,
        errors=errors,
        warnings=len(findings) - errors,
        findings=findings,
        parts=dict(_parts(seen)),
        unseen=seen.unseen,
        checks=COUNT,
        took_s=round(took_s, 3),
    )


def lines_of(report: Report, width: int) -> Iterator[tuple[str, str]]:
    """Each line with its style. Commands are not broken, so that they can be copied; a narrow terminal breaks them by itself."""
    for finding in report.findings:
        style = "bold red" if finding.severity == "error" else "bold yellow"
        yield f"{finding.severity.upper()}  {finding.part}: {finding.name}", style
        for label, text in (("seen", finding.seen), ("why", finding.why)):
            yield from ((line, "") for line in _wrapped(label, text, width))
        yield f"  mend  {finding.mend}", ""
        yield "", ""
    for number, (name, told) in enumerate(report.parts.items()):
        yield from ((line, "dim") for line in _wrapped("parts" if not number else "", f"{name}: {told}", width, label_width=7))
    for number, text in enumerate(report.unseen):
        yield from ((line, "dim") for line in _wrapped("unseen" if not number else "", text, width, label_width=7))
    if any("CONFIG SET" in finding.mend for finding in report.findings):
        yield from ((line, "") for line in _wrapped("note", NOT_KEPT, width, label_width=7))
    yield "", ""
    yield _summary(report), "bold"


def _summary(report: Report) -> str:
    if not report.findings:
        return f"Nothing found: {report.checks} checks in {report.took_s:.1f} s."
    counts = [counted(report.errors, "error")] * bool(report.errors) + [counted(report.warnings, "warning")] * bool(
        report.warnings
    )
    return f"{' and '.join(counts)}, of {report.checks} checks in {report.took_s:.1f} s."


def _wrapped(label: str, text: str, width: int, *, label_width: int = 4) -> list[str]:
    first = f"  {label:<{label_width}}  "
    return textwrap.wrap(
        text,
        width=max(40, width),
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _parts(seen: Seen) -> Iterator[tuple[str, str]]:
    for server in filter(None, (seen.broker, seen.results, seen.cache)):
        if server.known:
            yield server.part, _server(server)
    if seen.nodes is not None and seen.nodes.told:
        yield "nodes", ", ".join(f"{node.name} ({node.pool})" for node in seen.nodes.told[:5])
    if seen.log is not None and seen.log.tail is not None:
        yield "log", f"{seen.log.tail}, {counted(seen.log.records, 'record')}, followed by {counted(len(seen.log.alive), 'node')}"
    if seen.beat is not None and seen.beat.locked:
        yield "beat", f"leads, with {counted(len(seen.beat.entries), 'task')}"
    for name, site in (("flower", seen.flower), ("model", seen.model)):
        if site is not None and not site.away:
            yield name, f"{site.url}, answers in {1000 * site.took_s:.0f} ms"


def _server(server: Server) -> str:
    name = "Valkey" if server.text("valkey_version") else "Redis"
    version = server.text("valkey_version") or server.text("redis_version") or "?"
    most = server.number("maxmemory")
    memory = f"{server.number('used_memory') / 2**20:.0f} MB" + (f" of {most / 2**20:.0f} MB" if most else "")
    return f"{server.where}, {name} {version}, {memory}, {'TLS' if server.tls else 'no TLS'}"

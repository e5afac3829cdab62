"""Requests from a file: one JSON object a line."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from pipeline.errors import InvalidRequestError
from pipeline.models import PersonaRequest
from workers.cli.terminal.failures import BAD_USAGE, CommandError

EXAMPLES: Final = Path(__file__).with_name("requests.jsonl")


def read_requests(path: Path) -> list[PersonaRequest]:
    """Every request of the file, validated. Raises CommandError naming the file, the line and the field."""
    if not path.exists():
        raise CommandError("usage", str(path), "no such file; name one with --requests", exit_code=BAD_USAGE)
    if not path.is_file():
        raise CommandError("usage", str(path), "is not a regular file", exit_code=BAD_USAGE)
    requests = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if line.strip():
            requests.append(_request(line, f"{path.name}:{number}"))
    if not requests:
        raise CommandError("usage", str(path), "holds no request; expected one JSON object a line", exit_code=BAD_USAGE)
    return requests


def _request(line: bytes, place: str) -> PersonaRequest:
    try:
        return PersonaRequest.from_wire(msgspec.json.decode(line))
    except InvalidRequestError as error:
        raise CommandError("invalid_request", f"{place}: {error.field}", error.problem, exit_code=BAD_USAGE) from None
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested too deeply
        raise CommandError("invalid_request", place, f"is not JSON: {error}", exit_code=BAD_USAGE) from None

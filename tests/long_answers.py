"""Responders whose answers, or errors, are longer than an outcome may be."""

from __future__ import annotations

from pipeline.errors import PermanentModelError
from pipeline.prompts import Prompt
from pipeline.settings import Settings

LENGTH = 20_000


class _Long:
    model = "long"
    fingerprint = "long"

    def __init__(self, raising: bool) -> None:
        self._raising = raising

    def respond(self, prompt: Prompt) -> str:  # noqa: ARG002 - whatever is asked
        if self._raising:
            raise PermanentModelError("x" * LENGTH)
        return "x" * LENGTH


def returns(settings: Settings) -> _Long:
    return _Long(raising=False)


def raises(settings: Settings) -> _Long:
    return _Long(raising=True)

"""The errors that callers of the pipeline may meet. Every message says what to do."""

from __future__ import annotations


class PipelineError(Exception):
    """Base class of every error that the pipeline raises on purpose."""


class InvalidRequestError(PipelineError, ValueError):
    """A request that no retry can mend.

    `field` is the path of the field (`context.history[2].role`), `problem` one sentence with the value and what is allowed.
    Only the message is in `args`, so that the error crosses a result backend as text.
    """

    def __init__(self, field: str, problem: str = "") -> None:
        if problem:
            self.field, self.problem = field, problem
        else:  # rebuilt by a result backend from `args`, which hold the whole message
            self.field, _, self.problem = field.partition(": ")
        super().__init__(f"{self.field}: {self.problem}")


class ConfigurationError(PipelineError):
    """A setting, a persona file or an affinity table is wrong; the message names the variable or the file."""


class MissingExtraError(ConfigurationError):
    """A package that only some programs need is not installed; the message says which command installs it."""

    def __init__(self, packages: str, needed_by: str, extra: str) -> None:
        super().__init__(f"{needed_by} needs {packages}, not installed here: pip install 'persona-worker[{extra}]'")


class ModelError(PipelineError):
    """The model endpoint did not answer as it should."""


class TransientModelError(ModelError):
    """Worth another try: time-out, lost connection, overload, rate limit."""


class PermanentModelError(ModelError):
    """Another try would end the same: bad key, unknown model, a prompt that does not fit."""

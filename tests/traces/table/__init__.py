"""The table: each step that a trace may have, when it is allowed, and by which rules of `tests/model`.

Where a rule of the model can be asked about what the trace says, it is asked (`MODEL.valid(...)`): then the two cannot drift
apart. Where the model's own state makes that impossible (one key, one source, moments counted in returns), the condition is
written out here, and names the rule that it stands for. A condition returns what forbids the step; nothing if it is allowed.

A step is forbidden only if no order of events allows it: a judgement is right if any of the states that the thread may have seen
makes it right, and an append counts as one that the step should have known only if it had returned before the step began.
"""

from __future__ import annotations

from typing import Final

from traces.table import knowing, listening, serving  # noqa: F401 - they enter their rows
from traces.table.rows import ROWS

UNOBSERVABLE: Final = {
    "begin_refresh": "a computation of something else, in the model; a trace has the reading of the log",
    "go_on": "nothing changes: the server could not be reached, and the thread goes on by what it knows",
    "lead_alone": "to compute for oneself is allowed at any time: it only costs",
    "miss": "nothing is served, which is always allowed",
    "node_idle": "nothing changes",
    "tell": "a notice may be lost or late: that it was sent promises nothing",
    "tell_volatile": "as `tell`",
    "wait": "nothing happens until the flight that is waited for has ended",
}
"""The model's rules that no row stands for, with the reason."""

__all__ = ["ROWS", "UNOBSERVABLE"]

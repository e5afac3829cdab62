"""The limits of one task, of its message's and its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from workers.queue.outcomes.limits import limits_of


class Own(NamedTuple):
    time_limit: float | None = 85
    soft_time_limit: float | None = 75


@pytest.mark.parametrize(
    ("given", "own", "meant"),
    [
        ((None, None), Own(), (None, None)),
        ((60, 1), Own(), (60, 1)),
        ((2, None), Own(), (2, 2)),
        ((2, 30), Own(), (2, 2)),
        ((None, 100), Own(), (85, 85)),
        ((80, None), Own(), (80, None)),
        ((2, None), Own(None, None), (2, None)),
        ((None, 5), Own(None, None), (None, 5)),
        (["x", {}], Own(), ["x", {}]),
        ([1, 2, 3], Own(), [1, 2, 3]),
    ],
    ids=str,
)
def test_the_soft_limit_is_never_the_longer_one(given: Any, own: Own, meant: Any) -> None:
    """What fits already, or is no pair of limits, stays as it is."""
    assert limits_of(given, own) == meant

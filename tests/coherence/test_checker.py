"""The checker by itself: histories written by hand, each with one promise broken or just kept."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from coherence.checker import check
from coherence.history import Applied, Made, Read, Record, Written

BOUND_S = 0.5
S = 1_000_000_000
HERE, ELSEWHERE = 1, 2


def made(version: int, *, began_s: float = 0.0, key: str = "k") -> Made:
    return Made(f"{key}@{version}", key, {key: version}, int(began_s * S))


def acknowledged(version: int, ended_s: float, *, pid: int = ELSEWHERE, durable: bool = True, key: str = "k") -> Written:
    ended_ns = int(ended_s * S)
    return Written(
        id=f"w{version}",
        pid=pid,
        patterns=(key,),
        versions={key: version},
        began_ns=ended_ns - 1000,
        ended_ns=ended_ns,
        durable=durable,
    )


def read(version: int, began_s: float, source: str, *, key: str = "k", **more: Any) -> Read:
    began_ns = int(began_s * S)
    fields: dict[str, Any] = {
        "pid": HERE,
        "node": "",
        "key": key,
        "made": f"{key}@{version}",
        "versions": {key: version},
        "source": source,
        "began_ns": began_ns,
        "ended_ns": began_ns + 1000,
        "operation_ns": began_ns,
        "direct": (key,) if source == "no" else (),
    }
    return Read(**fields | more)


def broken_rules(*history: Record) -> set[str]:
    return check(history, BOUND_S).rules


@pytest.mark.parametrize("source", ["l2", "no", "joined"])
def test_what_l2_served_after_an_acknowledgement_must_be_as_new(source: str) -> None:
    """A value that a read computed, or shares with another computation, counts the same."""
    history: list[Record] = [made(1), made(2, began_s=2.0), acknowledged(2, 1.0)]
    direct = ("k",)
    assert broken_rules(*history, read(1, 1.1, source, direct=direct)) == {"l2"}
    assert broken_rules(*history, read(2, 2.1, source, direct=direct)) == set()
    assert broken_rules(*history, read(1, 0.9, source, direct=direct)) == set(), "it began before"


def test_what_l1_served_may_be_older_by_the_bound_and_no_more() -> None:
    """The bound counts from the acknowledgement to the moment at which the read began."""
    history: list[Record] = [made(1), acknowledged(2, 1.0)]
    assert broken_rules(*history, read(1, 1.0 + BOUND_S - 0.001, "l1")) == set()
    assert broken_rules(*history, read(1, 1.0 + BOUND_S + 0.001, "l1")) == {"bound"}


def test_a_stale_input_of_a_value_is_a_stale_value() -> None:
    """An acknowledgement of a dependency covers every value that was computed from it."""
    response = Made("r", "r", {"r": 7, "k": 1}, 0)
    served = read(7, 1.1, "l2", key="r", made="r", versions={"r": 7, "k": 1})
    assert broken_rules(response, acknowledged(2, 1.0), served) == {"l2"}


def test_a_computed_value_is_judged_by_its_inputs_as_they_came() -> None:
    """A version taken from the source itself must be fresh; one that came through the cache may be as stale as an L1 may be, when
    the whole operation began."""
    response = Made("r", "r", {"r": 7, "k": 1}, 0)

    def computed(began_s: float, operation_s: float, direct: tuple[str, ...]) -> Read:
        return read(
            7,
            began_s,
            "no",
            key="r",
            made="r",
            versions={"r": 7, "k": 1},
            operation_ns=int(operation_s * S),
            direct=direct,
        )

    history: list[Record] = [response, acknowledged(2, 1.0)]
    assert broken_rules(*history, computed(1.4, 1.4, ("r", "k"))) == {"l2"}
    assert broken_rules(*history, computed(1.4, 1.4, ("r",))) == set()
    assert broken_rules(*history, computed(1.6, 1.4, ("r",))) == set()
    assert broken_rules(*history, computed(1.6, 1.6, ("r",))) == {"bound"}


@pytest.mark.parametrize("source", ["l1", "l2"])
@pytest.mark.parametrize("durable", [True, False])
def test_a_process_keeps_to_what_it_has_acknowledged_itself(source: str, durable: bool) -> None:
    """At once, in either tier, and also when Redis could not be told; another process is promised nothing of the latter."""
    stale: list[Record] = [made(1), read(1, 1.001, source)]
    assert "process" in broken_rules(*stale, acknowledged(2, 1.0, pid=HERE, durable=durable))
    assert "process" not in broken_rules(*stale, acknowledged(2, 1.0, durable=durable))
    assert broken_rules(*stale, acknowledged(2, 0.1, durable=False)) == set()


def test_a_node_keeps_to_what_its_main_process_has_applied() -> None:
    """At once, in all its processes, and in no other node's."""
    history: list[Record] = [made(1), Applied("n", "w", {"k": 2}, S)]
    assert broken_rules(*history, read(1, 1.001, "l1", node="n")) == {"node"}
    assert broken_rules(*history, read(1, 0.999, "l1", node="n")) == set()
    assert broken_rules(*history, read(1, 1.001, "l1", node="another")) == set()


def test_a_newer_version_acknowledged_first_counts_although_an_older_one_follows() -> None:
    """Two writers may be acknowledged in another order than they changed the source."""
    history: list[Record] = [made(2), acknowledged(3, 1.0), acknowledged(2, 1.1)]
    assert broken_rules(*history, read(2, 1.2, "l2")) == {"l2"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"made": "nobody"},
        {"versions": {"k": 5}},
        {"key": "another"},
        {"ended_ns": 10},
    ],
)
def test_a_value_that_nobody_made_so_is_reported(wrong: dict[str, Any]) -> None:
    """Unknown, altered, of another key, or served before it was there."""
    fields = {"pid": HERE, "began_ns": 5, "ended_ns": S, **wrong}
    served = Read(
        **{
            "node": "",
            "key": "k",
            "made": "k@1",
            "versions": {"k": 1},
            "source": "l2",
            "operation_ns": 5,
            **fields,
        }
    )
    assert broken_rules(made(1, began_s=0.5), served) == {"value"}


def test_an_unconfirmed_value_is_reported_as_the_workload_is_strict() -> None:
    """In strict mode L1 serves nothing while Redis is away."""
    assert broken_rules(made(1), read(1, 1.0, "l1", degraded=True)) == {"strict"}


def test_staleness_within_the_bound_is_counted() -> None:
    """A workload that shows none has not come near the edge, and proves nothing."""
    report = check([made(1), acknowledged(2, 1.0), acknowledged(3, 1.1), read(1, 1.2, "l1"), read(1, 0.5, "l1")], BOUND_S)
    assert (report.stale_in_bound, round(report.stalest_s, 6)) == (1, 0.2)


def test_the_order_of_the_history_is_of_no_account() -> None:
    """Each process writes its own, and they are not sorted."""
    history: list[Record] = [made(1), acknowledged(2, 1.0), read(1, 1.1, "l2"), acknowledged(3, 0.5)]
    assert dataclasses.asdict(check(history, BOUND_S)) == dataclasses.asdict(check(history[::-1], BOUND_S))

"""The kinds of runs: each profile widens the windows of another kind of hole, beyond those of loopback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from coherence.faults import DEMOTION, GENTLE, HARSH, NETWORK, SUCCESSION
from coherence.steps import WEIGHTS
from coherence.workload import SHAPES, Shape

_NOT_OF_READERS: Final = ("invalidate", "set", "set_many", "compute_many", "ahead", "another")
_READS: Final = {"look": 40, "read_routing": 20, "read_info": 20, "leaves": 0, "respond": 1}

PROFILES: Final[Mapping[str, Mapping[str, Any]]] = {
    # Seven processes, a log that two of them trim to 24 records, all that may happen to a server.
    "loopback": {"faults": HARSH},
    # Up to 10 ms one way, connections that break; some are near, and overtake those that are far.
    "network": {"faults": HARSH | NETWORK, "latency_s": 0.01, "flood": 50},
    # The log begins anew all the time, under the eyes of those for whom that takes a while.
    "beginnings": {
        "faults": {"flush": 3, "evict_tail": 3},
        "pause_s": 0.1,
        "latency_s": 0.01,
        "bound_s": 0.02,
        "shapes": {
            "far": Shape(
                "lone",
                4,
                far=True,
                weights=_READS | dict.fromkeys(_NOT_OF_READERS, 0),
            ),
            "near": Shape("lone", 1, pauses_s=(0.06,), weights={"change": 60, "respond": 5}),
        },
    },
    # Thousands of records between two looks at the log; threads that change places all the time, some of them seldom awake.
    "pages": {
        "faults": {"outlast": 1},
        "pause_s": 0.35,
        "bound_s": 0.1,
        "freezes": frozenset({"busy"}),
        "switch_s": 1e-5,
        "flood": 3000,
        "long_log": True,
        "shapes": {
            "busy": Shape(
                "lone",
                24,
                l1_size=200,
                pauses_s=(0.05, *[0.2] * 23),
                weights={
                    "look": 20,
                    "leaves": 20,
                    "invalidate": 0,
                    "flood": 0,
                    "change": 0,
                    "set": 0,
                    "set_many": 0,
                    "delete": 0,
                    "respond": 3,
                },
            ),
            "near": Shape("lone", 1, pauses_s=(0.1,), weights={"flood": 60, "invalidate": 0, "change": 0}),
        },
    },
    # Servers that acknowledged what their successors lack.
    "succession": {
        "faults": SUCCESSION | {"freeze": 1},
        "pause_s": 0.1,
        "flood": 300,
        "long_log": True,
        "weights": {"flood": 0},
    },
    # A master that becomes a replica under its readers: one who writes leaves it at the first refusal, one who only reads stays.
    "demotion": {
        "faults": GENTLE | DEMOTION,
        "latency_s": 0.002,
        "long_log": True,
        "shapes": SHAPES | {"reader": Shape("lone", 2, weights=dict.fromkeys(WEIGHTS, 0) | {"look": 1})},
    },
    # Two threads of one process after the same key, and neither has looked at L2.
    "joins": {
        "faults": {"freeze": 1},
        "pause_s": 0.3,
        "long_log": True,
        "shapes": {
            "joins": Shape(
                "lone",
                3,
                loose=True,
                weights={"ahead": 40, "another": 20, "respond": 1, "look": 2, "invalidate": 0, "leaves": 0, "refresh": 0},
            ),
            "near": Shape("lone", 1, weights={"change": 60, "respond": 1}),
        },
    },
    # Invalidations that cannot be appended, for a moment, again and again.
    "refusals": {
        "faults": {"fill_up": 1},
        "pause_s": 0.01,
        "retry_s": 0.005,
        "long_log": True,
        "switch_s": 1e-4,
        "shapes": {
            "near": Shape("lone", 3, l1_size=400, pauses_s=(0.0005,), weights={"leaves": 40, "forget_leaves": 100, "respond": 5})
        },
    },
    # Programs without a node that hear what others invalidate, near and far, some with a log that is trimmed: hints that come
    # late, twice or not at all, across restarts and failovers.
    "listening": {
        "faults": HARSH | NETWORK,
        "latency_s": 0.005,
        "flood": 50,
        "shapes": {
            "prefork": Shape("prefork", 2),
            "far": Shape("lone", 3, far=True, listens=True),
            "near": Shape("lone", 3, listens=True, l1_size=20),
            "small": Shape("lone", 4, max_records=24, l1_size=6, listens=True),
            "loose": Shape("lone", 2, loose=True, listens=True, weights={"ahead": 12, "another": 12}),
        },
    },
    # Whatever the cache does is broken off anywhere.
    "time limits": {"faults": HARSH, "break_off_s": 0.05},
    # Nodes that take themselves for idle: the lease runs out between two beats, again and again.
    "idle": {"faults": HARSH, "quiet_s": 0.0},
    "chains": {"faults": GENTLE, "long_log": True, "chains": True, "weights": {"chain": 60}},
}

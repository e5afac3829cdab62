"""Messages that are none, tasks that nobody knows, and tasks for later: each costs itself alone, and its sender is told."""

from __future__ import annotations

import itertools
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from celery import chord
from celery.exceptions import ChordError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from fleet import Fleet
from noted_tasks import RUNS
from poison import ADDRESSED, NO_ID, NO_MESSAGE, NO_TASK
from polling import until
from sender import Sender

from reliability.result import Result, Row, Say

QUICK: Final = {"PERSONA_UNKNOWN_TASK_S": "0"}
TOLD_S: Final = 45.0
UNKNOWN_S: Final = 120.0
CLOSED_S: Final = 60.0
PATIENCE_S: Final = "15"
"""A task goes back once a second: that it meets the old node each time is one chance in 2**15."""
FLOOD: Final = 5_000
LATER_S: Final = 2.0
FAR_S: Final = 5 * 365 * 86_400
MOST_GROWN_MB: Final = 60.0


def garbage(trials: int, say: Say) -> Result:
    """Between good tasks."""
    return _poisoned("garbage", trials, say, lambda: ((None, item) for item in NO_MESSAGE.values()))


def wrong_shape(trials: int, say: Say) -> Result:
    def messages() -> Iterator[tuple[str | None, str | bytes]]:
        for message in (*NO_TASK.values(), *NO_ID.values()):
            task_id = str(uuid.uuid4())
            headers = message["headers"]
            changed = {"headers": headers | ({"id": task_id} if isinstance(headers.get("id"), str) else {})}
            if message in NO_ID.values() or not headers:
                task_id = ""
            yield task_id or None, json.dumps(message | changed)
        for make in ADDRESSED.values():
            task_id = str(uuid.uuid4())
            yield task_id, make(task_id)

    return _poisoned("wrong shape", trials, say, messages)


def _poisoned(name: str, trials: int, say: Say, items: Callable[[], Iterator[tuple[str | None, str | bytes]]]) -> Result:
    """So many poisons, in turn. A sender whose id can be read is told of its failure: none is pending for ever."""
    with Fleet(concurrency=2, delay_ms=20, environ=QUICK) as fleet, Sender.of(fleet) as sender:
        connected = fleet.node.log().count("Connected to")
        good, addressed = [], []
        endless = itertools.chain.from_iterable(items() for _ in itertools.count())
        for trial, (task_id, item) in enumerate(itertools.islice(endless, trials), 1):
            if trial % 20 == 1 or trial == trials:
                say(f"{name}: {trial} of {trials}")
            fleet.queue.lpush("persona", item)
            addressed += [task_id] if task_id else []
            good += sender.request()
        lost = _unanswered(sender, good, "SUCCESS") + _unanswered(sender, addressed, "FAILURE")
        ended = () if fleet.node.running else (f"the node ended with {fleet.node.exit_code}",)
        again = fleet.node.log().count("Connected to") - connected
        return Result(
            trials,
            len(good) + len(addressed),
            lost=lost,
            more={"told": len(addressed), "reconnections": again},
            problems=(*ended, *((f"it reconnected {again} times",) if again else ())),
        )


def _unanswered(sender: Sender, ids: Sequence[str], status: str, *, bound_s: float = TOLD_S) -> int:
    try:
        sender.wait(ids, status, bound_s=bound_s)
    except AssertionError:
        return len(ids) - sender.done(ids, status)
    return 0


def unknown(trials: int, say: Say) -> Result:
    """An old node and a new one: what only the new one knows is answered by it, and what neither knows is a failure."""
    with Fleet(nodes=0, concurrency=1, environ={"PERSONA_UNKNOWN_TASK_S": PATIENCE_S}) as fleet, Sender.of(fleet) as sender:
        fleet.add_node(app="workers")
        fleet.add_node(app="fetch_tasks")
        new, nobodys = [], []
        for trial in range(1, trials + 1):
            new.append(sender.send("test.note", f"{trial}"))
            nobodys.append(sender.send("test.tomorrow", f"{trial}"))
        say(f"unknown: {trials} of each, until all are told")
        _unanswered(sender, nobodys, "FAILURE", bound_s=UNKNOWN_S)
        _unanswered(sender, new, "SUCCESS", bound_s=UNKNOWN_S)
        destroyed, kept = sender.done(new, "FAILURE"), sender.done(nobodys)
        problems = (f"{destroyed} new tasks were failed by the old node",) if destroyed else ()
        return Result(trials, 2 * trials, lost=sender.outcomes([*new, *nobodys]).count(None), wrong=kept, problems=problems)


def later(trials: int, say: Say) -> Result:
    """Tasks for later run once, in time, whatever waits beside them: a flood for another year, which costs the node no memory."""
    with Fleet(app="fetch_tasks", concurrency=2) as fleet, Sender.of(fleet) as sender:
        sender.wait([sender.send("test.note", "warm")])
        before_mb = _rss_mb(fleet)
        for number in range(FLOOD):
            sender.send("test.note", "far", countdown=FAR_S)
            if number % 1000 == 0:
                say(f"later: {number} of {FLOOD} are queued for another year")
        ids = [sender.send("test.note", f"later {trial}", countdown=LATER_S) for trial in range(trials)]
        invalid = [sender.send("test.note", "never", headers={"eta": "never"})]
        due_s = time.monotonic() + LATER_S
        lost = _unanswered(sender, ids, "SUCCESS")
        late_s = time.monotonic() - due_s
        until(lambda: fleet.queued() == 0, "the flood is aside", bound_s=60)
        runs = Counter(fleet.queue.lrange(RUNS, 0, -1))
        grown_mb = _rss_mb(fleet) - before_mb
        problems = [f"{runs['far']} ran years too early"] if runs["far"] else []
        problems += [f"the node has grown by {grown_mb:.0f} MB"] if grown_mb > MOST_GROWN_MB else []
        return Result(
            trials,
            trials + FLOOD,
            lost=lost,
            twice=sum(count > 1 for name, count in runs.items() if name.startswith("later")),
            more={"grown_mb": grown_mb, "late_s": max(0.0, late_s), "invalid_told": sender.done(invalid, "FAILURE")},
            problems=tuple(problems),
        )


def chord_twice(trials: int, say: Say) -> Result:
    """Each message of a chord's header is queued twice, as what a dead node had comes back: its body runs once."""
    with Fleet(nodes=2, app="fetch_tasks", concurrency=2) as fleet:
        for node in fleet.nodes:
            node.freeze()
        bodies = []
        for trial in range(trials):
            header = [fleet.app.signature("test.note", args=[f"{trial}-{part}"], queue="persona") for part in range(3)]
            body = fleet.app.signature("test.close", args=[f"closed {trial}"], queue="persona")
            bodies.append(chord(header, app=fleet.app)(body))
        items = [item for item in fleet.queue.lrange("persona", 0, -1) if '"test.note"' in item]
        say(f"chord-twice: {len(items)} messages of {trials} headers are queued once more")
        for item in items:
            fleet.queue.lpush("persona", item)
        for node in fleet.nodes:
            node.thaw()
        lost = wrong = 0
        for body in bodies:
            try:
                wrong += body.get(timeout=CLOSED_S) != 3
            except (CeleryTimeoutError, ChordError) as error:
                say(f"chord-twice: {type(error).__name__}")
                lost += 1
        until(lambda: fleet.queued() + fleet.claimed() == 0, "nothing is left", bound_s=CLOSED_S)
        runs = Counter(fleet.queue.lrange(RUNS, 0, -1))
        again = sum(count > 1 for name, count in runs.items() if name.startswith("closed"))
        ran_twice = sum(count > 1 for name, count in runs.items() if not name.startswith("closed"))
        return Result(trials, len(items), lost=lost, wrong=wrong, twice=again, more={"header_ran_twice": ran_twice})


def _rss_mb(fleet: Fleet) -> float:
    status = Path(f"/proc/{fleet.node.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


ROWS: Final = (
    Row(
        "garbage",
        (23,),
        "items that are no message",
        garbage,
        trials=150,
        stock="its worker ends, the item is lost (celery#7975)",
    ),
    Row(
        "wrong-shape",
        (24, 25),
        "messages of a wrong shape, hostile bodies",
        wrong_shape,
        trials=150,
        stock="its worker ends, or reconnects for ever; senders wait for ever",
    ),
    Row("chord-twice", (29,), "each message of a chord's header is queued twice", chord_twice),
    Row("unknown", (26,), "a task that an old node does not know, or nobody", unknown, stock="an old node destroys a new task"),
    Row("later", (27,), f"{FLOOD:,} tasks for another year, and some for the next seconds", later, stock="a node holds them all"),
)

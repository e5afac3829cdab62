"""Messages that would cost a worker gigabytes or minutes: each is a dead letter and its sender's failure, and no more."""

from __future__ import annotations

import bz2
import contextlib
import json
import lzma
import statistics
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import redis
from envelopes import envelope, whole
from fleet import Fleet, answers_of, send_plain
from polling import until

from benchmarks.kit.endpoint import Fault
from pipeline.models import PersonaRequest
from workers.queue.dead_letters import letter as dead

KEY = "calm-flowing-planning"
REQUEST = {"user_input": "How do I begin?", "resonance_key": KEY}
GIGABYTE = 2**30
PEAK_MB = 150
MOST_MORE_MB = 24
PAUSE_MS = 50.0
CANARY = "Kanarienvogel"


@cache
def bomb(new: Callable[[], Any], size: int = GIGABYTE // 8) -> bytes:
    """Zeros, packed."""
    packer, zeros = new(), b"0" * 2**20
    return b"".join([*(packer.compress(zeros) for _ in range(size // len(zeros))), packer.flush()])


def packed(content_type: str, body: bytes) -> bytes:
    pack = {"application/x-gzip": zlib.compress, "application/x-bz2": bz2.compress, "application/x-lzma": lzma.compress}
    return pack[content_type](body)


def quick_lzma() -> lzma.LZMACompressor:
    return lzma.LZMACompressor(preset=0)


def refused() -> dict[str, tuple[Callable[[str], bytes], str]]:
    """Each message by what it is, with what its sender is told. Made when asked for: they are large."""
    deep = b"[" * 2000 + b"]" * 2000
    return {
        "a bomb of bzip2": (
            lambda task_id: envelope(bomb(bz2.BZ2Compressor, GIGABYTE), id=task_id, compression="application/x-bz2"),
            "has more than 2097152 bytes when it is unpacked",
        ),
        "a bomb of gzip": (
            lambda task_id: envelope(bomb(zlib.compressobj), id=task_id, compression="application/x-gzip"),
            "has more than 2097152 bytes when it is unpacked",
        ),
        "a bomb of xz, by its short name": (
            lambda task_id: envelope(bomb(quick_lzma), id=task_id, compression="xz"),
            "has more than 2097152 bytes when it is unpacked",
        ),
        "half of what was packed": (
            lambda task_id: envelope(bz2.compress(whole(REQUEST))[:-9], id=task_id, compression="application/x-bz2"),
            "is a part of what application/x-bz2 packs",
        ),
        "many lists": (lambda task_id: envelope(b"[" + b"[]," * 60_000 + b"[]]", id=task_id), "has 120002 values"),
        "lists in lists": (lambda task_id: envelope(deep, id=task_id), "is nested in more than 100 levels"),
        "lists in the headers": (
            lambda task_id: envelope(whole(REQUEST), id=task_id, x=json.loads(deep[1900:2100])),
            "is nested",
        ),
        "many arguments": (lambda task_id: envelope(whole(*range(300)), id=task_id), "Expected `array` of length <= 255"),
        "many named arguments": (
            lambda task_id: envelope(whole(**{f"a{number}": 1 for number in range(300)}), id=task_id),
            "Expected `object` of length <= 255",
        ),
        "64 MB of lists in lists": (lambda task_id: envelope(b"[" * 48_000_000, id=task_id), "allowed are up to 2097152"),
    }


def longest_request() -> dict[str, Any]:
    text = "\U0001f600" * 2240
    history = [{"role": ("user", "assistant")[number % 2], "content": text} for number in range(50)]
    return REQUEST | {"user_input": str(uuid.uuid4()).ljust(8000, "\U0001f600"), "context": {"history": history}}


def within() -> dict[str, Callable[[str], bytes]]:
    """Messages at the edge of what is read, and what a bound of bytes alone would let through."""
    half = 700_000
    return {
        "the longest request": lambda task_id: envelope(whole(longest_request()), id=task_id),
        "one long text": lambda task_id: envelope(whole("x" * 1_450_000), id=task_id),
        "long headers": lambda task_id: envelope(whole(REQUEST), id=task_id, x="y" * 1_900_000),
        "as many values as are read": lambda task_id: envelope(b"[[[" + b"{}," * 9_000 + b"0]],{},{}]", id=task_id),
        "too many numbers": lambda task_id: envelope(b"[[" + b"1," * half + b"0],{},{}]", id=task_id),
        "too many texts": lambda task_id: envelope(b"[[" + b'"",' * (half // 2) + b"{}" + b",[]" * 200 + b"],{},{}]", id=task_id),
        "too many objects": lambda task_id: envelope(
            b"[[" + (b'{"a":"' + b"x" * 50 + b'"},') * 20_000 + b"0],{},{}]", id=task_id
        ),
    }


@pytest.fixture(scope="module", params=["claims", "pop"])
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    with Fleet(environ={"PERSONA_FETCH": request.param}) as fleet:
        yield fleet


def peak_mb(fleet: Fleet) -> int:
    """The most memory that the main process has ever held."""
    status = Path(f"/proc/{fleet.node.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) // 1024


@pytest.mark.parametrize(
    ("queue", "what"),
    [
        *[("persona", what) for what in refused()],
        *[("celery", what) for what in ("a bomb of bzip2", "lists in lists", "64 MB of lists in lists")],
    ],
)
def test_its_sender_is_told_and_its_neighbours_are_answered(what: str, queue: str, fleet: Fleet) -> None:
    make, told = refused()[what]
    result = fleet.app.AsyncResult(str(uuid.uuid4()))
    fleet.queue.delete(dead.DEAD_LETTERS)
    item = make(result.id)
    fleet.queue.lpush(queue, item)
    neighbour = fleet.app.send_task("persona.process", args=[REQUEST | {"user_input": str(uuid.uuid4())}], queue=queue)
    with pytest.raises(Exception, match=told.replace("`", ".")):
        result.get(timeout=20)
    assert neighbour.get(timeout=20)["persona"]
    until(lambda: fleet.queued() + fleet.claimed() == 0, "nothing is left")
    letters = [json.loads(letter) for letter in fleet.queue.lrange(dead.DEAD_LETTERS, 0, -1)]
    assert [told in letter["why"] for letter in letters] == [True]
    assert len(letters[0]["item"]) <= dead.MAX_ITEM_CHARS


@pytest.mark.parametrize("what", ["a bomb of bzip2", "64 MB of lists in lists"])
def test_it_takes_no_more_memory_than_its_bound_allows(what: str) -> None:
    make, _ = refused()[what]
    with Fleet() as fleet:
        fleet.ask_plain("Are you there?", KEY)
        before_mb = peak_mb(fleet)
        result = fleet.app.AsyncResult(str(uuid.uuid4()))
        fleet.queue.lpush("persona", make(result.id))
        with pytest.raises(Exception, match="allowed"):
            result.get(timeout=20)
        assert fleet.ask_plain("Are you still there?", KEY).persona
        assert peak_mb(fleet) < min(PEAK_MB, before_mb + MOST_MORE_MB)


@pytest.mark.parametrize("idle", [True, False], ids=["a node that waits", "a node whose slots are busy"])
def test_one_that_is_too_long_is_cut(idle: bool, fleet: Fleet) -> None:
    """It is cut, however it is taken, and its letter says how long it was."""
    fleet.queue.delete(dead.DEAD_LETTERS)
    until(lambda: fleet.queued() + fleet.claimed() == 0, "nothing is left")
    item = envelope(b"x" * 6_000_000, id=str(uuid.uuid4()))
    if not idle:
        fleet.endpoint.script(Fault("hang"))
    busy = [] if idle else [send_plain(fleet.app, PersonaRequest.create(str(uuid.uuid4()), KEY)) for _ in range(6)]
    try:
        until(lambda: idle or fleet.endpoint.calls >= 2, "the slots are busy")
        fleet.queue.lpush("persona", item)
    finally:
        fleet.endpoint.script(Fault())
    until(lambda: fleet.queue.llen(dead.DEAD_LETTERS) == 1, "it is refused")
    letter = json.loads(fleet.queue.lindex(dead.DEAD_LETTERS, 0))
    assert letter["size"] == len(item)
    assert not letter["whole"]
    assert len(answers_of(busy)) == len(busy)


@pytest.mark.long
@pytest.mark.parametrize("what", list(within()))
def test_none_holds_up_the_loop(what: str, tmp_path: Path) -> None:
    """The longest pause of the main process's loop in its own work: what the machine does meanwhile is not counted."""
    pace = tmp_path / "pace"
    with Fleet(app="paced_app", environ={"PACE_IN": str(pace)}) as fleet:
        fleet.ask_plain("Are you there?", KEY)
        pauses = []
        for _ in range(5):
            pace.unlink(missing_ok=True)
            until(pace.exists, "the loop turns")
            task_id = str(uuid.uuid4())
            fleet.queue.lpush("persona", within()[what](task_id))
            with contextlib.suppress(Exception):
                fleet.app.AsyncResult(task_id).get(timeout=20)
            until(lambda: fleet.queued() + fleet.claimed() == 0, "it is over")
            pauses.append(float(pace.read_text().split()[1]))
        assert statistics.median(pauses) < PAUSE_MS, pauses


@pytest.mark.parametrize("bad", ["returns", "raises"])
def test_an_outcome_that_is_too_long_is_a_failure_that_says_so(bad: str) -> None:
    environ = {"PERSONA_RESULT_MAX_KB": "16", "PERSONA_RESPONDER": "long_answers:" + bad, "PERSONA_LLM_URL": ""}
    with Fleet(environ=environ, concurrency=1) as fleet:
        sent = send_plain(fleet.app, PersonaRequest.create("How do I begin?", KEY))
        with pytest.raises(Exception, match="allowed are up to 16384"):
            sent.get(timeout=20)
        with closing(redis.Redis.from_url(fleet.broker.url_of(1))) as results:
            kept = results.get(f"celery-task-meta-{sent.id}") or b""
        assert b"ResultTooLongError" in kept
        assert len(kept) < 16_384


@pytest.mark.parametrize("content_type", ["application/x-gzip", "application/x-bz2", "application/x-lzma"])
def test_what_was_packed_and_is_small_is_answered(content_type: str, fleet: Fleet) -> None:
    task_id = str(uuid.uuid4())
    fleet.queue.lpush("persona", envelope(packed(content_type, whole(REQUEST)), id=task_id, compression=content_type))
    assert fleet.app.AsyncResult(task_id).get(timeout=20)["persona"]


def test_the_longest_request_is_answered(fleet: Fleet) -> None:
    """Of characters each of which takes twelve bytes, as a producer in any language may send it."""
    wire = longest_request()
    assert fleet.app.send_task("persona.process", args=[wire], queue="persona").get(timeout=60)["persona"]


@pytest.mark.parametrize("data", [b"[" * 5_000_000, b"[]," * 60_000], ids=["large", "many lists"])
def test_a_broadcast_out_of_bounds_is_dropped(data: bytes, fleet: Fleet) -> None:
    assert fleet.queue.publish("/0.celery.pidbox", data) >= 1
    assert fleet.app.control.ping(destination=[fleet.node.name], timeout=5)
    until(lambda: "worker.broadcast_dropped: it has" in fleet.node.log(), "the log says so")
    assert fleet.node.running

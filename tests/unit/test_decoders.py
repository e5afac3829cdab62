"""Every decoder of bytes that another program may have written, under random bytes and under mutations of real ones: it gives a
well-formed value, or refuses in the one way that its callers know. None lets another error through."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import msgspec
import pytest
from envelopes import envelope, whole
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cache import AsOf
from pipeline.cache.coherence.bus import BusState, NodeBus
from pipeline.cache.coherence.log import _unpacked
from pipeline.cache.coherence.node import NodeFollower, Notice
from pipeline.cache.coherence.tail import Tail
from pipeline.cache.coherence.view import InvalidationView
from pipeline.cache.entry import Entry, encode_entry
from pipeline.cache.server.shared import RedisCache
from pipeline.errors import InvalidRequestError
from pipeline.figures.records import InvalidationRow, ProcessRow
from pipeline.models import ChatContext, Message, PersonaRequest, PersonaResponse
from workers.node.consumer import UNREADABLE, check
from workers.node.fetch.claims import deliveries, marked
from workers.node.guard.bounds import OutOfBoundsError, check_item
from workers.node.guard.refusals import addressee
from workers.queue.dead_letters.letter import found, to_queue, written

KEY: Final = "persona:lua:calm-flowing-planning:0123456789abcdef0123456789abcdef"
REQUEST: Final = PersonaRequest.create(
    "How do I begin? 어떻게?",
    "calm-flowing-planning",
    ChatContext(user_id="ann", language="ko", history=(Message("user", "Hello"), Message("assistant", "Hi"))),
    max_age_s=60,
)
ITEM: Final = envelope(whole(REQUEST.to_wire()), id="a-task", persona_deliveries=1)

JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def mutated(real: bytes) -> st.SearchStrategy[bytes]:
    """Random bytes, and the real ones with a few changes: bits, cuts, repetitions, other bytes."""

    def change(seed: int) -> bytes:
        rng = random.Random(seed)
        data = bytearray(real)
        for _ in range(rng.randint(1, 4)):
            at, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
            way = rng.randrange(5)
            if way == 0 and data:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            elif way == 1:
                del data[at : min(end, at + 8)]
            elif way == 2:
                data[at:at] = data[at : at + rng.randint(1, 40)]
            elif way == 3:
                data[at:at] = rng.choice([b"null", b'"', b"[", b"]", b"{", b"}", b"-1", b"1e999", b"\xff", b"\\u0000", b"9" * 30])
            else:
                del data[at:]
        return bytes(data)

    return st.binary(max_size=80) | st.integers(0, 2**32).map(change)


def like(real: Any) -> st.SearchStrategy[Any]:
    """Any JSON, and the real value with a part replaced by any."""

    def replaced(seed: int, part: Any) -> Any:
        rng = random.Random(seed)
        value = json.loads(json.dumps(real))
        place = value
        while isinstance(place, dict | list) and place:
            name = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
            if not isinstance(place[name], dict | list) or not place[name] or rng.random() < 0.4:
                place[name] = part
                break
            place = place[name]
        return value

    return JSON | st.builds(replaced, st.integers(0, 2**32), JSON)


ENTRY: Final = encode_entry(
    Entry(KEY, "0123456789abcdef", 7, ("routing:x",), 1_700_000_000_000, 60_000, msgspec.Raw(b'{"a": 1}'), 5)
)


@given(mutated(ENTRY))
def test_an_entry(raw: bytes) -> None:
    """It is that key's and can be judged, or there is none."""
    cache = RedisCache(url="redis://127.0.0.1:1/0")
    entry = cache.decode(KEY, raw)
    assert entry is None or (entry.key == KEY and isinstance(entry.deps, tuple))
    if entry is not None:
        assert InvalidationView().valid(AsOf(entry.epoch, entry.seq), entry.key, entry.deps) in (True, False)
        assert entry.age_s(1.0) >= 0


@given(mutated(b"0123456789abcdef:17:3"))
def test_a_tail(raw: bytes) -> None:
    tail = Tail.parse(raw)
    assert tail is None or (Tail.parse(bytes(tail)) == tail and tail.seq >= 0 and raw.startswith(tail.epoch.encode()))


@given(mutated(b'["persona:*","17","user:ann","18.0"]'))
def test_the_records_of_a_page(packed: bytes) -> None:
    """A page of wrong records is no page: `read_since` is asked again."""
    try:
        records = _unpacked(packed)
    except (ValueError, msgspec.DecodeError):
        return
    assert all(isinstance(text, str) and isinstance(seq, int) for text, seq in records)


@given(st.binary(min_size=1, max_size=400), st.integers(0, 300), st.integers(-2, 70))
def test_a_bus(noise: bytes, at: int, seen: int) -> None:
    """Memory in which anything may stand, were another program to write there: a state of bounded size, or none."""
    bus = NodeBus(slots=4)
    bus._memory[at : at + len(noise)] = noise
    state = bus.read(Tail("e", 1, 0), seen)
    assert state is None or isinstance(state, BusState)
    if state is not None:
        assert len(state.volatile) <= 64
        assert state.page is None or len(state.page.records) <= 4


NOTICE: Final = ["0123456789abcdef", 17, ["persona:*", "user:ann"], "an-id"]


@given(like(NOTICE))
def test_a_notice(fields: Any) -> None:
    follower = NodeFollower("node", NodeBus(), None, None)
    given_ = fields if isinstance(fields, list) and 3 <= len(fields) <= 4 else [fields, fields, fields]
    notice = follower.receive(*given_)
    assert notice is None or isinstance(notice, Notice)
    assert follower.counters.snapshot()["malformed"] == (notice is None)


@given(like(REQUEST.to_wire()))
def test_a_request(wire: Any) -> None:
    """Accepted, it is the same after another trip; refused, the error names a field."""
    try:
        request = PersonaRequest.from_wire(wire)
    except InvalidRequestError as error:
        named = error.field
    else:
        named = "request"
        assert PersonaRequest.from_wire(request.to_wire()) == request
    assert named


@given(like({"content": "Hi", "persona": "lua", "cached": "no", "execution_time_ms": 1.5}))
def test_a_result(wire: Any) -> None:
    try:
        PersonaResponse.from_wire(wire)
    except (msgspec.ValidationError, TypeError):
        return


@given(mutated(ITEM))
def test_an_item_of_a_queue(item: bytes) -> None:
    """The sender of what is no message is found, or not; a mark is added, or the item stays as it is."""
    to = addressee(item)
    assert to is None or 1 <= len(to.id) <= 255
    again = marked(item, {"x": 1}, redelivered=True)
    assert again == item or json.loads(again)["headers"]["x"] == 1


@given(like({"persona_deliveries": 2}))
def test_a_count_of_deliveries(headers: Any) -> None:
    assert deliveries(headers) >= 0


@given(mutated(whole(REQUEST.to_wire())), like(json.loads(ITEM)["headers"]))
def test_a_messages_body_and_headers(body: bytes, headers: Any) -> None:
    """It can be given to Celery, or is refused by one of the errors that the guard catches."""
    headers = headers if isinstance(headers, dict) else {"task": headers}
    message = SimpleNamespace(headers=headers, body=body)
    try:
        message.payload = json.loads(body)
        check(message)
    except (msgspec.ValidationError, OutOfBoundsError, *UNREADABLE):
        return
    assert isinstance(message.payload, list | dict)


@given(mutated(written("persona", ITEM, "why", whole=True, task="persona.process", task_id="a-task")))
def test_a_dead_letter(raw: bytes) -> None:
    one = found(raw)
    if one is None:
        return
    item = to_queue(one.letter)
    assert item is None or "persona_deliveries" not in json.loads(item)["headers"]


@pytest.mark.parametrize("row", [ProcessRow, InvalidationRow])
def test_a_row_of_the_figures(row: type) -> None:
    from pipeline.figures.reading import _decoded

    real = {"node": "n", "pid": 1, "role": "worker", "since": 1.0, "requests": {}, "id": "i", "at": 1.0, "patterns": ["a"]}

    @given(mutated(json.dumps(real | {"pattern_count": 1, "by": "x", "durable": True}).encode()))
    def holds(raw: bytes) -> None:
        decoded = _decoded(raw, row)
        assert decoded is None or isinstance(decoded, row)

    holds()


@settings(max_examples=300)
@given(st.lists(st.sampled_from([b"[", b"]", b"{", b"}", b'"', b"\\", b"a", b",", b":"]), max_size=400).map(b"".join))
def test_the_depth_of_a_text_is_that_of_its_json(text: bytes) -> None:
    """A text that is JSON is refused exactly if it is nested too deeply; brackets within its texts are no depth."""
    try:
        value = json.loads(text)
    except ValueError:
        return
    assert _refused(text) == (_depth(value) > 100)


@given(st.integers(0, 300), st.booleans(), st.text('[]{}"\\', max_size=300))
def test_a_depth_is_counted_to_the_level(depth: int, lists: bool, inner: str) -> None:
    value: Any = inner
    for _ in range(depth):
        value = [value] if lists else {"[{": value}
    text = json.dumps(value).encode()
    assert _refused(text) == (depth > 100)
    assert base64.b64encode(text)  # a body in its envelope has no depth of its own


def _refused(text: bytes) -> bool:
    try:
        check_item(text)
    except OutOfBoundsError:
        return True
    return False


def _depth(value: Any) -> int:
    parts: Callable[[Any], Any] = lambda each: each.values() if isinstance(each, dict) else each  # noqa: E731
    return 1 + max(map(_depth, parts(value)), default=0) if isinstance(value, dict | list) else 0

"""An entry opened in one pass is what it is in two, whatever its bytes are."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.cache.encoding.codec import LARGE_BYTES, Codec, codec_for
from pipeline.cache.entry import Entry, decode_entry, encode_entry

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
ENTRIES = st.builds(
    lambda key, deps, seq, grace_ms, value: encode_entry(
        Entry(key, "epoch", seq, tuple(deps), 1, 2, msgspec.Raw(msgspec.json.encode(value)), grace_ms)
    ),
    TEXT, st.lists(TEXT, max_size=3), st.integers(0, 2**40), st.integers(0, 9), JSON | TEXT,
)  # fmt: skip


class Answer(msgspec.Struct, frozen=True):
    content: str
    at: datetime.date | None = None


def in_two(raw: bytes, codec: Codec[Any]) -> tuple[Any, ...]:
    try:
        entry = decode_entry(raw)
        value = codec.decode(entry.value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ("nothing",)
    payload = codec.beside(value, entry.value)
    return entry.key, entry.epoch, entry.seq, entry.deps, entry.created_ms, entry.ttl_ms, entry.grace_ms, repr(value), payload


def in_one(raw: bytes, codec: Codec[Any]) -> tuple[Any, ...]:
    try:
        entry, value = codec.open(raw)
    except msgspec.DecodeError:
        return ("nothing",)
    payload = codec.beside(value, entry.value)
    return entry.key, entry.epoch, entry.seq, entry.deps, entry.created_ms, entry.ttl_ms, entry.grace_ms, repr(value), payload


@given(raw=ENTRIES, of=st.sampled_from([Any, str, list[Any], Answer, int | None]))
def test_of_an_entry_as_it_is_written(raw: bytes, of: Any) -> None:
    """Of a value of the type and of another, with and without escapes."""
    assert in_one(raw, codec_for(of)) == in_two(raw, codec_for(of))


@given(raw=ENTRIES, data=st.data())
@example(raw=b'["k","e",1,[],1,1,"a","b"]', data=None)
@example(raw=b'["k","e",1,[],1,1,"a",0,"b"]', data=None)
@example(raw=b'["k","e",1,["d"],1,1,"a"]', data=None)
@example(raw=b'[ "k", "e", 1, [], 1, 1, [1,  2] ]', data=None)
@example(raw=b'["k","e",1,[],1,1,"\xff"]', data=None)
@example(raw=b'["k","e",01,[],1,1,"a",0]', data=None)
def test_of_bytes_that_something_has_changed(raw: bytes, data: Any) -> None:
    """What is nothing in two passes is nothing in one."""
    if data is not None:
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(raw)))
            raw = raw[:at] + data.draw(st.sampled_from([b"", b'"', b",", b"[", b"]", b"\\", b"7", b" ", b"\xff"])) + raw[at + 1 :]
    for of in (Any, str, Answer):
        assert in_one(raw, codec_for(of)) == in_two(raw, codec_for(of)), raw


@pytest.mark.parametrize(
    ("of", "value"),
    [
        (Any, "x" * 10_000),
        (str, "가" * 10_000),
        (Any, 'quoted "x"' * 1_000),
        (Any, [{"a": [1.5, None]}] * 500),
        (Answer, Answer("x" * 10_000, datetime.date(2026, 1, 1))),
    ],
    ids=["text", "wide text", "escapes", "document", "struct"],
)
def test_of_large_ones(of: Any, value: Any) -> None:
    """Those that are opened so."""
    raw = encode_entry(Entry("k", "e", 1, ("d",), 1, 2, msgspec.Raw(msgspec.json.encode(value)), 5))
    assert len(raw) > LARGE_BYTES
    assert in_one(raw, codec_for(of)) == in_two(raw, codec_for(of))
    assert codec_for(of).open(raw)[1] == value

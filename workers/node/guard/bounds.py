"""Bounds on what one message may cost the process that receives it, held before anything reads it.

A kilobyte of bzip2 unpacks to gigabytes, and 64 MB of nested lists parse for 13 s. Celery and kombu have no bound on either.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Callable
from typing import Any, Final

from celery.signals import celeryd_init
from kombu import compression

MAX_BYTES: Final = 2 * 1024 * 1024
"""Of a message as it is queued, and of its body unpacked. What has so many is read in some 20 ms, in which the node's loop does
nothing else. The longest request that is allowed has 1.9 MB in base64, if each of its characters takes twelve bytes of JSON."""
MAX_PARTS: Final = 20_000
"""So many values a message may have: lists, objects, and what follows a comma, outside its texts."""
MAX_DEPTH: Final = 100
MAX_ARGUMENTS: Final = 255
_LZMA_BYTES: Final = 64 * 1024 * 1024
"""The memory that an unpacking may take besides its result: what `xz -6` asks for is 9 MB."""
HEAD_BYTES: Final = 16_384
TAIL_BYTES: Final = 49_152
"""What is kept of a longer item. Its headers, with its id, are in one of the ends: before its body or after it."""
_CUT: Final = re.compile(rb"\ncut from ([0-9]{1,12}) bytes\Z")
_TEXT: Final = re.compile(rb'"[^"]*"?')
_NOT_SHAPE: Final = bytes(set(range(256)) - set(b'"[]{},'))

Unpack = Callable[[bytes, int], tuple[bytes, bool]]
"""Packed bytes and how many unpacked ones are wanted at most, to those and whether they are all."""


class OutOfBoundsError(ValueError):
    """A message that is larger, deeper or of more parts than is read. Its text quotes nothing of it."""


def check_item(item: bytes) -> None:
    """Raise OutOfBoundsError for a queue item that is not to be read."""
    size = size_of(item)
    if size > MAX_BYTES or is_cut(item):
        raise OutOfBoundsError(f"has {size} bytes; allowed are up to {MAX_BYTES}")
    _check_shape(item)


def size_of(item: bytes) -> int:
    """How many bytes a queue item had when it was queued."""
    cut = _CUT.search(item, max(0, len(item) - 40))
    return int(cut.group(1)) if cut else len(item)


def is_cut(item: bytes) -> bool:
    """Whether it is the short form of one that was too long: its ends, as `workers/node/fetch/lua/short.lua` leaves them. No JSON
    ends like this."""
    return _CUT.search(item, max(0, len(item) - 40)) is not None


def short(head: bytes, tail: bytes, size: int) -> bytes:
    """The short form of an item by its two ends."""
    return b"%b\n%b\ncut from %d bytes" % (head, tail, size)


def check_body(body: object) -> None:
    """The same for a message's body, after it was unpacked."""
    if isinstance(body, str):
        body = body.encode(errors="replace")
    if isinstance(body, bytes):
        check_item(body)


def is_readable(item: bytes) -> bool:
    """Whether it is within the bounds."""
    try:
        check_item(item)
    except OutOfBoundsError:
        return False
    return True


def _check_shape(text: bytes) -> None:
    opened = text.count(b"[") + text.count(b"{")
    if opened <= MAX_DEPTH and opened + text.count(b",") <= MAX_PARTS:
        return
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")  # a quote that is left begins or ends a text
    shape = text.translate(None, _NOT_SHAPE)
    shape = _TEXT.sub(
        b"", shape.replace(b'""', b"")
    )  # where a text ends and the next begins, one goes on: it is as outside as before
    parts = len(shape) - shape.count(b"]") - shape.count(b"}")
    if parts > MAX_PARTS or len(shape) > 3 * MAX_PARTS:
        raise OutOfBoundsError(f"has {parts} values; allowed are up to {MAX_PARTS}")
    depth = 0
    for token in shape.replace(b",", b""):
        if token in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise OutOfBoundsError(f"is nested in more than {MAX_DEPTH} levels")
        else:
            depth -= 1


@celeryd_init.connect(weak=False)
def bound_unpacking(**_: Any) -> None:
    """Have kombu unpack message bodies up to the bound, in this process. What cannot be bounded is refused by name."""
    for content_type in compression.encoders():
        encode, _ = compression.get_encoder(content_type)
        compression.register(encode, _decoder(content_type), content_type)


def _decoder(content_type: str) -> Callable[[bytes], bytes]:
    def decode(packed: bytes) -> bytes:
        unpack = _UNPACK.get(content_type)
        if unpack is None:
            raise OutOfBoundsError(f"is compressed as {content_type}; allowed are {', '.join(_UNPACK)}")
        try:
            body, whole = unpack(packed, MAX_BYTES + 1)
        except (OSError, ValueError, EOFError, zlib.error, lzma.LZMAError):
            raise OutOfBoundsError(f"is not what {content_type} packs") from None
        if len(body) > MAX_BYTES:
            raise OutOfBoundsError(f"has more than {MAX_BYTES} bytes when it is unpacked, which is what is allowed")
        if not whole:
            raise OutOfBoundsError(f"is a part of what {content_type} packs")
        return body

    return decode


def _zlib(packed: bytes, most: int) -> tuple[bytes, bool]:
    unpacker = zlib.decompressobj()
    return unpacker.decompress(packed, most), unpacker.eof


def _bz2(packed: bytes, most: int) -> tuple[bytes, bool]:
    unpacker = bz2.BZ2Decompressor()
    return unpacker.decompress(packed, most), unpacker.eof


def _lzma(packed: bytes, most: int) -> tuple[bytes, bool]:
    unpacker = lzma.LZMADecompressor(memlimit=_LZMA_BYTES)
    return unpacker.decompress(packed, most), unpacker.eof


_UNPACK: Final[dict[str, Unpack]] = {
    "application/x-gzip": _zlib,
    "application/x-bz2": _bz2,
    "application/x-lzma": _lzma,
}

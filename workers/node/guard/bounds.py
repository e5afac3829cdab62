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

MAX_BYTES: Final = 4 * 1024 * 1024
"""Of a message as it is queued, and of its body unpacked. The longest request that is allowed has some 3.3 MB in base64."""
MAX_PARTS: Final = 50_000
"""So many lists and objects a message may have, brackets in its texts included."""
MAX_DEPTH: Final = 100
MAX_ARGUMENTS: Final = 255
_LZMA_BYTES: Final = 64 * 1024 * 1024
"""The memory that an unpacking may take besides its result: what `xz -6` asks for is 9 MB."""
_TOKEN: Final = re.compile(rb'"[^"]*"?|[\[\]{}]')

Unpack = Callable[[bytes, int], tuple[bytes, bool]]
"""Packed bytes and how many unpacked ones are wanted at most, to those and whether they are all."""


class OutOfBoundsError(ValueError):
    """A message that is larger, deeper or of more parts than is read. Its text quotes nothing of it."""


def check_item(item: bytes) -> None:
    """Raise OutOfBoundsError for a queue item that is not to be read."""
    if len(item) > MAX_BYTES:
        raise OutOfBoundsError(f"has {len(item)} bytes; allowed are up to {MAX_BYTES}")
    _check_shape(item)


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
    if opened <= MAX_DEPTH:
        return
    if opened > MAX_PARTS:
        raise OutOfBoundsError(f"has {opened} lists and objects; allowed are up to {MAX_PARTS}")
    depth = 0
    for token in _TOKEN.finditer(text.replace(b"\\\\", b"").replace(b'\\"', b"")):  # a quote that is left begins or ends a text
        opening = token.group()
        if opening in (b"[", b"{"):
            depth += 1
            if depth > MAX_DEPTH:
                raise OutOfBoundsError(f"is nested in more than {MAX_DEPTH} levels")
        elif opening in (b"]", b"}"):
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

"""Times on a logarithmic scale: eight buckets for each doubling, so that a time read back is off by 6 % at most.

A bucket is told by the first bits of a float itself: sign, exponent and mantissa of an IEEE 754 double are in this order, so
that equal leading bits mean equal magnitudes. No logarithm is computed on the way in.
"""

from __future__ import annotations

import struct
import sys
from array import array
from collections import Counter
from collections.abc import Mapping
from typing import Final

LEAST_MS: Final = 2.0**-10
MOST_MS: Final = 2.0**20
"""A millionth of a second, and 17 minutes: what is below or above counts as the first or the last bucket."""

_DOUBLE: Final = struct.Struct("<d")
_BITS: Final = struct.Struct("<Q")
_SHIFT: Final = 49  # what stays: sign, exponent, and three bits of the mantissa
_WORDS: Final = slice(3, None, 4) if sys.byteorder == "little" else slice(0, None, 4)
_PAIRED: Final = bytes(byte & 0xFE for byte in range(256))  # the mantissa's fourth bit tells no bucket apart
_BYTES: Final = (slice(7, None, 8), slice(6, None, 8)) if sys.byteorder == "little" else (slice(0, None, 8), slice(1, None, 8))


def _leading(ms: float) -> int:
    bits: int = _BITS.unpack(_DOUBLE.pack(ms))[0]
    return bits >> _SHIFT


_FIRST: Final = _leading(LEAST_MS)
BUCKETS: Final = _leading(MOST_MS) - _FIRST + 1


_IN_A_WIDE_ONE: Final = 4
WIDE_BUCKETS: Final = -(-BUCKETS // _IN_A_WIDE_ONE)
"""Two for each doubling: what is kept without an end, and shown to programs that keep a series of each."""


def bounds_ms(bucket: int) -> tuple[float, float]:
    """From which time on, and below which, a bucket counts."""
    return _edge(bucket), _edge(bucket + 1)


def wide_bucket_of(bucket: int) -> int:
    """The wide bucket, 0 to WIDE_BUCKETS - 1, that a bucket is in."""
    return bucket // _IN_A_WIDE_ONE


def wide_bound_ms(wide: int) -> float:
    """Below which a wide bucket counts. The last one counts what is above, too."""
    return _edge((wide + 1) * _IN_A_WIDE_ONE)


def middle_ms(bucket: int) -> float:
    """The time that stands for a bucket."""
    low, high = bounds_ms(bucket)
    return (low + high) / 2


def count_buckets(samples: list[float]) -> Counter[int]:
    """How many of the samples (floats, not negative) fall into each bucket."""
    raw = array("d", samples).tobytes()
    high, low = (raw[part] for part in _BYTES)
    words: Counter[int] = Counter()
    if raw and high.count(high[0]) == len(high):
        # The usual case, as all of them lie between 30 ns and 2 ms, or between that and two minutes: then a byte tells them
        # apart, and removing one value after another counts them in half the time of the other branch. Each hit pays its share.
        prefix, low = high[0] << 8, low.translate(_PAIRED)
        while low:
            rest = low.translate(None, low[:1])
            words[prefix | low[0]] = len(low) - len(rest)
            low = rest
    else:
        words.update(memoryview(raw).cast("H")[_WORDS].tolist())
    buckets: Counter[int] = Counter()
    for word, count in words.items():
        buckets[_clamp(word >> (_SHIFT - 48))] += count
    return buckets


def quantiles_ms(counts: Mapping[int, int], *shares: float) -> list[float]:
    """The times that these shares of all, in rising order, do not exceed, each 6 % off at most; 0.0 of none."""
    total, seen = sum(counts.values()), 0
    found: list[float] = []
    for bucket in sorted(counts):
        seen += counts[bucket]
        while counts[bucket] and len(found) < len(shares) and seen >= shares[len(found)] * total:
            found.append(middle_ms(bucket))
    return found + [0.0] * (len(shares) - len(found))


def _clamp(leading: int) -> int:
    return min(max(leading - _FIRST, 0), BUCKETS - 1)


def _edge(bucket: int) -> float:
    ms: float = _DOUBLE.unpack(_BITS.pack((bucket + _FIRST) << _SHIFT))[0]
    return ms

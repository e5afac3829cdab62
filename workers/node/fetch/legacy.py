"""Messages that a stock worker, or an older release, had taken and not acknowledged: they lie in kombu's `unacked`."""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from typing import Any, Final

from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

PORTION: Final = 200


def restore_abandoned(channel: Any, client: Any, queues: Container[str], is_ours: Callable[[Any], bool]) -> int:
    """Put back what was taken from these queues longer ago than the visibility time-out: its worker has gone, or has other
    settings. How many.

    Another program's messages in the same database stay: it may have another time-out.
    """
    qos = channel.qos
    before_s = time.time() - channel.visibility_timeout
    tags = client.zrangebyscore(channel.unacked_index_key, "-inf", before_s, start=0, num=PORTION)
    if not tags:
        return 0
    restored = 0
    for tag, raw in zip(tags, client.hmget(channel.unacked_key, tags), strict=True):
        if raw is not None and _is_of(raw, queues, is_ours):
            qos.restore_by_tag(bytes_to_str(tag), client, leftmost=False)
            restored += 1
    return restored


def _is_of(raw: bytes, queues: Container[str], is_ours: Callable[[Any], bool]) -> bool:
    try:
        message, _, queue = loads(bytes_to_str(raw))
        return bool(queue in queues and is_ours(message["headers"]["task"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return False

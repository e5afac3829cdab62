"""How a worker starts: with the children that it forked, or with others in their place."""

from __future__ import annotations

import logging
from typing import Any, Final

from billiard.pool import EX_OK, EX_RECYCLE

logger: Final = logging.getLogger(__name__)


def have_started(pool: Any) -> bool:
    """False if a child has ended by itself since it was forked: then none can start, and the worker ends. One that was killed
    is replaced.

    In place of a prefork pool's `did_start_ok`, which makes no difference between the two: a worker of which one child was
    killed would end. It forks before it connects, so that there is as long for that as its broker is away.
    """
    ended = [code for child in pool._pool._pool if (code := child.exitcode) is not None]  # noqa: SLF001 - as Celery's own looks
    if any(code > 0 and code not in (EX_OK, EX_RECYCLE) for code in ended):
        return False
    if ended:
        logger.warning("worker.children_replaced: %d had been killed before the worker was ready", len(ended))
        pool.maintain_pool()
    return True

"""The names that both sides of the queue use: tasks, queues, headers. Imports nothing."""

from __future__ import annotations

from typing import Final

PROCESS_TASK: Final = "persona.process"
INVALIDATE_TASK: Final = "cache.invalidate"
PRELOAD_TASK: Final = "cache.preload"
RENEW_TASK: Final = "cache.renew"
MAINTAIN_TASK: Final = "cache.maintain"

QUEUE: Final = "persona"
BULK_QUEUE: Final = "persona.bulk"
MAINTENANCE_QUEUE: Final = "maintenance"
QUEUES: Final = (QUEUE, BULK_QUEUE, MAINTENANCE_QUEUE, "celery")
"""Those that a worker reads. "celery" is the queue of a producer without any configuration."""

IN_FLIGHT_HEADER: Final = "persona_in_flight"
"""The name by which a task was entered as in flight, so that the worker can take it out again."""
PUBLISHED_HEADER: Final = "persona_published_at"
"""When a task was queued, in seconds since 1970 by its sender's clock."""
RENEWAL_HEADER: Final = "persona_renewal"
"""Marks a task that no caller waits for: it is not a request, and does not count as one."""
DELIVERIES_HEADER: Final = "persona_deliveries"
"""How often the node that had claimed a message has died with it."""
RETURNS_HEADER: Final = "persona_returns"
"""How often a message has come back to its queue, for whatever reason: no two of its deliveries have the same text."""
UNKNOWN_SINCE_HEADER: Final = "persona_unknown_since"
"""When a message first met a worker that does not know its task, in seconds since 1970."""

"""Names that a measured fleet and the measuring program share."""

from __future__ import annotations

from typing import Final

from kombu import Exchange

PROBE_KEY: Final = "bench:probe"
PROBE_TTL_S: Final = 600

INSTALLED_QUEUE: Final = "installed"
PROCESS_TASK: Final = "persona.process"
BARE_TASK: Final = "bench.bare"
BUSY_TASK: Final = "bench.busy"
STOCK_TASK: Final = "bench.stock"
# Everything that a fanout needs on Redis, so that the stock task is compared at its best: with less it reaches no node.
STOCK_EXCHANGE: Final = Exchange("bench.stock", type="fanout", durable=False, auto_delete=False)
STOCK_ROUTING_KEY: Final = "stock"

"""All faults, in the order of the table."""

from __future__ import annotations

from typing import Final

from doctor.faults import kept, nodes, servers, sites
from doctor.faults.planted import Fault

FAULTS: Final[tuple[Fault, ...]] = (*servers.FAULTS, *kept.FAULTS, *nodes.FAULTS, *sites.FAULTS)

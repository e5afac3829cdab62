"""The app of the measured fleet, whose nodes and children write down what they do."""

from __future__ import annotations

import traces.recording.recorded  # noqa: F401 - the hooks come before the app
from benchmarks.kit import fleet_app

app = fleet_app.app  # type: ignore[attr-defined]

"""The app that has installed the cache, whose nodes and children write down what they do."""

from __future__ import annotations

import traces.recording.recorded  # noqa: F401 - the hooks come before the app
from benchmarks.kit import installed_app

app = installed_app.app

"""The app of worker processes, with its tasks. A program that only asks uses `workers.client`, and does not import this."""

from __future__ import annotations

from pipeline.settings import get_settings
from workers.dashboard import serve_ours
from workers.factory import make_app
from workers.logs import write_json

settings = get_settings()
app = make_app(settings)
app.conf.imports = ("workers.tasks", "workers.processes", "workers.node", "workers.poison")
app.conf.worker_consumer = "workers.poison:GuardedConsumer"
app.steps["consumer"].update(("workers.node:InvalidationStep", "workers.events:EventBatches"))
app.set_default()
serve_ours()
if settings.log == "json":
    write_json()

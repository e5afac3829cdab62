"""The app of worker processes, with its tasks. A program that only asks uses `workers.client`, and does not import this."""

from __future__ import annotations

from pipeline.settings import get_settings
from workers.factory import make_app

app = make_app(get_settings())
app.conf.imports = ("workers.tasks", "workers.processes", "workers.node", "workers.poison")
app.conf.worker_consumer = "workers.poison:GuardedConsumer"
app.steps["consumer"].add("workers.node:InvalidationStep")
app.set_default()

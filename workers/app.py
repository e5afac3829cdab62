"""The app of worker processes, with its tasks. A program that only asks uses `workers.client`, and does not import this."""

from __future__ import annotations

import logging

from pipeline.settings import get_settings
from workers.dashboard import serve_ours
from workers.factory import make_app, not_obeyed
from workers.logs import write_json

settings = get_settings()
for _name in not_obeyed(settings):
    logging.getLogger(__name__).warning("%s (also -b, --result-backend) is not used: PERSONA_ variables name the servers", _name)
app = make_app(settings)
app.conf.imports = ("workers.tasks", "workers.processes", "workers.node", "workers.poison")
app.conf.worker_consumer = "workers.poison:GuardedConsumer"
app.steps["consumer"].update(("workers.node:InvalidationStep", "workers.events:EventBatches"))
app.set_default()
serve_ours()
if settings.log == "json":
    write_json()

"""The app of worker processes, with its tasks. A producer uses `workers.client`, and does not import this."""

from __future__ import annotations

import logging

from pipeline.settings import get_settings
from workers.dashboard import serve_ours
from workers.install import install
from workers.node.logs import write_json
from workers.queue.factory import make_app, not_obeyed
from workers.queue.tls.starting import check_workers

settings = get_settings()
for _name in not_obeyed(settings):
    logging.getLogger(__name__).warning("%s (also -b, --result-backend) is not used: PERSONA_ variables name the servers", _name)
app = make_app(settings)
app.task_cls = "workers.node.failures.keeping:KeepingTask"
# By name, so that they are imported when a worker starts and not when the app is made: each is a file of `workers/`.
app.conf.imports = (
    "workers.tasks",
    "workers.node.processes",
    "workers.node.invalidation",
    "workers.node.poison",
    "workers.node.inspection",
    "workers.node.control.scheduled",
)
app.amqp_cls = "workers.node.callbacks:CallersAMQP"
app.worker_cls = "workers.node.control.ending:OrderlyWorker"
app.conf.worker_consumer = "workers.node.consumer:GuardedConsumer"
app.steps["consumer"].update(("workers.node.events:EventBatches", "workers.node.fetching:FetchStep"))
install(app, settings=settings, step="workers.node.invalidation:InvalidationStep", default=False)  # a pipeline has the cache
if settings.traces:
    app.conf.imports = ("workers.node.tracing.starting", *app.conf.imports)  # first: it tells the others
    app.task_cls = "workers.node.tracing.tasks:TracedTask"
    app.conf.worker_consumer = "workers.node.tracing.consumer:TracedConsumer"
    app.steps["consumer"].add("workers.node.tracing.starting:ExporterStep")
app.set_default()
serve_ours()
check_workers(settings)
if settings.log == "json":
    write_json()

"""Plain Celery with the tasks of `fetch_tasks`, without a line of this project: `celery -A stock_tasks worker`."""

from __future__ import annotations

import os

from celery import Celery
from noted_tasks import register

app = Celery("stock", broker=os.environ["PERSONA_BROKER_URL"], backend=os.environ["PERSONA_BROKER_URL"].replace("/0", "/1"))
app.conf.update(task_default_queue="persona", task_acks_late=True, worker_prefetch_multiplier=1)
register(app)

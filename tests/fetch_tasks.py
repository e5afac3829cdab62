"""A node's app with tasks for tests beside its own: `celery -A fetch_tasks worker`."""

from __future__ import annotations

from noted_tasks import register

from workers.app import app

register(app)

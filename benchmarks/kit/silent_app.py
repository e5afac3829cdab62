"""The app of a node that sends no events of its tasks, to compare with one that does."""

from __future__ import annotations

from workers.app import app

# Not by remote control: a node that was configured to send them answers `disable_events` with "already disabled", and goes on.
app.conf.worker_send_task_events = False

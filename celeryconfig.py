"""Celery's settings, for those who look for them here. `workers/queue/celery_settings.py` makes them, where each has its reason;
the app takes them from there, and this file is not installed."""

from pipeline.settings import get_settings
from workers.queue.celery_settings import celery_settings

globals().update(celery_settings(get_settings()))

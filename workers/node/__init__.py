"""A worker's own code: its main process that follows the invalidation log, its pool children, the check of its messages.

Celery loads these modules by name (`workers/app.py`). Knows nothing of producers, and is imported by no other room.
"""

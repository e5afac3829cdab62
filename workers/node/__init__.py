"""What runs in a worker: its main process that follows the invalidation log, its pool children, what it does at the door.

Celery loads these modules by name (`workers/app.py`). Knows nothing of who asks, and is imported by no other room.
"""

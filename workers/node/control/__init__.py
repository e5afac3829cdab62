"""What operators ask of a worker beside its tasks: that it ends, and what waits.

Runs no task, and takes no message. Celery's own commands stay as they are but for these.
"""

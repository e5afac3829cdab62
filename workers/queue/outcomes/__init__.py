"""How the outcome of a task gets to Redis for its caller: one exchange, and what happens when that cannot be had.

Decides nothing about outcomes, and reads none: `workers.queue.results` does. Results elsewhere than in Redis are Celery's own.
"""

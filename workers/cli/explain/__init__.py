"""`persona explain`: what is known of a key, of a request's answer, or of a task.

Reads only: computes, keeps and counts nothing. Never shows what a user wrote or was answered.
"""

from workers.cli.explain.command import register

__all__ = ["register"]

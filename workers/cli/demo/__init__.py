"""`persona demo`: everything started, the sample requests sent, the figures shown.

Uses the client as any program does; measures no figure that is quoted.
"""

from workers.cli.demo.demo import register

__all__ = ["register"]

"""The embedded stack: servers, a local model, worker, beat and Flower, on loopback, as children of one process.

In the foreground, for one user of one machine. Leaves no process behind, however it ends.
"""

from workers.stack.errors import StackError, StackRunningError
from workers.stack.options import SERVICES, StackOptions
from workers.stack.state import FlowerLogin, ServiceInfo, StackInfo
from workers.stack.supervisor import Stack

__all__ = [
    "SERVICES",
    "FlowerLogin",
    "ServiceInfo",
    "Stack",
    "StackError",
    "StackInfo",
    "StackOptions",
    "StackRunningError",
]

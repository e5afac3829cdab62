"""For producers: requests in, answers out.

Sends tasks, waits for results, reads the fleet's cache. Computes no answer, and never imports code that runs in a worker.
"""

from workers.client.client import PersonaClient
from workers.client.mapping import Answered, Progress
from workers.client.ticket import Ticket
from workers.queue.names import BULK_QUEUE, QUEUE

__all__ = ["BULK_QUEUE", "QUEUE", "Answered", "PersonaClient", "Progress", "Ticket"]

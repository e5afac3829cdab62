"""An operator's purge of a queue, which also removes what of it waits aside.

By `celery -A workers purge`, and by `app.control.purge()` of this package's apps.
A program with an app of its own purges by its own kombu, which knows of no messages aside: they stay.
"""

from __future__ import annotations

from typing import Any

from celery.app.amqp import AMQP
from celery.app.control import Control
from kombu import Connection
from kombu.utils.collections import HashedSeq


class PurgingConnection(Connection):
    """kombu's connection; where it leads to Redis by kombu's own transport, a purge removes what is aside as well.

    kombu's pools are the process's, one for all that are equal by this: two apps with other certificates at one server are not.
    """

    def __eqhash__(self) -> HashedSeq:
        return HashedSeq(*super().__eqhash__(), repr(self.ssl))

    def get_transport_cls(self) -> Any:
        found = super().get_transport_cls()
        if found.__module__ != "kombu.transport.redis":  # that of a worker does it by itself
            return found
        from workers.queue.aside.transport import PurgingTransport  # with a Redis broker only

        return PurgingTransport


class PurgingAMQP(AMQP):
    """Celery's part that sends, by such connections."""

    Connection = PurgingConnection


class PurgingControl(Control):
    """Celery's remote control."""

    def purge(self, connection: Any = None) -> int:
        """As Celery's own. On a connection of its own, unless one is given: those of a pool are kombu's."""
        if connection is not None:
            return int(super().purge(connection))
        with self.app.connection_for_write() as own:
            return int(super().purge(own))

    discard_all = purge

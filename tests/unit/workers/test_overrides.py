"""What is overridden of kombu and Celery is what it was: a release that changes it must be looked at."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from celery.app import trace
from celery.app.amqp import AMQP, Queues
from celery.app.control import Control
from celery.app.routes import Router
from celery.apps.worker import Worker
from celery.concurrency.asynpool import AsynPool
from celery.events.dispatcher import EventDispatcher
from celery.worker import loops
from celery.worker.request import Request
from kombu import Connection
from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from redis._parsers import _RESP2Parser, _RESP3Parser
from redis._parsers.base import _RESPBase
from redis._parsers.socket import SocketBuffer

from workers.node.callbacks import CallersAMQP, CallersRouter
from workers.node.control.ending import OrderlyWorker
from workers.node.failures.keeping import KeepingRequest
from workers.node.fetch.channel import FetchChannel, FetchQoS
from workers.node.fetch.transport import FetchPoller, FetchTransport
from workers.node.guard.watching import LeavingTransport
from workers.node.poison import GuardedChannel, GuardedPoller
from workers.queue.aside.purging import PurgingConnection, PurgingControl
from workers.queue.aside.transport import PurgingChannel

SIGNATURES = {
    (kombu_redis.MultiChannelPoller, "on_poll_start"): "(self)",
    (kombu_redis.MultiChannelPoller, "on_readable"): "(self, fileno)",
    (kombu_redis.MultiChannelPoller, "_register"): "(self, channel, client, type)",
    (kombu_redis.MultiChannelPoller, "_unregister_from_poll"): "(self, fileno)",
    (kombu_redis.Channel, "basic_consume"): "(self, queue, *args, **kwargs)",
    (kombu_redis.Channel, "_basic_cancel"): "(self, consumer_tag)",
    (kombu_redis.MultiChannelPoller, "_register_LISTEN"): "(self, channel)",
    (kombu_redis.Channel, "_receive"): "(self)",
    (kombu_redis.Channel, "_receive_one"): "(self, c)",
    (kombu_redis.Channel, "_handle_message"): "(self, client, r)",
    (kombu_redis.Channel, "_poll_error"): "(self, type, **options)",
    (kombu_redis.Channel, "_queue_bind"): "(self, exchange, routing_key, pattern, queue)",
    (kombu_redis.Channel, "_deliver_fanout_message"): "(self, message, exchange)",
    (kombu_redis.Channel, "_create_client"): "(self, asynchronous=False)",
    (kombu_redis.Channel, "_connparams"): "(self, asynchronous=False)",
    (kombu_redis.Channel, "_q_for_pri"): "(self, queue, pri)",
    (kombu_redis.Channel, "close"): "(self)",
    (kombu_redis.Channel, "_brpop_start"): "(self, timeout=None)",
    (kombu_redis.Channel, "_brpop_read"): "(self, **options)",
    (kombu_redis.Channel, "_purge"): "(self, queue)",
    (Connection, "get_transport_cls"): "(self)",
    (Control, "purge"): "(self, connection=None)",
    (Worker, "install_platform_tweaks"): "(self, worker)",
    (Worker, "wait_for_soft_shutdown"): "(self)",
    (Control, "discard_all"): "(self, connection=None)",
    (kombu_redis.QoS, "append"): "(self, message, delivery_tag)",
    (kombu_redis.QoS, "ack"): "(self, delivery_tag)",
    (kombu_redis.QoS, "reject"): "(self, delivery_tag, requeue=False)",
    (kombu_redis.QoS, "restore_unacked"): "(self, client=None)",
    (kombu_redis.QoS, "restore_visible"): "(self, start=0, num=10, interval=10)",
    (kombu_redis.QoS, "restore_by_tag"): "(self, tag, client=None, leftmost=False)",
    (virtual.Channel, "basic_consume"): "(self, queue, no_ack, callback, consumer_tag, **kwargs)",
    (virtual.QoS, "can_consume_max_estimate"): "(self)",
    (virtual.Transport, "_deliver"): "(self, message, queue)",
    (virtual.Transport, "close_connection"): "(self, connection)",
    (kombu_redis.Transport, "register_with_event_loop"): "(self, connection, loop)",
    (AMQP, "_retry_publish"): "(self, publish, *args, **kwargs)",
    (AMQP, "Router"): "(self, queues=None, create_missing=None)",
    (Request, "on_failure"): "(self, exc_info, send_failed_event=True, return_ok=False)",
    (Request, "acknowledge"): "(self)",
    (Request, "_retry_worker_lost"): "(self, exc, exc_info)",
    (Request, "_success_was_stored"): "(self)",
    (Router, "route"): "(self, options, name, args=(), kwargs=None, task_type=None)",
}


def id_of(case: tuple[Any, str]) -> str:
    return f"{case[0].__name__}.{case[1]}"


@pytest.mark.parametrize("case", SIGNATURES, ids=id_of)
def test_the_original_is_called_as_it_was(case: tuple[Any, str]) -> None:
    owner, name = case
    assert str(inspect.signature(getattr(owner, name))) == SIGNATURES[case]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (FetchPoller, kombu_redis.MultiChannelPoller),
        (GuardedPoller, kombu_redis.MultiChannelPoller),
        (FetchChannel, kombu_redis.Channel),
        (GuardedChannel, kombu_redis.Channel),
        (FetchQoS, kombu_redis.QoS),
        (FetchTransport, kombu_redis.Transport),
        (LeavingTransport, kombu_redis.Transport),
        (CallersAMQP, AMQP),
        (PurgingChannel, kombu_redis.Channel),
        (PurgingConnection, Connection),
        (PurgingControl, Control),
        (OrderlyWorker, Worker),
        (CallersRouter, Router),
        (KeepingRequest, Request),
    ],
)
def test_whatever_is_overridden_is_listed(ours: type, theirs: type) -> None:
    """Else a name that kombu begins to use would be overridden without anybody's knowing."""
    defined = {name for name, value in vars(ours).items() if inspect.isfunction(value) and not name.startswith("__")}
    overridden = {name for name in defined if hasattr(theirs, name)}
    assert overridden <= {name for _, name in SIGNATURES}


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (kombu_redis.Channel.__init__, "self.handlers = {'BRPOP': self._brpop_read, 'LISTEN': self._receive}"),
        (kombu_redis.Transport.__init__, "self.cycle = MultiChannelPoller()"),
        (kombu_redis.Transport.register_with_event_loop, "client.connection is connection"),
        (kombu_redis.Transport.register_with_event_loop, "# Keep on_poll_start registered"),
        (kombu_redis.MultiChannelPoller.on_poll_start, "if channel.active_queues:"),
        (EventDispatcher._publish, "retry=retry,"),
        (virtual.Channel.basic_consume, "self.qos.append(message, message.delivery_tag)"),
        (virtual.Channel.close, "self._qos.restore_unacked_once()"),
        (trace.build_tracer, "app.amqp._retry_publish("),
        (Queues.__missing__, "if self.create_missing:"),
        (loops.asynloop, "if not obj.restart_count and not obj.pool.did_start_ok():"),
        (AsynPool.did_start_ok, "return not self._join_exited_workers()"),
        (kombu_redis.Channel.close, "if queue in self.auto_delete_queues:"),
        (_RESPBase.on_connect, "self._buffer = SocketBuffer("),
        (_RESP2Parser._read_response, "response = self._buffer.read(int(response)"),
        (_RESP3Parser._read_response, "response = self._buffer.read(int(response)"),
        (SocketBuffer._read_from_socket, "buf.seek(0, SEEK_END)"),
        (SocketBuffer.purge, "self._buffer.truncate(unread)"),
        (kombu_redis.MultiChannelPoller._register_LISTEN, "if not channel._in_listen:"),
    ],
)
def test_what_is_relied_on_inside_is_still_there(where: Callable[..., Any], words: str) -> None:
    assert words in inspect.getsource(where)

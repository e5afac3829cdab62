"""Celery's settings, each with its reason.

They lie in the package, and are handed to the app as they are: a file named `celeryconfig` in the working directory, or
CELERY_CONFIG_MODULE, belongs to another program. Settings that differ from place to place come from `pipeline.settings`.
"""

from __future__ import annotations

from typing import Any, Final

from kombu import Exchange, Queue

from pipeline.settings import Settings
from workers.queue.names import QUEUES
from workers.queue.tls.options import tls_settings, without_tls_options

VISIBILITY_TIMEOUT_S: Final = 180
"""Over twice the hard time limit: a task that still runs is not given to a second worker."""
PATIENCE_OPTION: Final = "outcome_patience_s"
PATIENCE_S: Final = 30.0
"""How long a pool process tries to store an outcome (`workers.queue.outcomes`): a restart of the server, and much less than the
soft time limit, which ends it too. Then the task goes back to its queue."""
MAX_BYTES_OPTION: Final = "outcome_max_bytes"
FULL_AT_OPTION: Final = "queue_full_at"
_SOCKET: Final = {
    "socket_timeout": 5,  # a half-open connection ends in seconds; Celery's own default waits for ever
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
}


def celery_settings(settings: Settings) -> dict[str, Any]:
    """All settings, by Celery's names. Reads nothing but `settings`."""
    return {
        **_queue(settings),
        **_messages(),
        **_work(),
        **_results(settings),
        **_beat(settings),
        **tls_settings(settings),
        # For Flower.
        "worker_send_task_events": True,
        "task_send_sent_event": False,  # one more message a task, which says no more than task-received
    }


def _is_redis(settings: Settings) -> bool:
    return not settings.broker_url.startswith("amqp")


def _queue(settings: Settings) -> dict[str, Any]:
    return {
        "broker_url": without_tls_options(settings.broker_url),
        "broker_connection_retry_on_startup": True,  # workers may start before their broker
        "broker_connection_max_retries": None,  # and outlive a long outage: the default gives up after 100 tries
        "broker_connection_timeout": 2,  # a caller learns within seconds that the broker is away
        "broker_pool_limit": 10,
        "broker_pool_acquire_timeout": 5,  # the default blocks a caller for ever when the pool is empty
        # A server that refuses is to be tried again; but with messages that are popped, a full one would lose one a try.
        "broker_channel_error_retry": settings.fetch == "claims",
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "unacked_restore_interval": 5,  # a dead worker's tasks return after the time-out and 5 s, not 100 s
            "unacked_restore_throttle": 1,
            "unacked_restore_limit": 200,  # a large backlog returns in portions
            "unacked_mutex_expire": 30,  # a worker killed while it restores holds up the others for 30 s, not 300 s
            "health_check_interval": 5,  # a worker notices a half-open connection in 11 s, not 51 s
            "max_connections": 100,  # a worker has one for each queue that it waits for; the default is 10
            "retry_on_timeout": False,  # a second LPUSH would enqueue twice
            "client_name": "persona-worker",  # as CLIENT LIST shows it
            **_SOCKET,
        }
        if _is_redis(settings)
        else {},
    }


def _messages() -> dict[str, Any]:
    return {
        "task_default_queue": "persona",
        "task_queues": tuple(Queue(name, Exchange(name, type="direct"), routing_key=name) for name in QUEUES),
        "task_default_exchange": "persona",
        "task_default_routing_key": "persona",
        "task_create_missing_queues": False,  # a mistyped queue is an error at the caller, not a list that no worker reads
        "task_routes": {name: {"queue": "maintenance"} for name in ("cache.preload", "cache.renew", "cache.maintain")},
        "task_serializer": "json",  # pickle would run code from a message
        "accept_content": ["json"],
        "result_serializer": "json",
        "result_accept_content": ["json"],
        "event_serializer": "json",
        "task_publish_retry_policy": {"max_retries": 3, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 0.5},
    }


def _work() -> dict[str, Any]:
    return {
        "task_acks_late": True,  # a task lost with its worker is given to another one
        "task_reject_on_worker_lost": True,  # also when only the pool child died
        "task_retry_on_worker_lost": True,  # bounded by the task's max_retries: a task that kills its child ends, too
        "worker_prefetch_multiplier": 1,  # tasks take seconds: none should wait behind a busy process while another is free
        "task_soft_time_limit": 75,  # a wait for another's answer and a model call; both well below the visibility time-out
        "task_time_limit": 85,
        "task_track_started": False,  # two exchanges and a message a task, for a state that nobody reads; the event is sent
        "worker_cancel_long_running_tasks_on_connection_loss": True,  # its message goes to another worker: no twin beside it
        "worker_deduplicate_successful_tasks": True,  # a message that came back after its task had succeeded is dropped
        "worker_soft_shutdown_timeout": 30,  # running tasks may end; the rest returns to the queue
        "worker_enable_soft_shutdown_on_idle": False,  # it would be 30 s for nothing at every stop; postponed tasks return
        "worker_proc_alive_timeout": 30,  # a child that imports slowly on a busy machine is not killed for it
        "worker_eta_task_limit": 1000,  # a flood of postponed tasks does not fill the worker's memory
        "worker_disable_rate_limits": True,  # none are used; the bookkeeping goes
    }


def _results(settings: Settings) -> dict[str, Any]:
    return {
        "result_backend": without_tls_options(settings.result_backend_url),
        "result_expires": settings.result_ttl_s,
        "result_extended": False,  # would keep the arguments, which users wrote, beside each result
        # A look-up is tried once, and its failure is Celery's own error. Outcomes have a patience of their own.
        "result_backend_always_retry": True,
        "result_backend_max_retries": 0,
        "result_backend_transport_options": {
            "retry_policy": {"timeout": 5.0},
            PATIENCE_OPTION: PATIENCE_S,
            FULL_AT_OPTION: settings.queue_full_at,
            MAX_BYTES_OPTION: settings.result_max_kb * 1024,
        },
        "redis_socket_timeout": 5,  # the default holds a pool process for 120 s
        "redis_socket_connect_timeout": 2,
        "redis_socket_keepalive": True,
        "redis_retry_on_timeout": False,  # outcomes are tried again as `workers.queue.outcomes` has it
        "redis_backend_health_check_interval": 25,
    }


def _beat(settings: Settings) -> dict[str, Any]:
    """Schedule and lock in Redis, so that a second beat is a spare and does not run tasks twice."""
    of_redis = {
        "redbeat_redis_url": without_tls_options(settings.broker_url),
        # It outlives a short outage; after a longer one it is started anew.
        "redbeat_redis_options": {**_SOCKET, "retry_period": 30},
    }
    # A run that no worker has begun when the next one is due is dropped. `every_s` lets the task see to it that its slot runs
    # once, also with two beats that do not know of each other.
    every = (("cache.preload", settings.preload_interval_s), ("cache.maintain", 60.0))
    return {
        "beat_scheduler": "workers.node.schedule:RedBeatScheduler" if _is_redis(settings) else "celery.beat.PersistentScheduler",
        "beat_max_loop_interval": min(10.0, settings.beat_lock_s / 6),
        "redbeat_lock_timeout": settings.beat_lock_s,  # the default leaves the fleet without beat for 25 minutes after a crash
        "redbeat_key_prefix": "persona:redbeat:",
        **(of_redis if _is_redis(settings) else {}),
        "beat_schedule": {
            task: {"task": task, "schedule": every_s, "kwargs": {"every_s": every_s}, "options": {"expires": every_s}}
            for task, every_s in every
        },
    }

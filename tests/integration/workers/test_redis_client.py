"""What ends a command of Celery's own connections ends that command: not the process, and not the next one."""

from __future__ import annotations

import gc
import signal

import pytest
from broken_off import broken_off_at
from programs import run_program
from servers import ValkeyServer

from workers.queue.redis_client import guard_redis_client

CLIENT = ("redis/client.py", "redis/connection.py", "redis/_parsers/hiredis.py")
PACKING = """
    import random, signal, sys
    from redis.connection import HiredisRespSerializer

    from pipeline.settings import load_settings
    from workers.queue.factory import make_app

    make_app(load_settings({}))

    class StopError(Exception): ...

    armed = False

    def stop(*_):
        if armed:
            raise StopError

    signal.signal(signal.SIGALRM, stop)
    serializer, stops, rng = HiredisRespSerializer(), 0, random.Random(1)
    words = list(range(300)) + [0.5] * 20
    while stops < 1_500:
        try:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, rng.uniform(2e-5, 5e-4))
            for _ in range(100):
                serializer.pack("MSET", *words)
            armed = False
        except StopError:
            stops += 1
        armed = False
    assert b"".join(serializer.pack("SETEX", "k", 100, b"v")).split() == b"*4 $5 SETEX $1 k $3 100 $1 v".split()
    assert b"".join(serializer.pack("BRPOP", "q", 0.5)).split() == b"*3 $5 BRPOP $1 q $3 0.5".split()
    print("ok")
"""


def test_a_signal_does_not_end_the_process_while_a_number_is_packed() -> None:
    """hiredis asks the interpreter for a number's text, which may raise what a signal's handler raises, and goes on with NULL."""
    done = run_program(PACKING)
    assert done.returncode != -signal.SIGSEGV
    assert done.stdout.strip() == "ok", done.stderr


# The library's own pipeline, made by half, complains when it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_command_of_celerys_client_that_is_broken_off_leaves_no_reply_to_the_next_one(valkey: ValkeyServer) -> None:
    """Between any two lines of the client: a signal's handler raises there. So on connections to the broker and the results."""
    guard_redis_client()
    with valkey.client() as client:
        client.mset({"a": "of a", "b": "of b"})
        for command in (lambda: client.get("a"), lambda: client.pipeline().get("a").get("a").execute()):
            step = 0
            while True:
                step += 1
                assert client.get("a") == b"of a"
                went_on = not broken_off_at(step, command, *CLIENT)
                assert client.get("b") == b"of b", f"after step {step}"
                if went_on:
                    break
            assert step > 20
    del command
    gc.collect()  # what the library has lost is found here, where its complaint is expected

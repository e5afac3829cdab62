"""A program beside the fleet, with a cache of its own: it asks, invalidates users, and has the workers preload."""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import TracebackType
from typing import Final, Self

from fleet import Fleet

from benchmarks.kit.model_server import expected_answer
from pipeline.models import PersonaRequest
from pipeline.settings import load_settings
from workers.client import PersonaClient
from workers.queue.names import MAINTENANCE_QUEUE, PRELOAD_TASK

EVERY_S: Final = 0.25
WAIT_S: Final = 60.0
PRELOAD_EVERY: Final = 80
USERS: Final = 25
JOIN_S: Final = WAIT_S + 20
KEY: Final = "curious-medium-learning"


class Program:
    """`with Program(fleet) as program:` it works meanwhile. `answered`, `wrong` and `told`: how often it had an answer, another
    one's answer, or an error that says why not. What it waited for longer than WAIT_S counts as an error, too."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name="program", daemon=True)
        self.answered = self.wrong = 0
        self.told: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(JOIN_S)

    def _work(self) -> None:
        number = 0
        with PersonaClient(load_settings(self._fleet.environ)) as client:
            while not self._ended.wait(EVERY_S):
                number += 1
                user = f"user {number % USERS}"
                request = PersonaRequest.create(f"What about {user}?", KEY, {"user_id": user, "user_name": user})
                try:
                    began_s = time.monotonic()
                    content = client.submit_request(request).result(WAIT_S).content
                    self.answered += 1
                    self.wrong += content != expected_answer(request)
                    if number % 7 == 0:
                        client.invalidate_user(user)
                    if number % PRELOAD_EVERY == 0:
                        self._fleet.app.send_task(PRELOAD_TASK, queue=MAINTENANCE_QUEUE)
                except Exception as error:  # noqa: BLE001 - each is counted by its name
                    took = "late" if time.monotonic() - began_s >= WAIT_S else "at once"
                    self.told[f"{type(error).__name__} {took}"] += 1

"""How a worker ends: what runs may end, for so long; the rest goes back to its queue."""

from __future__ import annotations

import os
import signal
from typing import Any, Final

from celery import platforms
from celery.apps import worker as stock
from celery.signals import worker_shutting_down
from celery.worker import state

IN_ORDER: Final = ("SIGQUIT", *(["SIGTERM"] if os.environ.get("REMAP_SIGTERM") == "SIGQUIT" else []))
"""The signals of Celery's soft shutdown."""


class OrderlyWorker(stock.Worker):
    """Ends softly by a warm shutdown with a bound, and not by Celery's own way: that stands still in a signal handler for the
    whole `worker_soft_shutdown_timeout`, however soon the last task ends, and then takes back also what has ended."""

    def install_platform_tweaks(self, worker: Any) -> None:
        super().install_platform_tweaks(worker)
        cold = signal.getsignal(signal.SIGQUIT)
        for name in IN_ORDER:
            platforms.signals[name] = self._ends_softly(name, cold)

    def _ends_softly(self, name: str, cold: Any) -> Any:
        def end(*_: Any) -> None:
            for again in IN_ORDER:
                platforms.signals[again] = cold
            bound_s = float(self.app.conf.worker_soft_shutdown_timeout)
            if bound_s > 0:
                signal.signal(signal.SIGALRM, cold)
                signal.setitimer(signal.ITIMER_REAL, bound_s)
            stock.safe_say(f"worker: Soft shutdown, for {bound_s:g} s at most (MainProcess)", stock.sys.__stdout__)
            worker_shutting_down.send(sender=self.hostname, sig=name, how="Soft", exitcode=0)
            state.should_stop = 0

        return end

    def wait_for_soft_shutdown(self) -> None:
        """It has been waited for."""

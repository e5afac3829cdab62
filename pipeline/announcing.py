"""How a program other than a worker tells the nodes of its invalidations: through a package installed beside the pipeline."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

from pipeline.cache import Invalidation
from pipeline.figures import Reporter
from pipeline.settings import Settings

GROUP: Final = "persona.announcers"
"""The entry points that make an `Announcing` of the settings and of the reporter that records each announcement."""

logger: Final = logging.getLogger(__name__)


class Announcing(Protocol):
    """A way to the nodes: see pipeline.cache.coherence.process.Announce."""

    def __call__(self, invalidation: Invalidation, invalidation_id: str | None) -> bool: ...

    def close(self) -> None:
        """Send the waiting notices, for a second or so, and close the connection."""


class InstalledAnnouncer:
    """Announces by the installed entry point, or reports that it did not. The entry point is looked up at the first invalidation:
    a program that makes none need not load a queue's client."""

    def __init__(self, settings: Settings, reporter: Callable[[], Reporter]) -> None:
        self._settings = settings
        self._reporter = reporter
        self._found: tuple[Announcing | None] | None = None

    def __call__(self, invalidation: Invalidation, invalidation_id: str | None) -> bool:
        if self._found is None:
            self._found = (self._look(),)  # of two threads that look, either's result will do
        announcing = self._found[0]
        return announcing is not None and announcing(invalidation, invalidation_id)

    def close(self) -> None:
        found, self._found = self._found, None
        if found is not None and found[0] is not None:
            found[0].close()

    def _look(self) -> Announcing | None:
        from importlib.metadata import entry_points  # some 20 ms, which a program that invalidates nothing need not spend

        for found in entry_points(group=GROUP):
            announcing: Announcing = found.load()(self._settings, self._reporter)
            return announcing
        logger.warning("cache.not_announced: no way to the nodes is installed; they learn of an invalidation from the log")
        return None


def announcer_for(settings: Settings, reporter: Callable[[], Reporter]) -> InstalledAnnouncer | None:
    """The announcer of a program whose settings name a broker. None if only the default is known: no server need be there."""
    return InstalledAnnouncer(settings, reporter) if "broker_url" in settings.model_fields_set else None

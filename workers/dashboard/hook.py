"""Puts our Flower in the place of the stock one."""

from __future__ import annotations

import sys
from functools import wraps
from typing import Any, Final

import click

COMMAND: Final = "flower.command"


def serve_ours() -> None:
    """From now on the command `flower` of this process serves `Dashboard`. Imports nothing until it is run.

    Celery's program has imported each plugin's command by the time it loads an app. In any other program the command is not
    loaded and cannot run: nothing happens then.
    """
    module: Any = sys.modules.get(COMMAND)
    if module is None or hasattr(module.flower.callback, "serves_ours"):
        return
    stock = module.flower.callback

    @wraps(stock)
    def flower(*arguments: Any, **options: Any) -> Any:
        if not hasattr(module, "Flower"):
            from importlib.metadata import version

            raise click.ClickException(f"Flower {version('flower')} does not fit the page and the login; install flower 2.2")
        from workers.dashboard.server import Dashboard

        module.Flower = Dashboard
        return stock(*arguments, **options)

    flower.serves_ours = True  # type: ignore[attr-defined]  # read above: an app may be loaded twice
    module.flower.callback = flower

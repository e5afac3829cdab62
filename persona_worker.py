"""The package by a name that is nobody else's: where its commands begin.

`workers` and `pipeline` are names that a project may have of its own. `persona` and `celery -A persona_worker` begin here and put
this package's first, whatever the working directory or PYTHONPATH holds. Imports nothing of the package before that.

`celery -A workers` begins in Celery, which looks in the working directory first. Celery's program loads `celery_command` at its
start, as it loads the commands of every installed package; from then on

- where another file hides `workers` or `pipeline`, one sentence names it; so it does with a setting that does not fit;
- `flower`, where it is not installed, tells what to install.

A project of its own takes from here what it needs of the cache: `from persona_worker import cached, install`.

What other programs do under Celery stays as it is: their apps, their errors, and their help, as the command is a hidden one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import wraps
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    import click

    from pipeline.cache import cached, invalidate_cache, key_of, pattern_for
    from workers.install import InstallError, install

__all__ = ["InstallError", "cached", "install", "invalidate_cache", "key_of", "main", "pattern_for"]

HERE: Final = Path(__file__).resolve().parent
OURS: Final = ("pipeline", "workers")
PROGRAM: Final = "celery.bin.celery"
"""The module of Celery's program. It is in `sys.modules` when that loads `celery_command`."""


FOR_OTHERS: Final = {
    "install": "workers.install",
    "InstallError": "workers.install",
    **dict.fromkeys(("cached", "invalidate_cache", "key_of", "pattern_for"), "pipeline.cache"),
}
"""What a project of its own imports from here, and where it is. An import, and nothing is put before other modules."""


class HiddenPackageError(ImportError):
    """Another file is found under the name of one of this package's modules. The message names it and says what to do."""


def main() -> int:
    """The command `persona`; its exit code, as `workers.cli.run` has it."""
    try:
        put_ours_first()
    except HiddenPackageError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    from workers.cli import main as command

    return command()


def put_ours_first() -> None:
    """From now on `workers` and `pipeline` are this package's in this process. Raises HiddenPackageError if another one of
    that name is imported already."""
    for name in OURS:
        if name in sys.modules:
            check_ours(name)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def check_ours(name: str) -> None:
    """Raises HiddenPackageError if an import of that name finds another file than this package's. Imports nothing."""
    if (file := _foreign_file(name)) is not None:
        raise HiddenPackageError(_sentence(name, file), name=name, path=file)


def __getattr__(name: str) -> Any:
    if name == "celery":  # asked for by `celery -A persona_worker`
        put_ours_first()
        from workers.app import app

        return app
    if name == "celery_command":
        return _celery_command()
    if (module := FOR_OTHERS.get(name)) is not None:
        for package in OURS:
            check_ours(package)
        return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class _Finder:
    """Finds the two packages beside this file. A finder, and not an entry of `sys.path`, which would put all that is installed
    before the standard library."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        return PathFinder.find_spec(name, [str(HERE)], target) if path is None and name in OURS else None


def _foreign_file(name: str) -> str | None:
    """The file that is found under that name; None if it is ours, or if there is none."""
    module = sys.modules.get(name)
    try:
        spec = getattr(module, "__spec__", None) or find_spec(name)
    except ValueError:  # a module that says of itself that it comes from nowhere
        return repr(module)
    if spec is None:
        return None
    # Of a folder without an `__init__.py` there is only the folder.
    found = Path(spec.origin or next(iter(spec.submodule_search_locations or [name]))).resolve()
    package = found.parent if found.name == "__init__.py" else found
    return None if package == HERE / name else str(found)


def _sentence(name: str, file: str) -> str:
    return (
        f"{file} hides the package `{name}` of persona-worker. "
        f"Start Celery by `celery -A persona_worker`, which finds its own, or in another folder. In a program, rename that file"
    )


# -- within Celery's program


def _celery_command() -> click.Command:
    """What Celery's program adds to its commands. Loading it is what matters: see above."""
    _tell_what_hides()
    if find_spec("flower") is None:
        return _missing_flower()
    import click

    @click.command("persona", hidden=True)
    def command() -> None:
        """Say how persona-worker's processes are started."""
        click.echo("celery -A persona_worker worker|beat|flower, or everything at once: persona up")

    return command


def _tell_what_hides() -> None:
    program: Any = sys.modules.get(PROGRAM)
    stock = getattr(program, "find_app", None)
    if stock is None:
        return

    @wraps(stock)
    def find_app(app: str, *arguments: Any, **options: Any) -> Any:
        try:
            return stock(app, *arguments, **options)
        except Exception as error:
            if isinstance(error, HiddenPackageError) or _is_configuration(error):
                _exit(str(error))
            # A module that is broken is the business of its authors: only one that holds no app may be meant to be ours.
            if app == "workers" and isinstance(error, AttributeError) and (file := _foreign_file("workers")) is not None:
                _exit(f"{error}: {_sentence('workers', file)}")
            raise

    program.find_app = find_app


def _is_configuration(error: Exception) -> bool:
    errors = sys.modules.get("pipeline.errors")  # not imported: in a program of another app it is not
    return errors is not None and isinstance(error, getattr(errors, "ConfigurationError", ()))


def _missing_flower() -> click.Command:
    import click

    # Hidden, and refused like any unknown command where the app is another one: to others there is no such command.
    @click.command("flower", hidden=True, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
    @click.pass_context
    def flower(context: click.Context) -> None:
        """Say what to install."""
        app = getattr(context.obj, "app", None)
        if not type(app).__module__.startswith("workers."):
            context.fail("No such command 'flower'.")
        from pipeline.errors import MissingExtraError

        _exit(str(MissingExtraError("flower", "the dashboard", "flower")))

    return flower


def _exit(sentence: str) -> NoReturn:
    sys.exit(f"error: {sentence}.")


if __name__ == "__main__":  # `python -m persona_worker` is `persona`
    from persona_worker import main as imported  # the module that others import, and not this second copy of it

    sys.exit(imported())

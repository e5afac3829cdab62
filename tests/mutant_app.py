"""The app of nodes of which one pool child, of all, is a mutant: `MUTANT` names it, and the first child to make the file
`MUTANT_IN` is the one."""

from __future__ import annotations

import os
from typing import Any

from celery.signals import worker_process_init
from coherence.mutants import MUTANTS


@worker_process_init.connect(weak=False)
def change(**_: Any) -> None:
    """Before the pipeline of the process is made, which the package's own receiver does."""
    try:
        descriptor = os.open(os.environ["MUTANT_IN"], os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        return
    os.write(descriptor, str(os.getpid()).encode())
    os.close(descriptor)
    MUTANTS[os.environ["MUTANT"]]()


from workers.app import app  # noqa: E402 - after the receiver above, so that it is called first

__all__ = ["app"]

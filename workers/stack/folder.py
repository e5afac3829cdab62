"""The folder of one stack: its lock, its state, its logs and its servers' files."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from pipeline.discovery import LOCK_NAME, STATE_NAME, lock_owner
from workers.stack.errors import StackError, StackRunningError
from workers.stack.state import StackInfo, encode

OWN_DIRECTORIES: Final = ("logs", "servers")

# Why a stack that ran in the background has ended by itself. All else of it is gone by then.
LAST_WORDS_NAME: Final = "stack.end"

# A process that looks for a stack holds a shared lock for some microseconds: `acquire` outwaits it.
LOCK_PATIENCE_S: Final = 1.0


class StackFolder:
    """Readable by its user only. The process that holds its lock runs the stack; the kernel drops the lock of a dead process."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None

    @property
    def held(self) -> bool:
        return self._lock is not None

    def acquire(self) -> None:
        """Make the folder, lock it, and remove the leavings of a killed stack.

        Raises StackRunningError if another process holds it, StackError if the folder cannot be used.
        """
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while not self._try_lock():
            if time.monotonic() > deadline:
                raise StackRunningError(self.path, lock_owner(self.path))
            time.sleep(0.02)
        try:
            self._remove_contents()
            for name in OWN_DIRECTORIES:
                (self.path / name).mkdir(mode=0o700)
        except OSError as error:
            self.release()
            raise StackError(f"{self.path}: {error.strerror}") from error

    def release(self) -> None:
        """Remove the folder and drop the lock. Nothing happens if it is not held."""
        if self._lock is None:
            return
        self._remove_contents()
        # While the lock is still held: a process that opened this file before it went finds, once it has the lock, that the
        # file is no longer the one in the folder, and tries again.
        (self.path / LOCK_NAME).unlink(missing_ok=True)
        with suppress(OSError):  # another program put a file of its own in: it stays
            self.path.rmdir()
        os.close(self._lock)
        self._lock = None

    def log(self, service: str) -> Path:
        return self.path / "logs" / f"{service}.log"

    def server_directory(self, service: str) -> Path:
        """The folder for a server's files; made when asked for."""
        directory = self.path / "servers" / service
        directory.mkdir(mode=0o700, exist_ok=True)
        return directory

    def publish(self, info: StackInfo) -> None:
        """Write the state, all of it or nothing."""
        unfinished = self.path / f"{STATE_NAME}.new"
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(encode(info))
        unfinished.replace(self.path / STATE_NAME)

    def retract(self) -> None:
        """Remove the state: from now on no program finds this stack."""
        (self.path / STATE_NAME).unlink(missing_ok=True)

    def leave_word(self, why: str) -> None:
        """Keep a sentence for those that look for the stack which was here; the next stack removes it."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        words = self.path / LAST_WORDS_NAME
        words.unlink(missing_ok=True)
        with os.fdopen(os.open(words, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(f"{why}\n")

    def _try_lock(self) -> bool:
        self._make()
        try:
            lock = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:  # another process removed the folder just now
            return False
        except OSError as error:
            raise StackError(f"{self.path / LOCK_NAME}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = os.path.samestat(os.fstat(lock), (self.path / LOCK_NAME).stat())
        except (BlockingIOError, FileNotFoundError):
            locked = False
        if not locked:
            os.close(lock)
            return False
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        self._lock = lock
        return True

    def _make(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            owner = self.path.stat().st_uid
            others = any(path.name != LAST_WORDS_NAME for path in self.path.iterdir())
            foreign = others and not (self.path / LOCK_NAME).exists()
            # Its contents are removed when the stack stops: it must not be a user's home directory.
            if not foreign and owner == os.geteuid():
                self.path.chmod(0o700)
                return
        except OSError as error:
            raise StackError(f"{self.path}: cannot be used for the stack: {error.strerror}") from error
        if owner != os.geteuid():
            raise StackError(f"{self.path}: belongs to another user; set PERSONA_STACK_DIR to a directory of your own")
        raise StackError(f"{self.path}: is not empty and no stack made it; set PERSONA_STACK_DIR to a new or an empty directory")

    def _remove_contents(self) -> None:
        for name in (STATE_NAME, f"{STATE_NAME}.new", LAST_WORDS_NAME):
            (self.path / name).unlink(missing_ok=True)
        for name in OWN_DIRECTORIES:
            shutil.rmtree(self.path / name, ignore_errors=True)

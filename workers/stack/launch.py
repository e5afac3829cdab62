"""Become another program that ends with the process that started it. Run as a file, in isolated mode:

    python -I -S launch.py PARENT_PID PROGRAM [ARGUMENT ...]

An extra program in between, and not Popen's `preexec_fn`: that one runs Python between fork and exec, which may
deadlock in a process with threads (and warns from Python 3.12 on). It costs some 20 ms a start.

Linux only; elsewhere the program starts without that tie.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent_pid: int, command: list[str]) -> None:
    if sys.platform == "linux":
        # KILL and not TERM: whatever the program would still have to report, its brokers die in the same moment.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent_pid:  # the parent died before the line above: no signal would ever come
            sys.exit(f"the process that starts {command[0]} is gone")
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

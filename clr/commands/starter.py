"""Starts one program, and ends it with all that it started. A script: ``python starter.py PROGRAM ARGUMENT...``.

Its standard input is a pipe to which nobody writes. When that closes, whoever wanted the program has had enough of it,
or is gone, however it went. It ends as the program ended: by the same code, or the same signal.
"""

import ctypes
import os
import resource
import select
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

GRACE_S = 3.0
"""How long the program may take to end by itself once it is asked to (SIGTERM); then it is ended (SIGKILL)."""

STUCK_S = 10.0
"""What a SIGKILL has not ended by then waits in the kernel, for a disk or a device; nobody can end it."""

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


class Program:
    """The program and its descendants: also those that left its process group, or whose parents are gone.

    Args:
        command: program and arguments.
    """

    def __init__(self, command: list[str]) -> None:
        if sys.platform == "linux":  # orphans become this process's children, not those of the system's first
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self.status: int | None = None
        self.pid = os.posix_spawnp(
            command[0],
            command,
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],  # which Python ignores
        )

    def reap(self) -> None:
        """Take note of those that have ended."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self.pid:
                    self.status = ended[1]

    def end(self) -> None:
        """Return once all have ended: politely first, then by force."""
        asked, deadline = time.monotonic(), time.monotonic() + GRACE_S + STUCK_S
        self._signal(signal.SIGTERM)
        while self._left() and time.monotonic() < deadline:
            if time.monotonic() - asked > GRACE_S:
                self._signal(signal.SIGKILL)
            time.sleep(0.02)

    def _left(self) -> list[psutil.Process]:
        self.reap()
        return psutil.Process().children(recursive=True)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
        for process in self._left():
            with suppress(psutil.Error):
                process.send_signal(number)


def main(command: list[str]) -> None:
    """Start the program, wait for its end or its dismissal, and end as it did."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    program = Program(command)
    dismissed = False
    while program.status is None and not dismissed:
        ready, _, _ = select.select([0, woken], [], [])
        dismissed = 0 in ready or (woken in ready and signal.SIGTERM in os.read(woken, 4096))
        program.reap()
    program.end()
    if dismissed:  # else whoever follows the program still reads what is there
        shutil.rmtree(Path(os.environ["CLR_RUN"]).parent, ignore_errors=True)
    _end_as(program.status or 0)


def _end_as(status: int) -> None:
    sys.stdout.flush()
    if os.WIFSIGNALED(status):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program has dumped its own
        with suppress(OSError):  # SIGKILL cannot be set
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(sys.argv[1:])

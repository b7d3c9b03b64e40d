"""Keeps child processes running: one that dies is started again, a signal stops them all."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType

STOP_S = 9.0
"""Grace between SIGTERM and SIGKILL."""

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
STEADY_S = 30.0
"""A child that ran this long starts again after the first, short pause."""

POLL_S = 0.1
_PR_SET_PDEATHSIG = 1


@dataclass
class Child:
    """A command to keep running, and how often it died lately."""

    name: str
    command: Sequence[str]
    pass_fds: Sequence[int] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    started_at: float = field(default=0.0, init=False)
    due_at: float = field(default=0.0, init=False)
    pause_s: float = field(default=FIRST_PAUSE_S, init=False)

    def start(self) -> None:
        # A session of its own keeps the terminal's Ctrl-C from it: it is told to stop once, by the supervisor.
        self.process = subprocess.Popen(
            self.command, pass_fds=self.pass_fds, start_new_session=True, preexec_fn=_die_with_parent
        )
        self.started_at = time.monotonic()

    def died(self) -> str | None:
        """How its process ended, told once; the next start is then due after a pause that doubles."""
        if self.process is None or self.process.poll() is None:
            return None
        self._sweep()
        code, self.process = self.process.returncode, None
        now = time.monotonic()
        self.pause_s = FIRST_PAUSE_S if now - self.started_at > STEADY_S else self.pause_s
        self.due_at = now + self.pause_s
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        notice = f"{self.name} {how}; starting it again in {self.pause_s:g} s"
        self.pause_s = min(2 * self.pause_s, LONGEST_PAUSE_S)
        return notice

    def stop(self, deadline: float) -> None:
        """Wait for it until ``deadline``, then kill what is left of it."""
        if self.process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(max(0.0, deadline - time.monotonic()))
        self._sweep()
        self.process.wait()

    def _sweep(self) -> None:
        """Kill its process group: Ray's agents outlive a worker that was killed by a minute."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


class Supervisor:
    """Runs ``children`` until SIGINT or SIGTERM. Must run on the main thread, the only one that gets signals."""

    def __init__(self, children: Sequence[Child], say: Callable[[str], object]) -> None:
        self._children = children
        self._say = say
        self._stopping = threading.Event()

    def run(self) -> None:
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            while not self._stopping.wait(POLL_S):
                for child in self._children:
                    self._keep(child)
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _keep(self, child: Child) -> None:
        if (notice := child.died()) is not None:
            self._say(notice)
        if child.process is None and time.monotonic() >= child.due_at:
            child.start()

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping.set()

    def _end(self) -> None:
        deadline = time.monotonic() + STOP_S
        for child in self._children:
            if child.process is not None and child.process.poll() is None:
                child.process.terminate()
        for child in self._children:
            child.stop(deadline)


def _die_with_parent() -> None:
    """Linux: SIGTERM to this process when its parent dies, so that not even kill -9 leaves it running alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

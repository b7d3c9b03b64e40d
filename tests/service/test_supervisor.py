import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

SUPERVISE = """
import sys
from service import supervisor
supervisor.STOP_S = 1.0
child = supervisor.Child("the child", [sys.executable, "-c", sys.argv[1]])
supervisor.Supervisor([child], lambda line: print(line, flush=True)).run()
print("ended", flush=True)
"""

STEADY = """
import os, signal, sys
def stop(number, _):
    print(signal.Signals(number).name, flush=True)
    sys.exit()
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, stop)
print(os.getpid(), flush=True)
signal.pause()
"""

STUBBORN = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
own = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], stdout=subprocess.DEVNULL)
print(own.pid, flush=True)
print(os.getpid(), flush=True)
while True:
    signal.pause()
"""

MESSY = """
import os, subprocess, sys
own = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], stdout=subprocess.DEVNULL)
print(own.pid, flush=True)
os._exit(1)
"""

Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(child: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", SUPERVISE, child]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(30)
        assert process.stdout is not None
        process.stdout.close()


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def is_gone(pid: int, within_s: float = 10) -> bool:
    """Whether the process ends in time; one that nobody waits for may stay as a zombie."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_a_killed_child_is_started_again(start: Start) -> None:
    process = start(STEADY)
    first = int(line(process))
    os.kill(first, signal.SIGKILL)
    assert line(process) == "the child was killed by SIGKILL; starting it again in 0.5 s"
    second = int(line(process))
    assert second != first
    assert psutil.pid_exists(second)


def test_the_pause_before_each_start_doubles(start: Start) -> None:
    process = start("raise SystemExit(3)")
    told = [line(process) for _ in range(3)]
    assert told == [f"the child exited with 3; starting it again in {pause} s" for pause in ("0.5", "1", "2")]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_either_signal_stops_the_child_with_one_sigterm(start: Start, number: signal.Signals) -> None:
    process = start(STEADY)
    child = int(line(process))
    os.killpg(process.pid, number)  # as a terminal does on Ctrl-C: to the whole group
    assert line(process) == "SIGTERM"
    assert line(process) == "ended"
    assert process.wait(10) == 0
    assert is_gone(child)


def test_a_child_that_does_not_stop_is_killed_with_all_it_started(start: Start) -> None:
    process = start(STUBBORN)
    pids = [int(line(process)), int(line(process))]
    process.terminate()
    assert process.wait(10) == 0
    assert all(is_gone(pid) for pid in pids)


def test_what_a_dead_child_left_running_is_killed(start: Start) -> None:
    process = start(MESSY)
    left = int(line(process))
    assert line(process).startswith("the child exited with 1")
    assert is_gone(left)


def test_a_stop_during_the_pause_ends_at_once(start: Start) -> None:
    process = start("raise SystemExit(3)")
    for _ in range(3):
        line(process)
    process.terminate()
    assert process.wait(1.5) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_the_child_stops_when_the_supervisor_is_killed(start: Start) -> None:
    process = start(STEADY)
    child = int(line(process))
    process.kill()
    assert line(process) == "SIGTERM"
    assert is_gone(child)

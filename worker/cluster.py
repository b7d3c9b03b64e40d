"""The Ray that this worker has, embedded or a cluster's: what it holds, and whether it is still there."""

import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil
import ray
from ray._private.node import Node as Processes

from worker import environment

VITAL = ("gcs_server", "raylet")
"""Processes of an embedded Ray without which it is of no more use. (The raylet ends when one of its agents does.)"""

SPARED = ("start_monitor", "start_api_server", "start_log_monitor")
"""What an embedded Ray starts for nobody: an autoscaler, a dashboard though none is asked for, and who passes logs on.
Each is a Python process, which takes most of a second of CPU and 60 MB."""

LOOK_EVERY_S = 1.0
"""How often Ray is asked for its nodes, and whether it has answered."""

SILENT_LOOKS = 20
"""So many looks in a row without an answer, one a second, mean that Ray is gone. Looks are counted, not seconds: those
in which this process itself was stopped say nothing. Ray would end this process after 60 seconds."""

SETTLED_S = 30.0
"""A cluster whose nodes have been the same for so long is taken for whole: what none of them holds, none ever will."""

REACH_S = 2.0
"""How long a cluster's address may take to be reached."""

LONGEST_PARENT = 26
"""Bytes of the path below which the session folders may lie: the kernel allows a socket's path 107, the process's own
folder takes up to 17 and Ray's ``/session_DATE_TIME_PID/sockets/plasma_store`` up to 64."""


@dataclass(frozen=True)
class Resources:
    """What one run takes of a node."""

    cpus: float
    gpus: float
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Node:
    """A live node, and what it has."""

    id: str
    resources: Mapping[str, float]
    labels: Mapping[str, str]

    def slots(self, wanted: Resources) -> int:
        """How many runs it holds at once."""
        if not (wanted.labels or {}).items() <= self.labels.items():
            return 0
        shares = {"CPU": wanted.cpus, "GPU": wanted.gpus}
        return min(int(self.resources.get(name, 0.0) / share + 1e-9) for name, share in shares.items() if share > 0)


class Cluster:
    """Ray, started or connected to. Make it on the main thread: Ray dies with the thread that starts it.

    Args:
        address: of a cluster; None starts Ray inside this process's group.
        home: folder for Ray's session files.
        cpus: of the embedded runtime; None: all there are.
        variables: of the environment that the embedded runtime's processes see besides the usual ones.

    Raises:
        OSError: nothing listens at ``address``.
        Exception: whatever else Ray raises when it does not start.
    """

    def __init__(self, address: str | None, home: Path, cpus: int | None = None, variables: Sequence[str] = ()) -> None:
        self.embedded = address is None
        _start(address, home, cpus, variables)
        ours = psutil.Process().children() if self.embedded else []
        self._vital = [one for one in ours if one.name() in VITAL and _runs(one)]
        self._own_id = ray.get_runtime_context().get_node_id()
        self._heard, self._silent = True, 0
        self._changed_at = time.monotonic()
        self.nodes = _live_nodes()
        self._stopped = Event()
        Thread(target=self._ask, name="nodes", daemon=True).start()

    def loss(self) -> str | None:
        """Why this Ray is of no more use; None while it is. Does not ask it: it might never answer."""
        for process in self._vital:
            if not _runs(process):
                return f"its process {process.pid} has ended"
        if self._silent >= SILENT_LOOKS:
            return f"it has not answered for {SILENT_LOOKS} s"
        if self._own_id not in {node.id for node in self.nodes}:
            return "the node of this worker is no longer part of it"
        return None

    def look(self) -> None:
        """Note whether Ray has answered since the last look; to be called about once a second."""
        self._silent = 0 if self._heard else self._silent + 1
        self._heard = False

    def slots(self, wanted: Resources) -> int:
        """How many runs the live nodes hold at once."""
        return sum(node.slots(wanted) for node in self.nodes)

    def room(self, cpus: float, gpus: float | None, labels: Mapping[str, str] | None = None) -> Resources | None:
        """What a run takes, where a live node holds it; without ``gpus`` one where a node has any, else none."""
        for number in (1.0, 0.0) if gpus is None else (gpus,):
            wanted = Resources(cpus, number, labels)
            if self.slots(wanted):
                return wanted
        return None

    @property
    def is_settled(self) -> bool:
        """Whether no node came or went lately; an embedded Ray has one only."""
        return self.embedded or time.monotonic() - self._changed_at > SETTLED_S

    def total(self) -> dict[str, float]:
        """CPUs and GPUs of all live nodes."""
        return {
            f"{name.lower()}s": sum(node.resources.get(name, 0.0) for node in self.nodes) for name in ("CPU", "GPU")
        }

    def stop(self) -> None:
        """Disconnect; an embedded runtime ends with all its processes."""
        self._stopped.set()
        ray.shutdown()

    def _ask(self) -> None:
        while not self._stopped.wait(LOOK_EVERY_S):
            try:
                nodes = _live_nodes()
            except Exception:  # whatever Ray raises when it does not answer: a look without an answer
                continue
            if {node.id for node in nodes} != {node.id for node in self.nodes}:
                self._changed_at = time.monotonic()
            self.nodes, self._heard = nodes, True


def _start(address: str | None, home: Path, cpus: int | None, variables: Sequence[str]) -> None:
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"  # what is asked of a Ray that is gone must not start another
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address is None:
        options |= {"num_cpus": cpus or os.cpu_count(), "include_dashboard": False}
        options |= {"_temp_dir": str(session_folder(home))}
    else:
        _reach(address)
        options |= {"address": address}
    with environment.shared(variables) if address is None else nullcontext(), _spared():
        ray.init(**options)
    for number, handler in handlers.items():  # ray.init replaces SIGTERM's with sys.exit
        signal.signal(number, handler)


@contextmanager
def _spared() -> Iterator[None]:
    """Let Ray start no ``SPARED`` process within the block; it has no option for that."""
    kinds = {name: getattr(Processes, name) for name in SPARED if hasattr(Processes, name)}
    for name in kinds:
        setattr(Processes, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, start in kinds.items():
            setattr(Processes, name, start)


def _reach(address: str) -> None:
    """Raise unless something listens there: Ray itself would try for two minutes, deaf to signals."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()


def _live_nodes() -> list[Node]:
    return [Node(node["NodeID"], node["Resources"], node["Labels"]) for node in ray.nodes() if node["Alive"]]


def _runs(process: psutil.Process) -> bool:
    """Whether a child of this process has not ended. It is asked with every point: on Linux that is one system call."""
    try:
        if sys.platform == "linux":
            return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ChildProcessError):
        return False


def session_folder(home: Path) -> Path:
    """A new folder of this process's own; those of processes that are gone are removed. Sockets need a short path.

    One that this process made before stays: an earlier Ray of its may still run there.
    """
    parent = home / "ray"
    if len(bytes(parent)) > LONGEST_PARENT:
        parent = Path(tempfile.gettempdir()) / f"clr-ray-{os.getuid()}"
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        owner, _, _ = left.name.partition("-")
        if owner.isdigit() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=parent))

"""Ray: an embedded one or a cluster, and what it is asked to run."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.exceptions import RayError, RayTaskError

from clr.errors import ClrError, ProgramDied
from worker import environment, remote
from worker.errors import LostRun, RunFailed

Bundle = dict[str, Any]
"""A code bundle on its way to Ray: digest, data, folder to unpack it in, and what becomes of its requirements."""

ATTEMPTS = 3
"""What loses its process or node is tried this often before the job fails."""

ERROR_LINES = 20
"""Lines of a run's traceback that are kept: enough to name the cause, short enough to read in a job."""

LONGEST_PARENT = 35
"""Bytes of the path below which the session folders may lie: the kernel allows a socket's path 107, the process's own
folder takes up to 8 and Ray's ``/session_DATE_TIME_PID/sockets/plasma_store`` up to 64."""

CANCEL_GRACE_S = 2.0
"""How long a run may take to notice that it was cancelled before its process is ended."""


class Engine:
    """The Ray runtime of this worker process. Start it on the main thread (Ray dies with the thread that starts it).

    Args:
        address: of a cluster; None starts Ray inside this process's group.
        home: folder for Ray's session files.
        cpus: of the embedded runtime; None: all there are.
        variables: of the environment that its processes see besides the usual ones.
    """

    def __init__(self, address: str | None, home: Path, cpus: int | None = None, variables: Sequence[str] = ()) -> None:
        self._code_folder = "~/.clr/code" if address else str(home / "code")
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if address:
            ray.init(address=address, **quiet)
        else:
            with environment.shared(variables):
                ray.init(
                    num_cpus=cpus or os.cpu_count(),
                    include_dashboard=False,
                    _temp_dir=str(session_folder(home)),
                    **quiet,
                )
        for number, handler in handlers.items():  # ray.init replaces SIGTERM's with sys.exit
            signal.signal(number, handler)

    def slots(self, resources: dict[str, Any]) -> int:
        """How many runs with ``resources`` the cluster holds at once; 0 when none ever fits on a node."""
        labels = resources.get("labels", {}).items()
        nodes: list[dict[str, Any]] = ray.nodes()
        fit = (node for node in nodes if node["Alive"] and labels <= node["Labels"].items())
        return sum(_fits(node["Resources"], resources) for node in fit)

    def gpus(self, resources: dict[str, Any]) -> float:
        """GPUs of a run: those asked for, else one where a node has any beside the rest, else none."""
        if resources["gpus"] is not None:
            return float(resources["gpus"])
        return 1.0 if self.slots(resources | {"gpus": 1.0}) else 0.0

    def total(self) -> dict[str, float]:
        """CPUs and GPUs of the whole cluster."""
        have = ray.cluster_resources()
        return {"cpus": have.get("CPU", 0.0), "gpus": have.get("GPU", 0.0)}

    def warm(self) -> None:
        """Let as many processes as there are CPUs import torch, so that the first job need not wait for it."""
        self._warming = [remote.warm.remote() for _ in range(int(self.total()["cpus"]))]

    def ship(self, digest: str, data: bytes, requirements: str) -> Bundle:
        """Make a code bundle available to every node; it stays so for as long as what is returned is kept."""
        held = [ray.put(data)]  # within a list Ray hands on the reference alone, for the node to fetch it if it must
        return {"digest": digest, "data": held, "folder": self._code_folder, "requirements": requirements}

    def inspect_task(
        self, trainee: dict[str, Any], bundle: Bundle | None, resources: dict[str, Any], check: Callable[[], None]
    ) -> Any:
        """What the task is: iterations_per_epoch, metric, direction. ``check`` is called while waiting, and may raise.

        Raises:
            RunFailed: the task's own code raised, or its process was lost every time.
        """
        options = _options(resources, bundle) | {"max_retries": ATTEMPTS - 1}
        reference = remote.inspect_task.options(**options).remote(trainee, bundle)
        try:
            while not ray.wait([reference], timeout=0.25)[0]:
                check()
            return _get(reference)
        except LostRun as error:
            raise RunFailed(f"the process that loaded the task was lost {ATTEMPTS} times, last by: {error}") from None
        finally:
            _cancel({reference: reference})

    def stream(
        self,
        trainee: dict[str, Any],
        bundle: Bundle | None,
        run: dict[str, Any],
        about: dict[str, Any],
        resources: dict[str, Any],
        checkpoint: dict[str, Any] | None = None,
    ) -> Any:
        """Start a run, or go on with it from its checkpoint; the stream of its points.

        ``about`` is its stage, number and attempt.
        """
        threads = max(1, int(resources["cpus"]))
        start = remote.train.options(**_options(resources, bundle)).remote
        return start(trainee, bundle, run, about, threads, checkpoint)

    def ready(self, streams: list[Any], timeout_s: float) -> list[Any]:
        """The streams that have a point or have ended; waits up to ``timeout_s`` for the first."""
        if not ray.wait(streams, num_returns=1, timeout=timeout_s, fetch_local=False)[0]:
            return []
        found: list[Any] = ray.wait(streams, num_returns=len(streams), timeout=0, fetch_local=False)[0]
        return found

    def next(self, stream: Any) -> tuple[int, bool, dict[str, Any]]:
        """What comes next in a stream: its attempt, whether it is from a checkpoint, and the point.

        Raises:
            StopIteration: the run has ended.
            RunFailed: the run's own code raised.
            LostRun: its process or node is gone; it may be tried again.
        """
        point: tuple[int, bool, dict[str, Any]] = _get(next(stream))
        return point

    def cancel(self, streams: list[Any]) -> None:
        """Cancel runs and return once they have ended: politely first, then by ending their processes."""
        _cancel({stream.completed(): stream for stream in streams})

    def stop(self) -> None:
        """Disconnect; an embedded runtime ends with all its processes."""
        ray.shutdown()


def _cancel(tasks: dict[Any, Any]) -> None:
    """Cancel what is under way, given by the reference that is ready once it has ended.

    Never by force at once: Ray 2.60 ends the driver when a task that is cancelled by force completes at that moment.
    """
    late = _not_ready(tasks, timeout_s=0)
    for reference in late:
        ray.cancel(tasks[reference], force=False)
    for reference in _not_ready(late, timeout_s=CANCEL_GRACE_S):
        ray.cancel(tasks[reference], force=True)


def _not_ready(references: Iterable[Any], timeout_s: float) -> list[Any]:
    waiting = list(references)
    if not waiting:
        return []
    late: list[Any] = ray.wait(waiting, num_returns=len(waiting), timeout=timeout_s, fetch_local=False)[1]
    return late


def _get(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, ProgramDied):
            raise LostRun(str(error.cause)) from None
        told = isinstance(error.cause, ClrError)  # the sentence alone: a traceback may quote what was read
        raise RunFailed(str(error.cause) if told else last_lines(str(error))) from None
    except RayError as error:
        raise LostRun(f"{type(error).__name__}: {error}") from None


def last_lines(text: str) -> str:
    """The end of a traceback without Ray's colours."""
    plain = text.replace("\x1b[36m", "").replace("\x1b[39m", "")
    return "\n".join(plain.strip().splitlines()[-ERROR_LINES:])


def _options(resources: dict[str, Any], bundle: Bundle | None) -> dict[str, Any]:
    options = {"num_cpus": resources["cpus"], "num_gpus": resources["gpus"], "max_retries": 0}
    options["label_selector"] = resources.get("labels") or None
    # Ray starts processes of their own for each environment: no bundle meets the modules of another.
    return options if bundle is None else options | {"runtime_env": {"env_vars": {"CLR_CODE": bundle["digest"]}}}


def _fits(have: dict[str, float], want: dict[str, Any]) -> int:
    shares = {"CPU": want["cpus"], "GPU": want["gpus"]}
    return min(int(have.get(name, 0.0) / share + 1e-9) for name, share in shares.items() if share > 0)


def session_folder(home: Path) -> Path:
    """A folder of this process's own; those of processes that are gone are removed. Ray's sockets need a short path."""
    parent = home / "ray"
    if len(bytes(parent)) > LONGEST_PARENT:
        parent = Path(tempfile.gettempdir()) / f"clr-ray-{os.getuid()}"
    parent.mkdir(parents=True, exist_ok=True)
    for folder in parent.iterdir():
        if folder.name.isdigit() and not psutil.pid_exists(int(folder.name)):
            shutil.rmtree(folder, ignore_errors=True)
    folder = parent / str(os.getpid())
    folder.mkdir(exist_ok=True)
    return folder

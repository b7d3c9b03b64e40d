"""Ray: an embedded one or a cluster, and the one remote function that trains."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.exceptions import RayError, RayTaskError

from worker.errors import LostRun, RunFailed

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
    """

    def __init__(self, address: str | None, home: Path, cpus: int | None = None) -> None:
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(
                num_cpus=cpus or os.cpu_count(),
                include_dashboard=False,
                _temp_dir=str(session_folder(home)),
                **quiet,
            )
        for number, handler in handlers.items():  # ray.init replaces SIGTERM's with sys.exit
            signal.signal(number, handler)

    def slots(self, resources: dict[str, float]) -> int:
        """How many runs with ``resources`` the cluster holds at once; 0 when none ever fits on a node."""
        nodes: list[dict[str, Any]] = ray.nodes()
        return sum(_fits(node["Resources"], resources) for node in nodes if node["Alive"])

    def total(self) -> dict[str, float]:
        """CPUs and GPUs of the whole cluster."""
        have = ray.cluster_resources()
        return {"cpus": have.get("CPU", 0.0), "gpus": have.get("GPU", 0.0)}

    def warm(self) -> None:
        """Let as many processes as there are CPUs import torch, so that the first job need not wait for it."""
        self._warming = [_warm.remote() for _ in range(int(self.total()["cpus"]))]

    def describe(self, trainee: dict[str, Any], resources: dict[str, float], check: Callable[[], None]) -> Any:
        """What the task is: iterations_per_epoch, metric, direction. ``check`` is called while waiting, and may raise.

        Raises:
            RunFailed: the task's own code raised, or its process was lost.
        """
        reference = _describe.options(**_options(resources)).remote(trainee)
        try:
            while not ray.wait([reference], timeout=0.25)[0]:
                check()
            return _get(reference)
        except LostRun as error:
            raise RunFailed(f"the process that loaded the task was lost: {error}") from None
        finally:
            _cancel({reference: reference})

    def stream(self, trainee: dict[str, Any], run: dict[str, Any], attempt: int, resources: dict[str, float]) -> Any:
        """Start a run; the stream of its points."""
        threads = max(1, int(resources["cpus"]))
        return _train.options(**_options(resources)).remote(trainee, run, attempt, threads)

    def ready(self, streams: list[Any], timeout_s: float) -> list[Any]:
        """The streams that have a point or have ended; waits up to ``timeout_s`` for the first."""
        if not ray.wait(streams, num_returns=1, timeout=timeout_s, fetch_local=False)[0]:
            return []
        found: list[Any] = ray.wait(streams, num_returns=len(streams), timeout=0, fetch_local=False)[0]
        return found

    def next(self, stream: Any) -> tuple[int, dict[str, Any]]:
        """Attempt and point that come next in a stream.

        Raises:
            StopIteration: the run has ended.
            RunFailed: the run's own code raised.
            LostRun: its process or node is gone; it may be tried again.
        """
        point: tuple[int, dict[str, Any]] = _get(next(stream))
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
        raise RunFailed(last_lines(str(error))) from None
    except RayError as error:
        raise LostRun(f"{type(error).__name__}: {error}") from None


def last_lines(text: str) -> str:
    """The end of a traceback without Ray's colours."""
    plain = text.replace("\x1b[36m", "").replace("\x1b[39m", "")
    return "\n".join(plain.strip().splitlines()[-ERROR_LINES:])


def _options(resources: dict[str, float]) -> dict[str, Any]:
    return {"num_cpus": resources["cpus"], "num_gpus": resources["gpus"], "max_retries": 0}


def _fits(have: dict[str, float], want: dict[str, float]) -> int:
    return min(int(have.get(name.upper()[:-1], 0.0) / want[name] + 1e-9) for name in want if want[name] > 0)


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


@lru_cache(maxsize=2)  # the task of the job at hand, and of the one that takes turns with it
def _load(key: str) -> Any:
    import json
    from dataclasses import replace

    from clr.task import optimizer
    from clr.tasks import load_task

    trainee = json.loads(key)
    task = load_task(trainee["task"], **trainee["args"])
    chosen = trainee["optimizer"]
    return replace(task, optimizer=optimizer(chosen["name"], **chosen["args"]), batch_size=trainee["batch_size"])


def _task(trainee: dict[str, Any]) -> Any:
    import json

    return _load(json.dumps(trainee, sort_keys=True))


@ray.remote(num_cpus=1, max_retries=0)
def _warm() -> None:
    import clr.tasks
    import clr.training  # noqa: F401


@ray.remote
def _describe(trainee: dict[str, Any]) -> dict[str, Any]:
    task = _task(trainee)
    metric, direction, _ = task.score
    return {"iterations_per_epoch": task.iterations_per_epoch, "metric": metric, "direction": direction}


@ray.remote(num_returns="streaming")
def _train(trainee: dict[str, Any], run: dict[str, Any], attempt: int, threads: int) -> Iterator[tuple[int, Any]]:
    """Points of one run. The attempt goes with each, so that two attempts can never be spliced into one."""
    import torch

    from clr.run import Run
    from clr.training import train

    torch.set_num_threads(threads)
    for point in train(_task(trainee), Run(**run)):
        yield attempt, point.to_dict()

"""What Ray is asked to run: each run of a job, and what its task is."""

from collections.abc import Callable, Iterable
from threading import Event
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError, WorkerCrashedError

from clr.errors import ClrError, ProgramDied
from worker import remote
from worker.cluster import Cluster, Resources
from worker.errors import HandedBack, LostMachine, LostProcess, LostRun, RunFailed
from worker.remote import About, Bundle, Place, Report, Requirements, RunName, Trainee

ATTEMPTS = 3
"""A run that ends its own process this often fails its job. What machines do to it is not counted."""

ERROR_LINES = 20
"""Lines of a run's traceback that are kept: enough to name the cause, short enough to read in a job."""

CANCEL_GRACE_S = 2.0
"""How long a run may take to notice that it was cancelled before its process is ended."""

PAUSE_S = 1.0
"""Between a failure of a machine and the next try."""

Stream = Any
"""Of a run's points; Ray's generator of references, without a type of its own."""


class Engine:
    """Runs jobs' trainings on a cluster.

    Args:
        cluster: where to.
        code: folder of the nodes that code bundles are unpacked in.
    """

    def __init__(self, cluster: Cluster, code: str) -> None:
        self.cluster, self._code = cluster, code

    def check(self) -> None:
        """Raise HandedBack when the cluster is gone: nothing that was asked of it will ever end."""
        if (loss := self.cluster.loss()) is not None:
            raise HandedBack(f"Ray is gone: {loss}")

    def warm(self) -> None:
        """Let as many processes as there are CPUs import torch, so that the first job need not wait for it."""
        self._warming = [remote.warm.remote() for _ in range(int(self.cluster.total()["cpus"]))]

    def ship(self, digest: str, data: bytes, requirements: Requirements) -> Bundle:
        """Make a code bundle available to every node; it stays so for as long as what is returned is kept."""
        held = [ray.put(data)]  # within a list Ray hands on the reference alone, for the node to fetch it if it must
        return {"digest": digest, "data": held, "folder": self._code, "requirements": requirements}

    def inspect_task(
        self, trainee: Trainee, bundle: Bundle | None, resources: Resources, check: Callable[[], None]
    ) -> About:
        """What the task is. ``check`` is called while waiting, and may raise.

        Raises:
            RunFailed: the task's own code raised, or ended its process every time.
        """
        lost = 0
        while True:
            try:
                return self._inspect_task(trainee, bundle, resources, check)
            except LostProcess as error:
                check()
                lost += 1
                if lost == ATTEMPTS:
                    times = f"the process that loaded the task was lost {lost} times"
                    raise RunFailed(f"{times}, last by: {error}") from None
            except LostMachine:
                pause(check)

    def _inspect_task(
        self, trainee: Trainee, bundle: Bundle | None, resources: Resources, check: Callable[[], None]
    ) -> About:
        reference = remote.inspect_task.options(**_options(resources, bundle)).remote(trainee, bundle)
        try:
            while not ray.wait([reference], timeout=0.25)[0]:
                check()
            about: About = _get(reference)
            return about
        finally:
            self._cancel({reference: reference})

    def stream(
        self,
        trainee: Trainee,
        bundle: Bundle | None,
        run: dict[str, Any],
        about: RunName,
        resources: Resources,
        checkpoint: Place | None = None,
    ) -> Stream:
        """Start a run, or go on with it from its checkpoint; the stream of its points."""
        threads = max(1, int(resources.cpus))
        start = remote.train.options(**_options(resources, bundle)).remote
        return start(trainee, bundle, run, about, threads, checkpoint)

    def ready(self, streams: list[Stream], timeout_s: float) -> list[Stream]:
        """The streams that have a point or have ended; waits up to ``timeout_s`` for the first."""
        if not ray.wait(streams, num_returns=1, timeout=timeout_s, fetch_local=False)[0]:
            return []
        found: list[Stream] = ray.wait(streams, num_returns=len(streams), timeout=0, fetch_local=False)[0]
        return found

    def next(self, stream: Stream) -> Report:
        """What comes next in a stream: its attempt, and points, each with whether it is from a checkpoint.

        Raises:
            StopIteration: the run has ended.
            RunFailed: the run's own code raised.
            LostRun: it is gone, and may be tried again.
        """
        report: Report = _get(next(stream))
        return report

    def cancel(self, streams: list[Stream]) -> None:
        """Cancel runs and return once they have ended: politely first, then by ending their processes."""
        self._cancel({stream.completed(): stream for stream in streams})

    def _cancel(self, tasks: dict[Any, Any]) -> None:
        """Cancel what is under way, given by the reference that is ready once it has ended.

        Never by force at once: Ray 2.60 ends the driver when a task that is cancelled by force completes at that
        moment. Nothing of a Ray that is gone: that has ended, and it does not answer.
        """
        if self.cluster.loss() is not None:
            return
        late = _not_ready(tasks, timeout_s=0)
        for reference in late:
            ray.cancel(tasks[reference], force=False)
        for reference in _not_ready(late, timeout_s=CANCEL_GRACE_S):
            ray.cancel(tasks[reference], force=True)


def pause(check: Callable[[], None]) -> None:
    """Wait before the next try, unless there is a reason to stop: ``check`` raises it."""
    check()
    Event().wait(PAUSE_S)
    check()


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
        if isinstance(error.cause, RayError):  # what the task asked of Ray itself
            raise _lost(error.cause) from None
        if isinstance(error.cause, ProgramDied):
            raise LostProcess(str(error.cause)) from None
        told = isinstance(error.cause, ClrError)  # the sentence alone: a traceback may quote what was read
        raise RunFailed(str(error.cause) if told else last_lines(str(error))) from None
    except RayError as error:
        raise _lost(error) from None


def _lost(error: RayError) -> LostRun:
    own = isinstance(error, WorkerCrashedError | OutOfMemoryError)
    return (LostProcess if own else LostMachine)(f"{type(error).__name__}: {error}")


def last_lines(text: str) -> str:
    """The end of a traceback without Ray's colours."""
    plain = text.replace("\x1b[36m", "").replace("\x1b[39m", "")
    return "\n".join(plain.strip().splitlines()[-ERROR_LINES:])


def _options(resources: Resources, bundle: Bundle | None) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "max_retries": 0}
    options["label_selector"] = resources.labels or None
    # Ray starts processes of their own for each environment: no bundle meets the modules of another.
    return options if bundle is None else options | {"runtime_env": {"env_vars": {"CLR_CODE": bundle["digest"]}}}

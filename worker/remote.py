"""What Ray runs. It travels by value: a process that runs a user's code holds none of the worker's own modules.

What they import is ``clr`` alone, and only once they run.
"""

import _thread
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Event, Timer
from types import FrameType
from typing import Any, Literal, TypedDict

import ray

Trainee = dict[str, Any]
"""What a job trains, as ``clr.tasks.reference`` reads it."""

Requirements = Literal["refuse", "ignore", "install"]
Direction = Literal["maximize", "minimize"]

Reported = tuple[bool, dict[str, Any]]
"""A point on its way from Ray, and before it whether it is from a checkpoint."""

Report = tuple[int, list[Reported]]
"""Points of a run's attempt. The attempt goes with them, so that two attempts can never be spliced into one."""

GATHER_S = 0.1
"""Points that follow a report within so long share the next one: to send one takes as much time as ten short steps."""

ASK_AGAIN_S = 0.05
"""How long an interrupt that comes within an import waits before it looks again."""


class Bundle(TypedDict):
    """A code bundle on its way to Ray."""

    digest: str
    data: list[Any]  # the reference to its bytes
    folder: str  # to unpack it in
    requirements: Requirements  # what becomes of them


class Place(TypedDict):
    """Where a run saves how it stands, and how often."""

    path: str
    every_s: float


class RunName(TypedDict):
    """Which run of its job it is."""

    stage: str
    number: int
    attempt: int


class About(TypedDict):
    """What a task is."""

    iterations_per_epoch: int
    metric: str
    direction: Direction
    trained_with: dict[str, Any]  # optimizer and batch size


@contextmanager
def whole_imports() -> Iterator[None]:
    """Let interrupts wait for the imports under way.

    Ray interrupts what is cancelled. An import broken off leaves half a module, or a lock held, to whatever the process
    runs next: torch then fails with errors of all kinds, or hangs.
    """
    over = Event()

    def again() -> None:
        if not over.is_set():
            _thread.interrupt_main()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not _within_import(frame):
            raise KeyboardInterrupt
        timer = Timer(ASK_AGAIN_S, again)
        timer.daemon = True
        timer.start()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        over.set()
        signal.signal(signal.SIGINT, before)


def _within_import(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@ray.remote(num_cpus=1, max_retries=0)
def warm() -> None:
    """Import what training takes; torch leaves much of that to the first optimizer."""
    import gc

    import torch._dynamo  # noqa: F401

    import clr.tasks.reference  # noqa: F401

    gc.freeze()  # what was imported stays: no collection need look at it again


@ray.remote
def inspect_task(trainee: Trainee, bundle: Bundle | None) -> About:
    """What the task is."""
    with whole_imports():
        from clr.tasks import reference as training

        _turn_gradients_on()
        about: About = training.inspect_task(_task(trainee, bundle))  # type: ignore[assignment]
        return about


@ray.remote(num_returns="streaming")
def train(
    trainee: Trainee,
    bundle: Bundle | None,
    run: dict[str, Any],
    about: RunName,
    threads: int,
    checkpoint: Place | None,
) -> Iterator[Report]:
    """The points of one run."""
    attempt = about["attempt"]
    with whole_imports():
        if "command" in trainee:
            for point in _program_points(trainee, bundle, run, about):
                yield attempt, [(False, point)]
            return

        from clr.tasks import reference as training
        from clr.training.checkpoint import Checkpoint

        _turn_gradients_on()

        kept = None if checkpoint is None else Checkpoint(Path(checkpoint["path"]), trainee, checkpoint["every_s"])
        for points in gathered(training.points(_task(trainee, bundle), run, threads, kept)):
            yield attempt, points


def gathered(points: Iterator[Reported]) -> Iterator[list[Reported]]:
    """The same points in order, those in one list that come sooner than ``GATHER_S`` after the list before."""
    some: list[Reported] = []
    told_at = time.monotonic()
    for point in points:
        some.append(point)
        if (now := time.monotonic()) - told_at >= GATHER_S:
            yield some
            some, told_at = [], now
    if some:
        yield some


def _turn_gradients_on() -> None:
    """A run that was cancelled just where torch turns them on again leaves them off to whatever comes next here."""
    import torch

    torch.set_grad_enabled(True)


def _program_points(
    program: Trainee, bundle: Bundle | None, run: dict[str, Any], about: RunName
) -> Iterator[dict[str, Any]]:
    """What a program of the user's own reports; it sees the variables that ``program`` names, and the devices of Ray's
    choice among them."""
    from clr.commands.program import Program
    from clr.run import Run

    kept = program["environment"]
    environment = {name: value for name, value in os.environ.items() if any(fnmatchcase(name, one) for one in kept)}
    folder = Path.cwd()
    if bundle is not None:
        from clr.bundles.requirements import unpacked

        folder, data = _unpacked_at(bundle)
        installed = unpacked(folder, data, bundle["requirements"])
        paths = [environment.get("PYTHONPATH"), installed]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    told = {name: program[name] for name in ("command", "direction", "run_seconds")}
    for point in Program(**told, environment=environment, folder=folder).points(Run(**run), about):
        yield point.to_dict()


def _task(trainee: Trainee, bundle: Bundle | None) -> Any:
    if bundle is None:
        from clr.tasks.reference import load

        return load(trainee)
    from clr.bundles.process import load_from

    root, data = _unpacked_at(bundle)
    return load_from(bundle["digest"], data, root.parent, bundle["requirements"], trainee)


def _unpacked_at(bundle: Bundle) -> tuple[Path, Any]:
    """Where the bundle lies, and its bytes, unless it does so already.

    No frame keeps the reference: an idle process that holds one is never ended by Ray.
    """
    root = Path(bundle["folder"]).expanduser().resolve() / bundle["digest"]
    reference = bundle["data"].pop()
    return root, None if root.is_dir() else ray.get(reference)


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

"""What Ray runs. It travels by value: a process that runs a user's code holds none of the worker's own modules.

What they import is ``clr`` alone, and only once they run.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray


@ray.remote(num_cpus=1, max_retries=0)
def warm() -> None:
    """Import what training takes."""
    import clr.trainee  # noqa: F401


@ray.remote
def describe(trainee: dict[str, Any], bundle: dict[str, Any] | None) -> dict[str, Any]:
    """What the task is."""
    from clr import trainee as training

    return training.describe(_task(trainee, bundle))


@ray.remote(num_returns="streaming")
def train(
    trainee: dict[str, Any],
    bundle: dict[str, Any] | None,
    run: dict[str, Any],
    attempt: int,
    threads: int,
    checkpoint: dict[str, Any] | None,
) -> Iterator[tuple[int, bool, Any]]:
    """Points of one run. The attempt goes with each, so that two attempts can never be spliced into one."""
    from clr import trainee as training
    from clr.checkpoint import Checkpoint

    kept = None if checkpoint is None else Checkpoint(Path(checkpoint["path"]), trainee, checkpoint["every_s"])
    for restored, point in training.points(_task(trainee, bundle), run, threads, kept):
        yield attempt, restored, point


def _task(trainee: dict[str, Any], bundle: dict[str, Any] | None) -> Any:
    if bundle is None:
        from clr.trainee import load

        return load(trainee)
    from clr.bundles.process import load_from

    folder = Path(bundle["folder"]).expanduser()
    data = _data(bundle, wanted=not (folder / bundle["digest"]).is_dir())
    return load_from(bundle["digest"], data, folder, bundle["requirements"], trainee)


def _data(bundle: dict[str, Any], wanted: bool) -> Any:
    """The bundle's bytes. No frame keeps the reference: an idle process that holds one is never ended by Ray."""
    (reference,) = bundle.pop("data")
    return ray.get(reference) if wanted else None


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

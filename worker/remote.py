"""The functions that Ray runs. They travel by value: a process that runs a user's code has none of the worker's modules.

What they import is ``clr`` alone, and only once they run.
"""

import sys
from collections.abc import Iterator
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
    trainee: dict[str, Any], bundle: dict[str, Any] | None, run: dict[str, Any], attempt: int, threads: int
) -> Iterator[tuple[int, Any]]:
    """Points of one run. The attempt goes with each, so that two attempts can never be spliced into one."""
    from clr import trainee as training

    for point in training.points(_task(trainee, bundle), run, threads):
        yield attempt, point


def _task(trainee: dict[str, Any], bundle: dict[str, Any] | None) -> Any:
    from pathlib import Path

    if bundle is None:
        from clr.trainee import load

        return load(trainee)
    from clr.bundles.process import load_from

    folder = Path(bundle["folder"]).expanduser()
    (reference,) = bundle["data"]
    return load_from(bundle["digest"], lambda: ray.get(reference), folder, bundle["requirements"], trainee)


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

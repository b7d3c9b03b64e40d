"""What a job will cost, told before it starts. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from clr.range_tests.plan import steps_of_test
from clr.schedules.cycles import TrainingLength
from clr.spec import JobSpec
from clr.trials.baselines import BASELINES

FINALISTS = 2
"""Schedules that are confirmed at most: the best trial, and what the range test alone would recommend."""

_LARGEST_COUNT = 2**53  # what a float still counts exactly


@dataclass(frozen=True)
class Cost:
    """A predicted cost; an upper bound, since tests and trials may stop early.

    Args:
        steps: optimizer steps of all runs together, no more than ``limits.max_steps``; None where the task does
            not say how many examples it has.
        iterations_per_epoch: optimizer steps in one pass over the training data, or None likewise.
        epochs: passes over the training data of all runs together.
        relative_to_one_training: the same in trainings of ``spec.epochs``.
        stages: trainings of each stage: ``range_test``, ``search``, ``confirm``.
    """

    steps: int | None
    iterations_per_epoch: int | None
    epochs: float
    relative_to_one_training: float
    stages: dict[str, float]


def predict(spec: JobSpec, schema: Mapping[str, Any] | None = None) -> Cost:
    """Predicted cost of a job, in trainings of ``spec.epochs`` each.

    The range test costs at most one (see ``steps_of_test``; one where iterations are unknown), each trial its epochs,
    the confirmation (finalists + baselines) x seeds, and the probes of each baseline's own best rate. Without a search,
    the range test alone.

    Args:
        spec: a valid spec.
        schema: JSON schema of the task's arguments, for the default of ``train_size``; None where unknown.

    Returns:
        The ``Cost``.

    >>> predict(JobSpec(task="digits", args={"train_size": 1000}, batch_size=100)).steps
    9000
    """
    size = _train_size(spec, schema)
    iterations = None if size is None else max(1, size // spec.batch_size)
    stages = trainings_of_stages(spec, iterations)
    trainings = sum(stages.values())
    epochs = trainings * spec.epochs
    steps = None if iterations is None else ceil(epochs * iterations)
    if steps is not None and spec.limits.max_steps is not None:
        steps = min(steps, spec.limits.max_steps)
    return Cost(steps, iterations, epochs, trainings, stages)


def trainings_of_stages(spec: JobSpec, iterations: int | None) -> dict[str, float]:
    """Trainings that each stage costs at most; ``iterations`` is an epoch's, None where it is not known."""
    stages = {"range_test": (spec.range_test.epochs or spec.epochs) / spec.epochs, "search": 0.0, "confirm": 0.0}
    if iterations is not None:
        length = TrainingLength(spec.epochs, iterations)
        stages["range_test"] = steps_of_test(length, spec.range_test) / length.steps
    if spec.search is not None:
        stages["search"] = spec.search.trials * (spec.search.epochs or spec.epochs) / spec.epochs
    if spec.search is not None and spec.confirm is not None:
        baselines = spec.confirm.baselines
        probes = sum(BASELINES[name].probes for name in baselines)
        stages["confirm"] = float((FINALISTS + len(baselines)) * spec.confirm.seeds + probes)
    return stages


def _train_size(spec: JobSpec, schema: Mapping[str, Any] | None) -> int | None:
    """Training examples by ``args.train_size`` or its published default; None where neither is a count."""
    published = ((schema or {}).get("properties") or {}).get("train_size") or {}
    size = spec.args.get("train_size", published.get("default"))
    if isinstance(size, int) and not isinstance(size, bool) and 0 < size <= _LARGEST_COUNT:
        return size
    return None

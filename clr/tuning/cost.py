"""What a job may cost, and what it will: its budget in trainings, shared out among the stages. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from clr.errors import InvalidArgument
from clr.range_tests.plan import steps_of_test
from clr.schedules.cycles import TrainingLength
from clr.spec import ConfirmSpec, JobSpec
from clr.trials.baselines import USUAL_BASELINES
from clr.trials.race import race_cost

BUDGET = 6.0
"""Trainings that a job costs where nobody says otherwise: one for the range test, and what it takes to train its answer
beside a fixed rate and one cycle on fresh seeds."""

RACE = BUDGET - 1
"""Trainings that are left to compare with, where the number of trials is given and that of the comparison is not."""

SEEDS = 3
"""Trainings of each schedule in a comparison whose baselines alone are given."""

FINALISTS = 2
"""Schedules that are confirmed at most: the best trial, and what the range test alone would recommend."""


_LARGEST_COUNT = 2**53  # what a float still counts exactly


@dataclass(frozen=True)
class PredictedCost:
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


def planned(spec: JobSpec) -> JobSpec:
    """The spec with its budget told: the one given, else ``BUDGET``, else what the numbers in it take.

    Raises:
        InvalidArgument: the budget given cannot hold the numbers given.

    >>> planned(JobSpec(task="digits")).budget
    6.0
    >>> planned(JobSpec(task="digits", search={"trials": 20}, confirm=None)).budget
    21.0
    """
    if spec.search is None:
        needed = range_test_share(spec)
        return spec if spec.budget is not None else spec.model_copy(update={"budget": needed})
    needed = _given_trials(spec) + given_comparison(spec)
    if spec.budget is not None:
        if needed > 0 and spec.budget < needed + range_test_share(spec):
            rule = f"must hold what search and confirm ask for: {needed + range_test_share(spec):g} trainings"
            raise InvalidArgument("budget", rule, spec.budget)
        return spec
    planning = spec.search.trials is None or (spec.confirm is not None and given_comparison(spec) == 0)
    budget = range_test_share(spec) + needed + (_race(spec) if planning else 0)
    return spec.model_copy(update={"budget": budget})


def _race(spec: JobSpec) -> float:
    """Trainings that are left to compare with: more where so many baselines are named that they take more."""
    named = len(spec.confirm.baselines or ()) if spec.confirm is not None else 0
    finalists = FINALISTS if spec.search is not None and spec.search.trials is not None else 1
    return max(RACE, race_cost(finalists + named))


def range_test_share(spec: JobSpec, length: TrainingLength | None = None) -> float:
    """Trainings that the range test takes at most; without a length, one that has as many steps as a test wants."""
    most = 1.0 if spec.budget is None else min(1.0, spec.budget)
    if spec.range_test.epochs is not None:
        return min(spec.range_test.epochs / spec.epochs, spec.budget or float("inf"))
    return most if length is None else min(most, steps_of_test(length, spec.range_test) / length.steps)


def _given_trials(spec: JobSpec) -> float:
    search = spec.search
    return (
        0.0 if search is None or search.trials is None else search.trials * (search.epochs or spec.epochs) / spec.epochs
    )


def given_comparison(spec: JobSpec) -> float:
    """Trainings of a comparison whose seeds are given; 0 where they are planned."""
    return 0.0 if spec.confirm is None or spec.confirm.seeds is None else float(comparison(spec.confirm))


def comparison(confirm: ConfirmSpec) -> int:
    """Trainings that a confirmation takes whose seeds are given."""
    baselines = USUAL_BASELINES if confirm.baselines is None else tuple(confirm.baselines)
    seeds = confirm.seeds or SEEDS
    return (FINALISTS + len(baselines)) * seeds


def predict(spec: JobSpec, schema: Mapping[str, Any] | None = None) -> PredictedCost:
    """Predicted cost of a job, in trainings of ``spec.epochs`` each.

    Args:
        spec: a valid spec.
        schema: JSON schema of the task's arguments, for the default of ``train_size``; None where unknown.

    Returns:
        The ``PredictedCost``.

    >>> predict(JobSpec(task="digits", args={"train_size": 1000}, batch_size=100)).steps
    1200
    """
    spec = planned(spec)
    iterations = spec.iterations_per_epoch or _iterations(spec, schema)
    length = None if iterations is None else TrainingLength(spec.epochs, iterations)
    stages = trainings_of_stages(spec, length)
    trainings = sum(stages.values())
    epochs = trainings * spec.epochs
    steps = None if iterations is None else ceil(epochs * iterations)
    if steps is not None and spec.limits.max_steps is not None:
        steps = min(steps, spec.limits.max_steps)
    return PredictedCost(steps, iterations, epochs, trainings, stages)


def trainings_of_stages(spec: JobSpec, length: TrainingLength | None) -> dict[str, float]:
    """Trainings that each stage costs at most; ``length`` None where the task does not tell it yet."""
    spec = planned(spec)
    assert spec.budget is not None
    stages = {"range_test": range_test_share(spec, length), "search": _given_trials(spec), "confirm": 0.0}
    if spec.search is None:
        return stages
    stages["confirm"] = given_comparison(spec)
    left = max(0.0, spec.budget - sum(stages.values()))
    if spec.search.trials is None:
        stages["search"] += left
    elif spec.confirm is not None and stages["confirm"] == 0.0:
        stages["confirm"] += left
    return stages


def _iterations(spec: JobSpec, schema: Mapping[str, Any] | None) -> int | None:
    """By ``args.train_size`` or its published default, and the batch size; None where either is not told."""
    published = ((schema or {}).get("properties") or {}).get("train_size") or {}
    size = spec.args.get("train_size", published.get("default"))
    if spec.mode == "managed" and isinstance(size, int) and not isinstance(size, bool) and 0 < size <= _LARGEST_COUNT:
        return max(1, size // (spec.batch_size or USUAL_BATCH_SIZE))
    return None


USUAL_BATCH_SIZE = 64
"""Of a task that does not say another: ``clr.Task``'s own default."""

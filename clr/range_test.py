"""The LR range test: short trainings under rising rates, over several seeds, and what they say about the bounds.

A plan without I/O: ``range_test_plan`` yields batches of runs and reads their curves; ``range_test`` carries it out
here, a worker carries it out on a cluster.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clr.bounds import Bounds, Reading, read_curves
from clr.proposal import Budget
from clr.run import Curve, Direction, Plan, Run, fresh_seeds
from clr.spec import RangeTestSpec

if TYPE_CHECKING:
    from clr.task import Task

LOWEST, HIGHEST = 1e-6, 10.0
"""Where the exponential pass begins and ends: below any rate that moves a network, above any that does not break it."""

POINTS = 60
"""Evaluations of the metric along a ramp."""


@dataclass(frozen=True)
class RangeTest:
    """What a range test recorded and found.

    Args:
        bounds: base_lr and max_lr with intervals, or why there are none.
        runs: every run that was made with its curve, in order.
        smoothed: the curve that was read: ``lr`` and ``loss``, equally long.
    """

    bounds: Bounds
    runs: list[tuple[Run, Curve]]
    smoothed: dict[str, list[float]]

    @property
    def curves(self) -> list[Curve]:
        """The ramps, seed after seed."""
        return [curve for run, curve in self.runs if run.policy.endswith("_ramp")]

    @property
    def cost_steps(self) -> int:
        """Optimizer steps of all runs together."""
        return sum(len(curve.loss) for _, curve in self.runs)

    def to_dict(self) -> dict[str, Any]:
        """What was found, as JSON values; the curves are not in it."""
        return {"bounds": self.bounds.to_dict(), "smoothed": self.smoothed}

    def rows(self) -> list[dict[str, Any]]:
        """One row per step of the ramps: lr, loss, metric (where it was taken), seed."""
        return [
            row | {"seed": run.seed} for run, curve in self.runs if run.policy.endswith("_ramp") for row in curve.rows()
        ]

    def chart(self) -> Any:
        """The picture, an Altair chart."""
        from clr.charts import range_test_chart

        curves = [{"params": {"policy": run.policy}, "points": curve.rows()} for run, curve in self.runs]
        return range_test_chart(self.to_dict() | {"curves": curves})

    def to_csv(self, path: str | Path) -> None:
        """Write ``rows`` with the header lr,loss,metric,seed."""
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, ["lr", "loss", "metric", "seed"])
            writer.writeheader()
            writer.writerows(self.rows())


def range_test_plan(
    budget: Budget, spec: RangeTestSpec, seed: int, direction: Direction, max_steps: int | None = None
) -> Plan[RangeTest]:
    """The test as a plan: an exponential ramp per seed, all together at most one training of ``budget``.

    Args:
        budget: the training to find bounds for.
        spec: seeds, range of rates and budget of the test itself.
        seed: what the test's seeds are made from.
        direction: of the task's metric.
        max_steps: a hard limit on the steps of all runs together.
    """
    allowed = budget.steps if spec.epochs is None else round(spec.epochs * budget.iterations_per_epoch)
    steps = max(2, min(allowed, max_steps or allowed) // spec.seeds)
    ramps = [
        Run(
            policy="exponential_ramp",
            base_lr=spec.min_lr or LOWEST,
            max_lr=spec.max_lr or HIGHEST,
            stepsize=steps,
            steps=steps,
            seed=one,
            evaluate_every=max(1, steps // POINTS),
            val_limit=500,
        )
        for one in fresh_seeds(seed, "range_test", spec.seeds)
    ]
    curves = yield ramps
    reading: Reading = read_curves([(curve.lr, curve.loss) for curve in curves])
    return RangeTest(reading.bounds, list(zip(ramps, curves, strict=True)), reading.smoothed)


def range_test(task: "Task", *, epochs: float = 20, seeds: int = 3, seed: int = 0, **ranges: Any) -> RangeTest:
    """Run the test in this process, one run after the other.

    Args:
        task: what to train.
        epochs: length of the training to find bounds for, > 0; the whole test costs no more than that.
        seeds: repetitions, >= 1.
        seed: what their seeds are made from.
        ranges: ``min_lr``, ``max_lr``, ``epochs`` of the test, as in ``clr.spec.RangeTestSpec``.
    """
    from clr.training import execute

    spec = RangeTestSpec(seeds=seeds, **ranges)
    _, direction, _ = task.score
    return execute(task, range_test_plan(Budget(epochs, task.iterations_per_epoch), spec, seed, direction))

"""Training runs as plain values: what to run, what came of it. No torch; they cross processes and databases."""

import math
from collections.abc import Generator, Iterable
from dataclasses import asdict, dataclass, field
from numbers import Integral
from typing import Any, Literal, TypeVar

import numpy as np

from clr.errors import InvalidArgument

Result = TypeVar("Result")
Direction = Literal["maximize", "minimize"]

TAIL = 6
"""The last sixth of a proof is its end: the rate is below a third of its peak there."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run: the task aside, all that decides its outcome.

    Args:
        policy: name in ``clr.schedules.policies``.
        base_lr, max_lr: its bounds, per step.
        step_size_up: steps of the rising half of a cycle, >= 1; of a ramp, all of it; of a policy without cycles, half
            of the training.
        step_size_down: steps of the falling half, >= 1; None: as many. Ramps have none.
        steps: optimizer steps to take, >= 1.
        seed: of initialisation, data order and every other random choice.
        evaluate_every: steps between points, >= 1; the last step always has one.
        val_limit: validation examples to score at a point (None: all), always the first ones; fewer where points are
            so close together that scoring would take longer than half of the training between them.
        explode: stop, as diverged, once the loss stays above its start by this many times its deepest fall; None:
            run to the end, unless the loss is no longer finite.
        gamma: decay per step of the exp_range policies.
        optimizer: one of ``clr.training.optimizers`` instead of the task's own.
        patience: multiply the rate by 0.1 whenever this many points in a row brought no better metric.
    """

    policy: str
    base_lr: float
    max_lr: float
    step_size_up: int
    step_size_down: int | None = None
    steps: int
    seed: int
    evaluate_every: int
    val_limit: int | None = None
    explode: float | None = None
    gamma: float | None = None
    optimizer: str | None = None
    patience: int | None = None

    @property
    def is_ramp(self) -> bool:
        """Whether the rate rises all along: a run of the range test that is read, rather than scored."""
        return self.policy.endswith("_ramp")

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; ``Run(**value)`` is the way back."""
        return asdict(self)


@dataclass(frozen=True)
class Point:
    """What happened in a run since its last point.

    Args:
        step: optimizer steps taken so far.
        lr, loss: of each step since the last point; the training loss is from before that step's update.
        metric: of the validation data after ``step`` steps; None where there are none or the run diverged.
        diverged: the loss or the metric is no longer finite, or the loss exploded; the run ends here.
    """

    step: int
    lr: list[float]
    loss: list[float]
    metric: float | None
    diverged: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; a number that is not finite becomes null."""
        return asdict(self) | {"loss": [value if math.isfinite(value) else None for value in self.loss]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Point":
        """The point that ``to_dict`` was made of; a null loss reads as NaN."""
        return cls(**data | {"loss": [math.nan if value is None else value for value in data["loss"]]})


@dataclass(frozen=True)
class Curve:
    """All that a run recorded.

    Args:
        lr, loss: of every step, in order.
        steps, metric: of every point with a metric, in order; ``steps`` counts from 1.
        diverged: the run ended before its last step, by a loss or metric that was not finite or by an explosion.
    """

    lr: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    metric: list[float] = field(default_factory=list)
    diverged: bool = False

    @classmethod
    def of(cls, points: Iterable[Point]) -> "Curve":
        """Join the points of one run; one that tells of some of its steps alone stands for all of them."""
        curve = cls()
        diverged, last = False, 0
        for point in points:
            curve.lr.extend(_spread(point.lr, point.step - last))
            curve.loss.extend(_spread(point.loss, point.step - last))
            if point.metric is not None:
                curve.steps.append(point.step)
                curve.metric.append(point.metric)
            diverged, last = point.diverged, point.step
        return cls(curve.lr, curve.loss, curve.steps, curve.metric, diverged)

    def rows(self) -> list[dict[str, Any]]:
        """One row per step: lr, loss (None where it was not finite), and metric where it was taken after that step."""
        metric = dict(zip(self.steps, self.metric, strict=True))
        return [
            {"lr": lr, "loss": loss if math.isfinite(loss) else None, "metric": metric.get(step)}
            for step, (lr, loss) in enumerate(zip(self.lr, self.loss, strict=True), 1)
        ]

    @property
    def value(self) -> float | None:
        """What the run is judged by: its last metric, else the mean of its last twentieth of losses; None: diverged."""
        if self.diverged or not self.loss:
            return None
        if self.metric:
            return self.metric[-1]
        tail = self.loss[-max(1, len(self.loss) // 20) :]
        return sum(tail) / len(tail)


def _spread(values: list[float], steps: int) -> list[float]:
    """``values`` for ``steps`` steps, each for equally many."""
    count = len(values)
    if count in (0, steps) or steps < 1:
        return values
    return [values[step * count // steps] for step in range(steps)]


Plan = Generator[list[Run], list[Curve], Result]
"""A stage of the method without any I/O: yields batches of independent runs, is sent their curves in the same order,
returns its finding. A plan depends on nothing else, so running it again over recorded curves resumes it."""


def fresh_seeds(seed: int, stage: str, count: int) -> list[int]:
    """``count`` seeds for a stage, the same for the same ``seed``, and shared with no other stage.

    More of them begin with the fewer:

    >>> fresh_seeds(0, "confirm", 5)[:2] == fresh_seeds(0, "confirm", 2)
    True
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise InvalidArgument("seed", "must be a whole number, at least 0", seed)
    sequence = np.random.SeedSequence([int(seed), *stage.encode()])
    return [int(value) for value in sequence.generate_state(count) >> 1]

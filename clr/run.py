"""Training runs as plain values: what to run, what came of it. No torch; they cross processes and databases."""

import math
import re
from collections.abc import Generator, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from numbers import Integral
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from clr.errors import InvalidArgument

Result = TypeVar("Result")
Direction = Literal["maximize", "minimize"]

SMALLER_IS_BETTER = frozenset(
    {"loss", "losses", "error", "errors", "err", "mse", "mae", "rmse", "nll", "ppl", "perplexity", "wer", "cer", "fid"}
)
"""Words in the name of a metric that say so."""


def words_of(name: str) -> list[str]:
    """The words that a name is made of, in lower case.

    >>> words_of("val/MeanSquaredError_2")
    ['val', 'mean', 'squared', 'error', '2']
    """
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]


def direction_of(name: str) -> Direction:
    """Whether larger values of a metric are better, by its name alone.

    >>> direction_of("val_accuracy"), direction_of("MeanSquaredError")
    ('maximize', 'minimize')
    """
    return "minimize" if SMALLER_IS_BETTER.intersection(words_of(name)) else "maximize"


KEPT_STEPS = 2000
"""A run of no more steps is recorded step by step; a longer one is thinned as it is recorded."""

PIECES = 500
"""A longer run is recorded in so many pieces of equally many steps: of each its mean loss, its steps of the lowest and
the highest loss, and its last metric. The first step, the last and one that diverged stay too."""

TAIL = 6
"""The last sixth of a proof is its end: the rate is below a third of its peak there."""


class ConstantOutput(NamedTuple):
    """What the best output does that is the same for all examples: who does no better has learnt nothing of the inputs.

    Args:
        loss, sd: in training, from batch to batch: its mean and its standard deviation.
        score: the metric on validation data, or their loss; None without any.
    """

    loss: float
    sd: float
    score: float | None = None


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

    def is_much_like(self, other: "Run") -> bool:
        """Whether both are of one plan: the same policy on the same seed, for as long, but for rounding of the rate."""
        known = [(one.policy, one.seed, one.steps, one.optimizer) for one in (self, other)]
        return known[0] == known[1] and math.isclose(self.max_lr, other.max_lr, rel_tol=0.01)

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
        mean: of the losses of all steps since the last point, where it tells of some of them alone.
    """

    step: int
    lr: list[float]
    loss: list[float]
    metric: float | None
    diverged: bool = False
    mean: float | None = None

    @property
    def running_loss(self) -> float | None:
        """Mean of the losses since the last point; None where none was finite."""
        finite = [value for value in self.loss if math.isfinite(value)]
        return self.mean if self.mean is not None else sum(finite) / len(finite) if finite else None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; a number that is not finite becomes null, and no ``mean`` is left out."""
        values = asdict(self) | {"loss": [value if math.isfinite(value) else None for value in self.loss]}
        if self.mean is None:
            del values["mean"]
        return values

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
            curve.loss.extend(_losses(point, point.step - last))
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


def value_of(points: Sequence[Point]) -> float | None:
    """What a run of these points is judged by: as its whole curve's ``value``, of which only the end is joined."""
    if not points or points[-1].diverged:
        return None
    metrics = [point.metric for point in points if point.metric is not None]
    if metrics:
        return metrics[-1]
    last = points[-1].step
    before = max((at for at, point in enumerate(points) if last - point.step >= max(1, last // 20)), default=None)
    if before is None:
        return Curve.of(points).value
    start = points[before].step
    end = Curve.of([replace(point, step=point.step - start) for point in points[before + 1 :]])
    tail = end.loss[-max(1, last // 20) :]
    return sum(tail) / len(tail)


def record(points: list[Point], new: Point, steps: int) -> int:
    """Add a point to those recorded of a run, thinned if the run is long; the first index that is another since.

    What is recorded in the end does not depend, but for rounding, on how often the run was asked for points.

    Args:
        points: what was recorded, in order.
        new: what happened since.
        steps: of the whole run.
    """
    if steps <= KEPT_STEPS:
        points.append(new)
        return len(points) - 1
    size = math.ceil(steps / PIECES)
    first = len(points)
    for piece in _pieces(new, points[-1].step if points else 0, size):
        start = points[-1].step if points else 0
        piece = _thinned(piece, start, steps)
        if points and (start - 1) // size == (piece.step - 1) // size:
            last = points.pop()
            since = points[-1].step if points else 0
            piece = _thinned(_joined(last, start - since, piece, piece.step - start), since, steps)
        first = min(first, len(points))
        points.append(piece)
    return first


def _pieces(point: Point, start: int, size: int) -> list[Point]:
    """The point, cut at every multiple of ``size`` steps; whole where it does not tell of each step between them."""
    steps, count = point.step - start, len(point.loss)
    cuts = [*range(start // size * size + size, point.step, size), point.step]
    if point.mean is not None or steps < 1 or count < len(cuts) or len(point.lr) != count:
        return [point]
    ends = [(cut - start) * count // steps for cut in cuts]
    pieces = [
        Point(cut, point.lr[a:b], point.loss[a:b], None) for cut, a, b in zip(cuts, [0, *ends], ends, strict=False)
    ]
    return [*pieces[:-1], replace(pieces[-1], metric=point.metric, diverged=point.diverged)]


def _joined(first: Point, first_steps: int, second: Point, second_steps: int) -> Point:
    """Two points of one piece as one."""
    known = [
        (mean, steps)
        for mean, steps in ((first.running_loss, first_steps), (second.running_loss, second_steps))
        if mean is not None
    ]
    weight = sum(steps for _, steps in known)
    return Point(
        second.step,
        [*first.lr, *second.lr],
        [*first.loss, *second.loss],
        first.metric if second.metric is None and not second.diverged else second.metric,
        second.diverged,
        sum(mean * steps for mean, steps in known) / weight if weight else None,
    )


def _thinned(point: Point, start: int, steps: int) -> Point:
    """Of the point's steps those of the lowest and the highest loss, and of a run's first and last."""
    finite = [at for at, loss in enumerate(point.loss) if math.isfinite(loss)]
    if len(point.loss) != len(point.lr) or not finite:
        return point
    kept = {min(finite, key=point.loss.__getitem__), max(finite, key=point.loss.__getitem__)}
    kept |= {0} if start == 0 else set()
    kept |= {len(point.loss) - 1} if point.diverged or point.step == steps else set()
    if len(kept) == len(point.loss):
        return point
    shown = sorted(kept)
    return replace(
        point, lr=[point.lr[at] for at in shown], loss=[point.loss[at] for at in shown], mean=point.running_loss
    )


def _losses(point: Point, steps: int) -> list[float]:
    """The loss of each of the ``steps`` that the point stands for."""
    if point.mean is None or steps < 1:
        return _spread(point.loss, steps)
    return [*[point.mean] * (steps - 1), point.loss[-1] if point.diverged and point.loss else point.mean]


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

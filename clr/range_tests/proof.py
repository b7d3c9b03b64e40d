"""A proof: a short whole cycle at one peak, its losses and its scores, and what nobody has learnt anything at."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from clr.range_tests.bounds import RATIO
from clr.range_tests.method import METHOD
from clr.range_tests.ramps import Bracket, Ramps
from clr.range_tests.signal import Array, Start, gaps_filled
from clr.run import TAIL, ConstantOutput, Curve, Direction, Run
from clr.schedules.cycles import way_of

MEAN_RATE = (1 + 1 / RATIO) / 2
"""Of a cycle, as a share of its peak."""


class Score(NamedTuple):
    """A score within a proof.

    Args:
        value: larger where it is better.
        steps: taken by then.
        x: logarithm of the peak of a cycle of as many steps that goes as far: the sum of its rates is the same.
    """

    value: float
    steps: int
    x: float


@dataclass(frozen=True)
class Proof:
    """A short cycle: the logarithm of its peak, its losses, cut off at the ceiling, and its scores, one at its end."""

    x: float
    losses: Array
    scores: tuple[Score, ...] = ()

    @classmethod
    def of(cls, x: float, run: Run, curve: Curve, start: Start, sign: int) -> "Proof":
        """What ran; a training that broke has learnt nothing, so its end is the ceiling.

        Args:
            x: logarithm of its peak.
            run, curve: what ran.
            start: loss of an untouched network.
            sign: -1 where a smaller metric is better: scores are larger where they are better.
        """
        ceiling = start.level + METHOD.proofs.ceiling * start.sd
        losses = np.minimum(np.nan_to_num(gaps_filled(curve.loss), nan=ceiling), ceiling)
        if curve.diverged or len(losses) < run.steps:
            losses = np.full(run.steps, ceiling)
        if curve.diverged:
            return cls(x, losses)
        scored = zip(curve.metric, curve.steps, strict=True)
        return cls(
            x, losses, tuple(Score(sign * value, n, math.log(way_of(run, n) / n / MEAN_RATE)) for value, n in scored)
        )

    @property
    def score(self) -> float | None:
        """The score at its end."""
        return self.scores[-1].value if self.scores else None

    def share_lost(self, usual: float) -> float:
        """How much worse it scores at its end than before, as a share of its best gain over the usual score."""
        best = max((score.value for score in self.scores), default=usual)
        return (best - self.scores[-1].value) / (best - usual) if best > usual else 0.0

    @property
    def tail(self) -> Array:
        """The losses of its last sixth, at least three."""
        return self.losses[-max(3, len(self.losses) // TAIL) :]

    @property
    def end(self) -> float:
        """Their mean."""
        return float(self.tail.mean())

    @property
    def error(self) -> float:
        """Standard error of the end."""
        return float(self.tail.std()) / math.sqrt(len(self.tail))


@dataclass(frozen=True)
class Untouched:
    """How networks do that have not been trained.

    Args:
        start: their loss.
        scores: of several seeds, at rates that move nothing; empty without a metric.
        sign: -1 where a smaller metric is better, else 1.
        constant: what the best constant output does, where known.
    """

    start: Start
    scores: tuple[float, ...] = ()
    sign: int = 1
    constant: ConstantOutput | None = None

    @classmethod
    def of(cls, around: Bracket, seen: Ramps, direction: Direction, constant: ConstantOutput | None) -> "Untouched":
        """From where the ramps begin, which is far too low to move anything: the first third of a bracket's first."""
        assert around.start is not None
        sign = 1 if direction == "maximize" else -1
        first = around.runs[0][1].metric
        scores = [*first[: max(1, len(first) // 3)], *(score for _, curve in seen.runs for score in curve.metric[:1])]
        return cls(around.start, tuple(sign * score for score in scores), sign, constant)

    @property
    def good(self) -> float:
        """A score that none of them reaches: above the best by as much as they differ; infinite without scores."""
        return 2 * max(self.scores) - min(self.scores) if self.scores else math.inf

    @property
    def usual(self) -> float:
        """The median of the scores; minus infinite without any."""
        return float(np.median(self.scores)) if self.scores else -math.inf

    @property
    def bad(self) -> float:
        """Likewise, below the worst; minus infinite without scores."""
        return 2 * min(self.scores) - max(self.scores) if self.scores else -math.inf

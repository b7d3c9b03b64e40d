"""The best rate: where whole trainings do best, from a few of them and from what the range test says.

Trainings at neighbouring rates say more together than each says of its own: all are read as one parabola over the
logarithm of the rate, whose peak the range test's interval says something of already. So a lucky training moves the
answer by what a training is worth, and no further.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from clr.range_tests.bounds import Bounds
from clr.range_tests.method import METHOD, OCTAVE, rate
from clr.range_tests.signal import Array

NARROWEST, WIDEST = OCTAVE / 4, 2 * OCTAVE
"""Distances from the best rate at which a hundredth of what a training gains is lost, between which nothing is known:
half the width of the rates that are good is .9 octaves in the median of fourteen tasks, and a fourth of that in the
narrowest."""

WALL = 0.5
"""Share of what a training gains that a rate which lost more says no parabola of: the valley's wall, or far from it."""


SEED_NOISE = 0.01
"""Standard deviation from seed to seed, as a share of what a training gains over an untrained network, before any was
seen: what the tasks of benchmarks/README.md have at their best schedules in the median."""

PRIOR_WEIGHT = 2.0
"""Trainings that the noise assumed counts as, beside those seen."""


class Trained(NamedTuple):
    """A training at a rate: its logarithm, the seed, and the value as a share of what a training gains, larger better;
    None where it diverged."""

    x: float
    seed: int
    value: float | None


@dataclass(frozen=True)
class BestRate:
    """What is believed of the best rate.

    Args:
        x: its logarithm, where the least is expected to be lost.
        deviation: standard deviation of that.
        curvature: mean of what is lost at a distance of one, a share of what a training gains.
        lost: what is expected to be lost at ``x``, likewise.
        noise: standard deviation of a training's value from seed to seed, likewise.
        weight: how many trainings that counts as.
    """

    x: float
    deviation: float
    curvature: float
    lost: float
    noise: float = SEED_NOISE
    weight: float = PRIOR_WEIGHT

    @classmethod
    def of(cls, bounds: Bounds) -> "BestRate":
        """What the range test says, whose bounds are conclusive: no surer than short cycles on one seed can be."""
        assert bounds.max_lr is not None
        assert bounds.interval is not None
        of, (low, high) = METHOD.judgement, bounds.interval["max_lr"]
        reach = max(math.log(high / low) / 2, of.measured)
        deviation = max(math.sqrt(reach**2 - of.measured**2) / of.deviations, METHOD.length.error)
        curvature = float(np.mean(_CURVATURES))
        return cls(math.log(bounds.max_lr), deviation, curvature, curvature * deviation**2)

    def lost_at(self, max_lr: float) -> float:
        """What is expected to be lost at that rate, a share of what a training gains."""
        return self.lost + self.curvature * (math.log(max_lr) - self.x) ** 2

    @property
    def max_lr(self) -> float:
        """The rate itself."""
        return rate(self.x)

    @property
    def interval(self) -> tuple[float, float]:
        """Rates that hold it in nine cases of ten, as the range test's do."""
        reach = math.hypot(METHOD.judgement.deviations * self.deviation, METHOD.judgement.measured)
        return rate(self.x - reach), rate(self.x + reach)

    def after_lengthening(self, factor: float) -> "BestRate":
        """What it says of a training so many times as long: nobody knows how the best rate moves with the length."""
        return replace(self, deviation=math.hypot(self.deviation, METHOD.length.spread * math.log(factor)))

    def after(self, trainings: Sequence[Trained]) -> "BestRate":
        """What is believed after these trainings.

        A value is the peak's, less what the parabola takes, and two deviations of one size, the seed's and its own.
        The posterior over peaks, widths, levels and noise is summed up on a grid.

        Args:
            trainings: at any rates, on any seeds; one alone says nothing, but where it diverged.
        """
        seen = [(one.x, one.seed, one.value) for one in trainings if one.value is not None]
        top = max((value for _, _, value in seen), default=0.0)
        near = [one for one in seen if one[2] >= top - WALL]
        peaks = self._peaks_between(trainings, {x for x, _, _ in near})
        squares = self.weight * self.noise**2 + _squares(peaks, near)
        weight = self.weight + max(0, len(near) - 1)
        log_p = -(((peaks - self.x) / self.deviation) ** 2)[:, None] / 2 - weight / 2 * np.log(squares)
        p = np.exp(log_p - log_p.max())
        p /= p.sum()
        of_peak, of_curvature = p.sum(axis=1), p @ _CURVATURES
        curvature = float(of_curvature.sum())
        best, mean = float(peaks @ of_curvature) / curvature, float(peaks @ of_peak)
        deviation = math.sqrt(float((peaks - mean) ** 2 @ of_peak))
        noise = math.sqrt(float((p * squares).sum()) / weight)
        return BestRate(best, deviation, curvature, float((peaks - best) ** 2 @ of_curvature), noise, weight)

    def _peaks_between(self, trainings: Sequence[Trained], near: set[float]) -> Array:
        """Rates at which the peak may lie: no nearer to one that lost far more than to the best that did not."""
        known = [self.x, *near]
        low, high = min(known) - 4 * self.deviation, max(known) + 4 * self.deviation
        if near:
            far = {one.x for one in trainings} - near
            high = min([high, *((x + max(near)) / 2 for x in far if x > max(near))])
            low = max([low, *((x + min(near)) / 2 for x in far if x < min(near))])
        elif trainings:
            high = min(one.x for one in trainings)
            low = high - 8 * self.deviation
        return np.linspace(min(low, high - METHOD.judgement.measured), high, 200)  # nothing is known any better


_CURVATURES = 0.01 / np.geomspace(NARROWEST, WIDEST, 9) ** 2


def _squares(peaks: Array, trained: Sequence[tuple[float, int, float]]) -> Array:
    """Sum of the squares, in units of the noise's variance, that parabolas leave; by peak and curvature.

    Any level is as likely, and those of one seed share half of their deviation.
    """
    if len(trained) < 2:
        return np.zeros((len(peaks), len(_CURVATURES)))
    x, seeds, values = (np.array(column) for column in zip(*trained, strict=True))
    residuals = values + _CURVATURES[:, None] * (x - peaks[:, None, None]) ** 2
    weights = np.linalg.inv(np.eye(len(x)) + (seeds[:, None] == seeds))
    level = weights.sum(axis=1)
    weights -= np.outer(level, level) / level.sum()
    squares: Array = np.einsum("pci,ij,pcj->pc", residuals, weights, residuals)
    return squares

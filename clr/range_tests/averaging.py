"""Exponential averages in which finders record their losses: recognised, and undone.

A finder that averages records ``m[k] = b m[k-1] + (1 - b) loss[k]``. The average lags behind the loss, and begins
wrongly where ``m[-1]`` is 0: it climbs to the loss though that stands still. Each form can be undone exactly.
"""

import math
from dataclasses import dataclass

import numpy as np

from clr.range_tests.noise import FEWEST, WHITE, Noise
from clr.range_tests.signal import Array

COEFFICIENTS = (0.9, 0.95, 0.98, 0.99)
"""What people average with who do not correct for the start: read from the climb, which lasts as long as they say."""

HEAD, LONG_HEAD = 8, 20
"""Samples in which an average from zero shows itself, and those which tell its coefficient."""

MISFIT = 0.15
"""Share of its climb by which an average from zero may miss the climb of a loss that stands still."""

FAINT = 0.01
"""Share of its fall below which the noise of a loss tells nothing."""

LIKENESS = 0.13
"""How near to white noise the losses must come once an average is undone."""


@dataclass(frozen=True)
class Averaging:
    """One finder's average.

    Args:
        coefficient: b.
        correction: the step its correction takes the first one for: ``m[k] / (1 - b ** (k + correction))``; 0: none.
        from_first: it begins at the first loss, else at 0.
    """

    coefficient: float
    correction: int
    from_first: bool = False

    def climb(self, count: int) -> Array:
        """What it records of a loss that stands still at 1: (count,)."""
        return np.asarray(1 - self.coefficient ** (np.arange(count) + 1)) / self._divisor(count)

    def undo(self, averages: Array) -> Array:
        """The losses: (n,)."""
        means = averages * self._divisor(len(averages))
        before = np.concatenate([means[:1] if self.from_first else [0.0], means[:-1]])
        return np.asarray((means - self.coefficient * before) / (1 - self.coefficient))

    def _divisor(self, count: int) -> Array:
        if not self.correction:
            return np.ones(count)
        return np.asarray(1 - self.coefficient ** (np.arange(count) + float(self.correction)))


LIGHTNING = Averaging(0.98, correction=2)
"""Its correction counts the first step as the second, so that the record begins at half the loss."""

FASTAI = Averaging(0.98, correction=1)
TORCH_LR_FINDER = Averaging(0.95, correction=0, from_first=True)
"""And ignite's."""


def from_zero(values: Array) -> Averaging | None:
    """The average from 0 that finite ``values`` are of; None where they do not climb as one does.

    >>> from_zero(2 * LIGHTNING.climb(100)) == LIGHTNING, from_zero(np.ones(100)) is None
    (True, True)
    """
    head = values[:LONG_HEAD] * np.sign(values[0])
    if len(head) < HEAD or np.any(head[:HEAD] <= 0) or np.any(np.diff(head[:HEAD]) <= 0):
        return None
    if _misfit(LIGHTNING, head[:HEAD]) < MISFIT:
        return LIGHTNING
    uncorrected = [Averaging(coefficient, correction=0) for coefficient in COEFFICIENTS]
    if min(_misfit(form, head[:HEAD]) for form in uncorrected) > MISFIT or np.any(head <= 0):
        return None
    return min(uncorrected, key=lambda form: _misfit(form, head))


def _misfit(form: Averaging, head: Array) -> float:
    """How far the head is from that of a loss that stands still, as a share of its climb."""
    climb = np.log(form.climb(len(head)))
    return float(np.std(np.log(head) - climb) / (climb[-1] - climb[0]))


def by_noise(values: Array) -> Averaging | None:
    """The average that begins rightly of which finite ``values`` are; only their noise, white before, gives it away.

    >>> losses = 2 + 0.1 * np.random.default_rng(0).normal(size=100)
    >>> by_noise(losses) is None
    True
    """
    noise = Noise.of(values)
    if noise.correlation is None or noise.is_white:
        return None
    form = min(FASTAI, TORCH_LR_FINDER, key=lambda one: _unevenness(one.undo(values)))
    losses = form.undo(values)
    undone = Noise.of(losses)
    is_likely = undone.correlation is not None and abs(undone.correlation - WHITE) < LIKENESS
    return form if is_likely and undone.deviation > FAINT * (losses[0] - losses.min()) else None


def _unevenness(losses: Array) -> float:
    """How much the noise of the start differs from what follows: the wrong form leaves it wild, or smooth."""
    half = FEWEST // 2
    deviations = [Noise.of(part).deviation for part in (losses[:half], losses[half:FEWEST])]
    return abs(math.log(max(deviations[0], 1e-300) / max(deviations[1], 1e-300)))

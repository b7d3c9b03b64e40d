"""Noise of a recorded curve, where nothing says which part of it is flat.

``signal`` knows ramps of our own, whose first third is flat. Here level and trend are unknown, so that the noise is
taken from what changes from sample to sample.
"""

import math
from dataclasses import dataclass

import numpy as np

from clr.range_tests.signal import MAD, Array, smooth

WHITE = -0.52
"""Correlation of neighbouring changes of white noise, once their trend is taken off."""

DEPENDENT = -0.3, 2.5
"""Correlation of changes above which the noise is no longer white, as a value and in errors of ``m`` pairs above WHITE:
it was averaged, or there is next to none."""

WANDER = 3.0
"""How far an averaged noise wanders, in standard deviations of its changes: for averages over about twenty samples."""

TREND = 3.0
"""Samples over which the trend of the changes is taken, as the standard deviation of a Gaussian."""

BENT = 0.5
"""Standard deviations of the changes by which the trend of the changes may be missed."""

FEWEST = 40
"""Changes without a trend below which the kind of a noise cannot be told, and is taken for white."""


@dataclass(frozen=True)
class Noise:
    """Noise of a curve.

    Args:
        deviation: of a sample, were the noise white.
        correlation: of neighbouring changes where their trend is known, None where it is known of too few.
        is_white: each sample errs for itself.
    """

    deviation: float
    correlation: float | None
    is_white: bool

    @classmethod
    def of(cls, values: Array) -> "Noise":
        """From finite values, whatever their trend; robust against a few wild ones.

        >>> noise = Noise.of(np.linspace(5, 1, 500) + np.random.default_rng(0).normal(scale=0.1, size=500))
        >>> noise.is_white, round(noise.error(1), 1), round(noise.error(25), 2)
        (True, 0.1, 0.02)
        """
        correlation, pairs = _correlation(values)
        value, errors = DEPENDENT
        is_white = correlation is None or correlation < max(value, WHITE + errors / math.sqrt(pairs))
        return cls(_deviation(values), correlation, is_white)

    def error(self, samples: float) -> float:
        """Standard error of a mean of so many neighbouring samples."""
        if self.is_white:
            return self.deviation / math.sqrt(max(1.0, samples))
        return WANDER * self.deviation


def _deviation(values: Array) -> float:
    """From third differences: a trend that bends leaves next to nothing in them."""
    bends = np.abs(np.diff(values, 3))
    typical = MAD * float(np.median(bends)) if len(bends) else 0.0
    rounding = 1e-9 * float(np.median(np.abs(values)))
    return max((typical or math.sqrt(float(np.mean(bends**2)) if len(bends) else 0.0)) / math.sqrt(20), rounding)


def _correlation(values: Array) -> tuple[float | None, int]:
    """And of how many pairs it is."""
    if len(values) < FEWEST:
        return None, 0
    changes = np.diff(values)
    residuals = changes - smooth(changes, TREND)
    deviation = MAD * float(np.median(np.abs(residuals)))
    if deviation == 0:
        return None, 0
    bent = np.abs(smooth(residuals, TREND)) > BENT * deviation
    known = np.convolve(bent, np.ones(2 * int(TREND) + 1), "same") == 0
    pairs = known[1:] & known[:-1]
    count = int(np.count_nonzero(pairs))
    if count < FEWEST:
        return None, count
    tamed = np.clip(residuals / deviation, -3, 3)
    return float(np.mean((tamed[1:] * tamed[:-1])[pairs]) / np.mean(tamed[known] ** 2)), count

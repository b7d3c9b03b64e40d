"""Reading one recorded metric, as the paper does: where it climbs, and where it arrives at its plateau."""

import math
from dataclasses import dataclass

import numpy as np

from clr.range_tests.recorded_loss import FINEST, SHORTEST, WIDTH, Place, reduced
from clr.range_tests.signal import EDGE, FALL, MAD, Array, averaged, despike, smooth

NEAR_TOP = 0.05
"""Share of the rise below its plateau at which a metric has arrived there."""

BASE_SHARE = 1 / 3
"""Share of the rise at which a metric is clearly climbing: beyond its noise, below its bend."""


@dataclass(frozen=True)
class MetricReading:
    """What one curve says.

    Args:
        climbing, arrived: where a third of the rise is done, and where the plateau is reached, each with the rates
            between which it may lie.
        fell: how far the metric lies below its plateau at the last rate, beyond its noise, as a share of its rise.
    """

    climbing: Place
    arrived: Place
    fell: float


def read_metric(rates: Array, metric: Array) -> MetricReading | None:
    """The climb of a recorded metric of which more is better; None where it never rose by more than its noise.

    Args:
        rates, metric: (n,), rising from 0 or above; the metric NaN where it was not taken.
    """
    taken = np.isfinite(metric) & (rates > 0)  # at rate 0 it says what an untrained network does
    if taken.sum() < SHORTEST:
        return None
    rates, raw = rates[taken], metric[taken]
    values = despike(raw, ends=True)
    scatter = _scatter(raw, values) / math.sqrt(math.ceil(len(raw) / FINEST))
    rates, values = reduced(rates, values)
    curve = smooth(values, WIDTH * len(values))
    top = float(curve.max())
    # At its start the smoothed curve has half as many samples to average, so the rise errs by more than its top does.
    error = math.sqrt(2) * scatter / math.sqrt(averaged(WIDTH * len(values)))
    if top - curve[0] <= FALL * error:
        return None
    bottom = float(min(values[0], curve[0]))
    rise = top - bottom
    high = curve[int(np.argmax(curve >= top - EDGE * rise)) :]
    plateau = float(np.median(high[high >= top - 2 * EDGE * rise]))  # its middle, not its highest wiggle

    def crossing(level: float) -> Place:
        levels = (level - 2 * error, level, min(level + 2 * error, top))
        low, value, upper = sorted(float(rates[_reaches(curve, one, plateau)]) for one in levels)
        return low, value, upper

    fell = (plateau - float(curve[-1]) - 2 * error) / rise
    return MetricReading(crossing(bottom + BASE_SHARE * rise), crossing(plateau - NEAR_TOP * rise), fell)


def _reaches(curve: Array, level: float, plateau: float) -> int:
    """Where the curve comes to ``level`` on its way to ``plateau``: between the first time and the last."""
    first = int(np.argmax(curve >= level))
    below = np.flatnonzero(curve[: int(np.argmax(curve >= plateau))] < level)
    return (first + max(first, int(below[-1]) + 1 if len(below) else first)) // 2


def _scatter(values: Array, despiked: Array) -> float:
    """Standard deviation of a sample; of values that mostly repeat, by the changes that despiking leaves."""
    changes = MAD * float(np.median(np.abs(np.diff(values)))) or float(np.sqrt(np.mean(np.diff(despiked) ** 2)))
    return max(changes / math.sqrt(2), 1e-9 * float(np.median(np.abs(despiked))))  # smoothing rounds a constant

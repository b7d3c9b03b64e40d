"""Reading one noisy loss curve: where it starts, how far it falls, where its valley ends. NumPy alone.

Everything here is equivariant: a loss times a plus b (a > 0) and a rate times k give the same reading, scaled. No
absolute loss and no absolute rate is used, so negative losses, other optimizers and other units need no setting.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

FALL = 5.0
"""Standard errors of the smoothed curve that a fall must exceed: the minimum is the luckiest of up to a thousand
places, and noise alone reaches four there."""

BREAK = 6.0
"""Standard deviations above its start at which a loss that never fell counts as broken, for the same reason."""

EDGE = 0.1
"""Share of the fall by which a curve may lie off its level and still belong to it: the usual reading of where a
transition begins and ends."""

MAD = 1.4826
"""Median absolute deviation to standard deviation, for a normal distribution."""

MEDIAN_ERROR = 1.25
"""Standard error of a median, in those of a mean, for a normal distribution."""


def smooth(values: ArrayLike, width: float) -> Array:
    """Gaussian smoothing with standard deviation ``width`` in samples; the kernel is cut and renormalised at the ends.

    Returns:
        float64 of the same length. Below a third of a sample nothing is smoothed.
    """
    y = np.asarray(values, float)
    if width < 0.3 or len(y) < 3:
        return y.copy()
    radius = math.ceil(3 * width)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / width) ** 2)
    inside = slice(radius, radius + len(y))
    return np.asarray(np.convolve(y, kernel)[inside] / np.convolve(np.ones(len(y)), kernel)[inside])


def averaged(width: float) -> float:
    """Samples that ``smooth`` averages: the noise's standard deviation falls by the root of it."""
    return max(1.0, 2 * math.sqrt(math.pi) * width)


def despike(values: ArrayLike, ends: bool = False) -> Array:
    """Running median of three: one wild sample moves nothing. Same length.

    Args:
        values: (n,)
        ends: whether the ends may be wild too: each is then the median of itself, its neighbour's median and the line
            through the two nearest medians. Else they stay: the last sample of a ramp may be where it broke.

    Source: Tukey, Exploratory Data Analysis (1977), chapter 7, for the ends.
    """
    y = np.asarray(values, float)
    if len(y) < 3:
        return y.copy()
    inner = np.median(np.stack([y[:-2], y[1:-1], y[2:]]), axis=0)
    first, last = y[0], y[-1]
    if ends:
        first = np.median([first, inner[0], 3 * inner[0] - 2 * inner[:2][-1]])
        last = np.median([last, inner[-1], 3 * inner[-1] - 2 * inner[-2:][0]])
    return np.concatenate([[first], inner, [last]])


def finite_head(values: ArrayLike) -> Array:
    """The samples before the first that is not finite."""
    y = np.asarray(values, float)
    bad = np.flatnonzero(~np.isfinite(y))
    return y[: bad[0]] if len(bad) else y


def gaps_filled(values: ArrayLike) -> Array:
    """The samples with the last finite one in the place of each NaN that a finite one follows: it is no divergence."""
    y = np.asarray(values, float)
    finite = np.flatnonzero(np.isfinite(y))
    if not len(finite):
        return y.copy()
    gaps = np.isnan(y) & (np.arange(len(y)) < finite[-1])
    known = np.where(gaps, -1, np.arange(len(y)))
    source = np.maximum.accumulate(known)
    return np.asarray(y[np.where(source < 0, finite[0], source)])


def recorded(rates: Array, values: ArrayLike) -> tuple[Array, Array]:
    """Rates and values without the gaps: a NaN that a finite value follows was not recorded, and is no divergence."""
    y = np.asarray(values, float)
    last = int(np.flatnonzero(np.isfinite(y))[-1]) if np.isfinite(y).any() else -1
    kept = ~np.isnan(y) | (np.arange(len(y)) > last)
    return rates[kept], y[kept]


@dataclass(frozen=True)
class Start:
    """The loss of an untouched network.

    Args:
        level, sd: its level, and its standard deviation from batch to batch.
        error: standard error of the level.
        reach: how far above its level it was seen, half as much again: batches of few examples have long tails.
    """

    level: float
    sd: float
    error: float
    reach: float = 0.0

    @classmethod
    def of(cls, loss: ArrayLike) -> "Start | None":
        """From the first third of a ramp that begins far too low to move anything; None with fewer than 3 samples.

        The standard deviation is the larger of two robust estimates: around the median, and of first differences.
        """
        y = finite_head(loss)
        head = y[: max(8, len(y) // 3)]
        if len(head) < 3:
            return None
        level = float(np.median(head))
        around = MAD * float(np.median(np.abs(head - level)))
        between = MAD * float(np.median(np.abs(np.diff(head)))) / math.sqrt(2)
        sd = max(around, between, 1e-9 * abs(level) + 1e-12)
        reach = 1.5 * (float(despike(head).max()) - level)
        return cls(level, sd, MEDIAN_ERROR * sd / math.sqrt(len(head)), reach)


@dataclass(frozen=True)
class Valley:
    """The reading of a falling, then rising, curve over ``x``, the logarithm of the rate.

    Args:
        minimum: x of the smoothed minimum.
        edge: x where the valley ends on the right; for a curve that never fell, the last x before it broke.
        onset: x where a tenth of the fall is done; None when it never fell.
        fall, error: depth of the minimum below the start, and the standard error of the smoothed curve.
        learned: the fall is more than noise.
        broke: the end of the valley, or the break, lies inside the curve.
        curve: the smoothed mean, as long as x.
    """

    minimum: float
    edge: float
    onset: float | None
    fall: float
    error: float
    learned: bool
    broke: bool
    curve: Array


def read_valley(x: Array, losses: Sequence[ArrayLike], start: Start, width: float, settles: bool = False) -> Valley:
    """Read the mean of several seeds' curves.

    Args:
        x: (n,) logarithms of the rate, rising.
        losses: per seed up to n losses; a shorter one went to infinity where it ends.
        start: level and noise of an untouched network.
        width: of the smoothing, as a share of the curve.
        settles: whether a curve that fell and whose last third then stays where it is has broken where it came to
            rest: over many decades no rate does equally well, but dead networks do.
    """
    n = len(x)
    heads = [finite_head(loss)[:n] for loss in losses]
    lowest = min((float(despike(head).min()) for head in heads if len(head)), default=start.level)
    ceiling = start.level + max(3 * start.sd, start.level - lowest)  # explosions all count as large as the fall
    rows = [np.minimum(np.concatenate([head, np.full(n - len(head), np.inf)]), ceiling) for head in heads]
    curve = smooth(despike(np.mean(rows, axis=0)), width * n)
    k = int(np.argmin(curve))
    fall = start.level - float(curve[k])
    error = start.sd / math.sqrt(len(heads) * averaged(width * n))
    if fall > FALL * error:
        inside = curve <= curve[k] + max(EDGE * fall, 2 * error)
        beyond = np.flatnonzero(~inside[k:])
        edge = k + int(beyond[0]) - 1 if len(beyond) else n - 1
        rest = curve[-max(3, n // 3) :]
        level, trend = float(np.median(rest)), float(rest[: len(rest) // 2].mean() - rest.mean())
        if settles and np.ptp(rest) < fall / 3 and abs(trend) < EDGE * fall and level < start.level - fall / 3:
            edge = min(edge, int(np.argmax(curve <= level + EDGE * fall)))
        onset = float(x[int(np.argmax(curve <= start.level - EDGE * fall))])
        return Valley(float(x[k]), float(x[edge]), onset, fall, error, True, edge < n - 1, curve)
    edge = min(_last_before_break(head, n, start) for head in heads)
    return Valley(float(x[edge]), float(x[edge]), None, fall, error, False, edge < n - 1, curve)


def _last_before_break(loss: Array, n: int, start: Start) -> int:
    filled = np.concatenate([despike(loss), np.full(n - len(loss), np.inf)])
    broken = np.flatnonzero(filled > start.level + max(BREAK * start.sd, start.reach))
    return max(0, int(broken[0]) - 1) if len(broken) else n - 1

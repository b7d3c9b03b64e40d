"""Bounds: base_lr and max_lr with intervals, or why there are none; and their reading from a curve alone."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from clr.errors import InvalidArgument
from clr.reading import EDGE, FALL, MAD, Array, Start, despike, read_valley, smooth
from clr.run import Direction

Confidence = Literal["high", "medium", "low", "inconclusive"]
Interval = tuple[float, float]

RATIO = 10.0
"""max_lr / base_lr read from a loss: one triangle over the whole budget does equally well from 6 to 20."""

PAPER_RATIOS = (3.0, 6.0)
"""Smallest and largest max_lr / base_lr read from a metric: the paper's rule of thumb, and the widest it used
(section 3.3, figures 3 and 8)."""

WIDTH = 1 / 40
"""Smoothing of a recorded curve, as a share of it: a quarter of a decade where a ramp spans ten."""

NEAR_TOP = 0.05
"""Share of the rise below its plateau at which a metric has arrived there."""

BASE_SHARE = 1 / 3
"""Share of the rise at which a metric is clearly climbing: beyond its noise, below its bend."""

SHORTEST = 20
"""Samples below which nothing is read: twice the smoothing's reach."""


@dataclass(frozen=True)
class Bounds:
    """What a range test says.

    Args:
        base_lr, max_lr: the bounds, per step; None when inconclusive.
        interval: name -> (low, high); None when inconclusive.
        confidence: how far the repetitions and the curves' shapes agree.
        reasons: why, in plain words.
    """

    base_lr: float | None
    max_lr: float | None
    interval: dict[str, Interval] | None
    confidence: Confidence
    reasons: list[str] = field(default_factory=list)

    @classmethod
    def inconclusive(cls, *reasons: str) -> "Bounds":
        """No bounds, and why."""
        return cls(None, None, None, "inconclusive", list(reasons))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


def read_bounds(
    lr: ArrayLike, loss: ArrayLike, metric: ArrayLike | None = None, direction: Direction = "maximize"
) -> Bounds:
    """Bounds from one recorded ramp, of whatever tool, when no further run is possible.

    With a metric (the paper's test): max_lr is the first rate at which the smoothed metric has arrived at its plateau,
    base_lr the rate at a third of its rise, kept within max_lr / 6 and max_lr / 3. Without one: max_lr is the rate at
    the smoothed loss's minimum, base_lr a tenth of it. That minimum lies higher the faster the ramp was, by a factor
    that the curve alone does not tell; the confidence is never high.

    Args:
        lr: (n,) rates per step, above 0 and rising.
        loss: (n,) or, for several seeds, (seeds, n) training losses; NaN from a divergence on.
        metric: as ``loss``; NaN where it was not taken.
        direction: whether a larger metric is better.

    Returns:
        ``Bounds``; inconclusive for a curve that is flat, all noise, or never finite.

    Raises:
        InvalidArgument: a shape or a rate breaks its rule.

    Source: Smith, arXiv 1506.01186, section 3.3; for the loss, the minimum as in the peers' finders, without their
    division by ten.
    """
    rates = np.asarray(lr, float)
    losses = _rows("loss", loss, rates)
    if metric is None:
        found = [_from_loss(np.log(rates), row) for row in losses]
        weakness = "read from one curve of the training loss alone; a slower ramp would give a lower max_lr"
    else:
        sign = 1 if direction == "maximize" else -1
        found = [_from_metric(rates, sign * row) for row in _rows("metric", metric, rates)]
        weakness = "read from a recorded metric, with no run to prove it"
    conclusive = [pair for pair in found if pair is not None]
    if 2 * len(conclusive) <= len(found):
        what = "loss never fell" if metric is None else "metric never rose"
        return Bounds.inconclusive(f"the {what} by more than its noise, at any rate of the curve")
    names = ("base_lr", "max_lr")
    middle = {name: float(np.exp(np.mean(np.log([pair[i] for pair in conclusive])))) for i, name in enumerate(names)}
    interval = {name: _spread([pair[i] for pair in conclusive]) for i, name in enumerate(names)}
    low, high = interval["max_lr"]
    agree = len(conclusive) > 1 and high < 2 * low
    return Bounds(middle["base_lr"], middle["max_lr"], interval, "medium" if agree else "low", [weakness])


def _rows(name: str, values: ArrayLike, rates: Array) -> Array:
    rows = np.atleast_2d(np.asarray(values, float))
    if rates.ndim != 1 or rows.ndim != 2 or rows.shape[1] != len(rates):
        raise InvalidArgument(
            f"{name}: must have one value for each rate, (n,) or (seeds, n), but got shape {np.shape(values)} "
            f"for rates of shape {rates.shape}"
        )
    if len(rates) < SHORTEST:
        raise InvalidArgument(f"lr: must have at least {SHORTEST} rates to be read, but got {len(rates)}")
    if not (np.all(np.isfinite(rates)) and np.all(rates > 0) and np.all(np.diff(rates) >= 0) and rates[-1] > rates[0]):
        raise InvalidArgument("lr: must be finite, above 0 and rising, but is not")
    return rows


def _from_loss(x: Array, loss: Array) -> Interval | None:
    start = Start.of(loss[: max(8, len(loss) // 10)])
    if start is None:
        return None
    valley = read_valley(x, [loss], start, WIDTH)
    if not valley.learned:
        return None
    top = math.exp(valley.minimum)
    return top / RATIO, top


def _from_metric(rates: Array, metric: Array) -> Interval | None:
    taken = np.isfinite(metric)
    if taken.sum() < SHORTEST:
        return None
    rates, raw = rates[taken], despike(metric[taken])
    curve = smooth(raw, WIDTH * len(raw))
    top = float(curve.max())
    bottom = float(min(raw[0], curve[0]))
    rise = top - bottom
    noise = MAD * float(np.median(np.abs(np.diff(raw - curve)))) / math.sqrt(2)
    if rise <= FALL * noise / math.sqrt(max(1.0, 2 * math.sqrt(math.pi) * WIDTH * len(raw))) or rise <= 0:
        return None
    arrived = curve[int(np.argmax(curve >= top - EDGE * rise)) :]
    plateau = float(np.median(arrived[arrived >= top - 2 * EDGE * rise]))  # its middle, not its highest wiggle
    max_lr = float(rates[int(np.argmax(curve >= plateau - NEAR_TOP * rise))])
    climbing = float(rates[int(np.argmax(curve >= bottom + BASE_SHARE * rise))])
    smallest, largest = PAPER_RATIOS
    return min(max(climbing, max_lr / largest), max_lr / smallest), max_lr


def _spread(values: Sequence[float]) -> Interval:
    """Lowest and highest over the seeds; for one seed, half an octave to each side, the grain of the reading."""
    if len(values) > 1:
        return min(values), max(values)
    return values[0] / math.sqrt(2), values[0] * math.sqrt(2)

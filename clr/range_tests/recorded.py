"""Bounds from a curve that was recorded elsewhere, when no further run is possible."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from clr.errors import InvalidArgument
from clr.range_tests.bounds import RATIO, Bounds, Interval
from clr.range_tests.signal import EDGE, FALL, MAD, Array, Start, averaged, despike, read_valley, recorded, smooth
from clr.run import Direction

Recorded = tuple[Array, Array]  # rates, and what was recorded at them
Span = tuple[float, float, float]  # lowest, value, highest

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

GRAIN = math.sqrt(2)
"""An interval reaches at least this factor to each side: half an octave, the finest that seeds agree on."""

END = 1 / 2
"""A max_lr above this share of the curve's last rate lies at its end: within the factor by which seeds may differ."""


def read_bounds(
    lr: ArrayLike, loss: ArrayLike, metric: ArrayLike | None = None, direction: Direction = "maximize"
) -> Bounds:
    """Bounds from one recorded ramp, of whatever tool, when no further run is possible.

    With a metric (the paper's test): max_lr is the first rate at which the smoothed metric has arrived at its plateau,
    base_lr the rate at a third of its rise, kept within max_lr / 6 and max_lr / 3. Without one: max_lr is the rate at
    the smoothed loss's minimum, base_lr a tenth of it. That minimum lies higher the faster the ramp was, by a factor
    that the curve alone does not tell; the confidence is never high.

    Args:
        lr: (n,) rates per step, rising; those at the start that are 0 are left out. For several seeds that did not
            share their rates, one such row each, of any length.
        loss: (n,) or, for several seeds, one row each: training losses; NaN from a divergence on, or where none was
            recorded.
        metric: as ``loss``; NaN where it was not taken.
        direction: whether a larger metric is better.

    Returns:
        ``Bounds``; inconclusive for a curve that is flat, all noise, or never finite.

    Raises:
        InvalidArgument: a shape or a rate breaks its rule.

    >>> lr = np.geomspace(1e-5, 1, 100)
    >>> bounds = read_bounds(lr, loss=np.ones(100), metric=1 / (1 + (0.001 / lr) ** 4))
    >>> bounds.confidence, 0.001 < bounds.max_lr < 0.003
    ('low', True)

    Source: Smith, arXiv 1506.01186, section 3.3; for the loss, the minimum as in the peers' finders, without their
    division by ten.
    """
    if direction not in ("maximize", "minimize"):
        raise InvalidArgument("direction", 'must be "maximize" or "minimize"', direction)
    losses = _curves(lr, "loss", loss)
    if metric is None:
        weakness = "read from the training loss alone; a slower ramp would give a lower max_lr"
        return _together(losses, _from_loss, "the loss never fell", weakness)
    sign, learning = (1, "rose") if direction == "maximize" else (-1, "fell")
    metrics = [(rates, sign * row) for rates, row in _curves(lr, "metric", metric)]
    weakness = "read from a recorded metric, with no run to prove it; a slower ramp would give a lower max_lr"
    return _together(metrics, _from_metric, f"the metric never {learning}", weakness)


def _together(
    curves: Sequence[Recorded], read: Callable[[Array, Array], tuple[Span, Span] | None], failure: str, weakness: str
) -> Bounds:
    found = [spans for curve in curves if (spans := read(*curve)) is not None]
    if 2 * len(found) <= len(curves):
        finite = max(int(np.isfinite(values).sum()) for _, values in curves)
        few = f": {finite} finite values, of {SHORTEST} needed" if finite < SHORTEST else ""
        return Bounds.inconclusive(
            f"{failure} by more than its noise{few}", "record a ramp of more steps, from a lower rate to a higher one"
        )
    (base_lr, base_interval), (max_lr, max_interval) = map(_mean, zip(*found, strict=True))
    rates = [top for _, (_, top, _) in found]
    reasons = [weakness]
    if max_lr > END * max(float(rates[-1]) for rates, _ in curves):
        reasons.append("max_lr lies near the curve's end; unless the training broke there, a higher one may be better")
    return Bounds(
        base_lr,
        max_lr,
        {"base_lr": base_interval, "max_lr": max_interval},
        "medium" if len(found) > 1 and max(rates) < 2 * min(rates) else "low",
        reasons,
    )


def _curves(lr: ArrayLike, name: str, values: ArrayLike) -> list[Recorded]:
    """Those of each seed, from the first rate above 0 on."""
    rates, rows = _rows("lr", lr), _rows(name, values)
    rates = rates * len(rows) if len(rates) == 1 else rates
    shapes = [[row.shape for row in each] for each in (rates, rows)]
    if shapes[0] != shapes[1] or any(len(shape) != 1 for shape in shapes[0]):
        raise InvalidArgument(
            name, f"must have one value for each rate, (n,) or a row for each seed: of shapes {shapes[0]}", shapes[1]
        )
    return [(rate[rate > 0], row[_checked(rate) > 0]) for rate, row in zip(rates, rows, strict=True)]


def _rows(name: str, values: Any) -> list[Array]:
    """One row for each seed, of any length."""
    try:
        several = np.ndim(next(iter(_plain(values)), 0)) > 0
        return [np.asarray(_plain(row), float) for row in (values if several else [values])]
    except (TypeError, ValueError, RuntimeError):
        raise InvalidArgument(name, "must be numbers, (n,) or a row for each seed", values) from None


def _plain(values: Any) -> Any:
    """A torch tensor as NumPy can read it: detached, on the host, in double precision."""
    return values.detach().cpu().double() if hasattr(values, "detach") else values


def _checked(rates: Array) -> Array:
    wrong = ~(np.isfinite(rates) & (rates >= 0))
    wrong[1:] |= rates[1:] < rates[:-1]
    if wrong.any():
        at = int(np.argmax(wrong))
        raise InvalidArgument(
            "lr",
            f"must be finite, at least 0 and never fall, also at value {at}; give each rising ramp a seed of its own",
            float(rates[at]),
        )
    above = rates[rates > 0]
    if len(above) < SHORTEST or above[0] == above[-1]:
        raise InvalidArgument(
            "lr",
            f"must be at least {SHORTEST} rates above 0 that rise; record every step of the ramp",
            above.tolist(),
        )
    return rates


def _from_loss(rates: Array, loss: Array) -> tuple[Span, Span] | None:
    rates, loss = recorded(rates, loss)
    while len(rates) >= SHORTEST:
        top = _of_valley(rates, loss)
        if top is not None:
            low, value, high = top
            return (low / RATIO, value / RATIO, high / RATIO), top
        rates, loss = rates[: len(rates) // 2], loss[: len(loss) // 2]  # most of a linear ramp may lie beyond the break
    return None


def _of_valley(rates: Array, loss: Array) -> Span | None:
    start = Start.of(loss[: max(8, len(loss) // 10)])
    if start is None:
        return None
    valley = read_valley(np.log(rates), [loss], start, WIDTH)
    if not valley.learned or valley.fall <= FALL * start.error:  # few samples lie before the fall of a recorded ramp
        return None
    at = int(np.argmin(valley.curve))
    higher = np.flatnonzero(valley.curve > valley.curve[at] + 2 * valley.error)
    low = int(higher[higher < at].max(initial=-1)) + 1
    high = int(higher[higher > at].min(initial=len(rates))) - 1
    return _span(rates, low, at, high)


def _from_metric(rates: Array, metric: Array) -> tuple[Span, Span] | None:
    taken = np.isfinite(metric)
    if taken.sum() < SHORTEST:
        return None
    rates, raw = rates[taken], despike(metric[taken], ends=True)
    curve = smooth(raw, WIDTH * len(raw))
    top = float(curve.max())
    # At its start the smoothed curve has half as many samples to average, so the rise errs by more than its top does.
    error = math.sqrt(2) * _scatter(metric[taken], raw) / math.sqrt(averaged(WIDTH * len(raw)))
    if top - curve[0] <= FALL * error:
        return None
    bottom = float(min(raw[0], curve[0]))
    rise = top - bottom
    arrived = curve[int(np.argmax(curve >= top - EDGE * rise)) :]
    plateau = float(np.median(arrived[arrived >= top - 2 * EDGE * rise]))  # its middle, not its highest wiggle

    def crossing(level: float) -> Span:
        levels = (level - 2 * error, level, min(level + 2 * error, top))
        return _span(rates, *(int(np.argmax(curve >= one)) for one in levels))

    max_lr, climbing = crossing(plateau - NEAR_TOP * rise), crossing(bottom + BASE_SHARE * rise)
    smallest, largest = PAPER_RATIOS
    low, value, high = (
        min(max(base, top / largest), top / smallest) for base, top in zip(climbing, max_lr, strict=True)
    )
    return (low, value, high), max_lr


def _span(rates: Array, low: int, at: int, high: int) -> Span:
    """Rates at these places, no closer to each other than the smoothing's width and the grain."""
    width = math.ceil(WIDTH * len(rates))
    low, high = min(low, max(0, at - width)), max(high, min(len(rates) - 1, at + width))
    value = float(rates[at])
    return min(float(rates[low]), value / GRAIN), value, max(float(rates[high]), value * GRAIN)


def _scatter(values: Array, despiked: Array) -> float:
    """Standard deviation of a sample; of values that mostly repeat, by the changes that despiking leaves."""
    changes = MAD * float(np.median(np.abs(np.diff(values)))) or float(np.sqrt(np.mean(np.diff(despiked) ** 2)))
    return max(changes / math.sqrt(2), 1e-9 * float(np.median(np.abs(despiked))))  # smoothing rounds a constant


def _mean(spans: Sequence[Span]) -> tuple[float, Interval]:
    """Geometric means over the seeds; the interval holds every seed's value."""
    values = [value for _, value, _ in spans]
    low, mean, high = (float(np.exp(np.mean(np.log(each)))) for each in zip(*spans, strict=True))
    return float(np.clip(mean, min(values), max(values))), (min(low, *values), max(high, *values))

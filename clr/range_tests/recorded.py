"""Bounds from curves that were recorded elsewhere, when no further run is possible."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from clr.errors import InvalidArgument
from clr.range_tests.averaging import Averaging
from clr.range_tests.bounds import RATIO, Bounds, Interval
from clr.range_tests.recorded_loss import SHORTEST, WIDTH, Place, places, read_loss, reduced
from clr.range_tests.recorded_metric import read_metric
from clr.range_tests.signal import Array, despike, smooth
from clr.run import Direction

PAPER_RATIOS = (3.0, 6.0)
"""Smallest and largest max_lr / base_lr read from a metric: the paper's rule of thumb, and the widest it used
(section 3.3, figures 3 and 8)."""

GRAIN = math.sqrt(2)
"""An interval reaches at least this factor to each side: half an octave, the finest that seeds agree on."""

END = 1 / 2
"""A max_lr above this share of the curve's last rate lies at its end: within the factor by which seeds may differ."""

BROKE = 1 / 2
"""Share of its fall by which a loss must rise again to have broken."""

FELL = 1 / 4
"""Share of its rise by which a metric must fall again to have fallen: more than it is ragged by."""

SLOWER = "a slower ramp would give a lower max_lr"


@dataclass
class Recording:
    """One seed's curve, row by row.

    Args:
        lr: rates, rising.
        loss, metric: as long as ``lr``; NaN where none was recorded, and from a divergence on.
    """

    lr: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    metric: list[float] = field(default_factory=list)

    @property
    def measured(self) -> int:
        """How often the metric was taken."""
        return int(np.count_nonzero(np.isfinite(self.metric)))


@dataclass(frozen=True)
class _Found:
    """What one curve says; ``open_end``: why a higher rate may do as well, None where the training broke."""

    base_lr: Place
    max_lr: Place
    open_end: str | None
    averaging: Averaging | None = None
    hump: bool = False


def read_bounds(
    lr: ArrayLike, loss: ArrayLike | None = None, metric: ArrayLike | None = None, direction: Direction = "maximize"
) -> Bounds:
    """Bounds from one recorded ramp, of whatever tool, when no further run is possible.

    With a metric (the paper's test): max_lr is the first rate at which the smoothed metric has arrived at its plateau,
    base_lr the rate at a third of its rise, kept within max_lr / 6 and max_lr / 3. Without one: max_lr is the middle of
    the smoothed loss's valley, base_lr a tenth of it. The valley lies higher the faster the ramp was, by a factor that
    the curve alone does not tell; the confidence is never high. Where a finder recorded an average of its losses
    (Lightning, fastai, torch-lr-finder and ignite do), the average is undone before.

    Args:
        lr: (n,) rates per step, at least 0, rising. For several seeds that did not share their rates, one such row
            each, of any length.
        loss: (n,) or, for several seeds, one row each: training losses; NaN from a divergence on, or where none was
            recorded. None: there is a metric alone.
        metric: as ``loss``; NaN where it was not taken.
        direction: whether a larger metric is better.

    Returns:
        ``Bounds``; inconclusive for a curve that is flat, all noise, or never finite.

    Raises:
        InvalidArgument: a shape or a rate breaks its rule, or there is neither loss nor metric.

    >>> lr = np.geomspace(1e-5, 1, 100)
    >>> bounds = read_bounds(lr, loss=np.ones(100), metric=1 / (1 + (0.001 / lr) ** 4))
    >>> bounds.confidence, 0.001 < bounds.max_lr < 0.003
    ('low', True)

    Source: Smith, arXiv 1506.01186, section 3.3; for the loss, the minimum as in the peers' finders, without their
    division by ten.
    """
    if direction not in ("maximize", "minimize"):
        raise InvalidArgument("direction", 'must be "maximize" or "minimize"', direction)
    if loss is None and metric is None:
        raise InvalidArgument("loss", "must be given where there is no metric")
    losses = [] if loss is None else _curves(lr, "loss", loss)
    if metric is None:
        found = [_from_loss(rates, row) for rates, row in losses]
        return _together(found, losses, "the loss never fell", f"read from the training loss alone; {SLOWER}")
    sign, learning = (1, "rose") if direction == "maximize" else (-1, "fell")
    metrics = [(rates, sign * row) for rates, row in _curves(lr, "metric", metric)]
    diverged = [len(row) > 0 and np.isfinite(row).any() and not np.isfinite(row[-1]) for _, row in losses] or [False]
    found = [
        _from_metric(rates, row, bool(diverged[min(seed, len(diverged) - 1)]))
        for seed, (rates, row) in enumerate(metrics)
    ]
    weakness = f"read from a recorded metric, with no run to prove it; {SLOWER}"
    return _together(found, metrics, f"the metric never {learning}", weakness)


def read_recordings(recordings: Sequence[Recording], direction: Direction = "maximize") -> Bounds:
    """Bounds from one curve for each seed: by the metric where every seed has enough of it, else by the loss.

    Args:
        recordings: at least one.
        direction: whether a larger metric is better.

    Raises:
        InvalidArgument: a rate breaks its rule.
    """
    columns = {name: [getattr(one, name) for one in recordings] for name in ("lr", "loss", "metric")}
    metrics = columns.pop("metric")
    fewest = min(one.measured for one in recordings)
    if fewest >= SHORTEST:
        columns["metric"] = metrics
    bounds = read_bounds(**columns, direction=direction)
    if 0 < fewest < SHORTEST:
        return bounds.noting(f"the metric was not read: it was taken {fewest} times, of {SHORTEST} needed")
    return bounds


def smoothed_mean(recordings: Sequence[Recording]) -> dict[str, list[float]]:
    """Mean of the seeds' smoothed losses at the rates of the first, as far as all of them reach: ``lr`` and ``loss``.

    Args:
        recordings: any; those with next to no finite losses count for nothing.
    """
    ramps = []
    for one in recordings:
        rates, losses = np.asarray(one.lr), np.asarray(one.loss, float)
        kept = (rates > 0) & np.isfinite(losses)
        if np.count_nonzero(kept) < SHORTEST:
            continue
        x, loss = reduced(places(rates[kept]), despike(losses[kept]))
        ramps.append((x, smooth(loss, WIDTH * len(loss))))
    if not ramps:
        return {"lr": [], "loss": []}
    first = ramps[0][0]
    common = first[(first >= max(x[0] for x, _ in ramps)) & (first <= min(x[-1] for x, _ in ramps))]
    mean = np.mean([np.interp(common, x, loss) for x, loss in ramps], axis=0)
    return {"lr": np.exp(common).tolist(), "loss": mean.tolist()}


def _from_loss(rates: Array, loss: Array) -> _Found | None:
    reading = read_loss(rates, loss)
    if reading is None:
        return None
    low, value, high = _grained(reading.valley)
    open_end = None
    if reading.rise < BROKE:
        open_end = f"nothing broke: at the last rate, {rates[-1]:.3g}, the loss lay {_share(reading.rise)} above its"
        open_end += " lowest"
    return _Found(
        (low / RATIO, value / RATIO, high / RATIO), (low, value, high), open_end, reading.averaging, reading.hump
    )


def _from_metric(rates: Array, metric: Array, diverged: bool) -> _Found | None:
    reading = read_metric(rates, metric)
    if reading is None:
        return None
    max_lr, climbing = _grained(reading.arrived), _grained(reading.climbing)
    smallest, largest = PAPER_RATIOS
    base_lr = [min(max(base, top / largest), top / smallest) for base, top in zip(climbing, max_lr, strict=True)]
    open_end = None
    if not diverged and reading.fell < FELL:
        open_end = f"the metric had not fallen at the last rate, {rates[-1]:.3g}"
    return _Found((base_lr[0], base_lr[1], base_lr[2]), max_lr, open_end)


def _share(rise: float) -> str:
    return f"{max(0.0, rise):.0%} of its fall"


def _grained(place: Place) -> Place:
    """Rates no closer to each other than the grain."""
    low, value, high = place
    return min(low, value / GRAIN), value, max(high, value * GRAIN)


def _together(
    found: Sequence[_Found | None], curves: Sequence[tuple[Array, Array]], failure: str, weakness: str
) -> Bounds:
    read = [one for one in found if one is not None]
    if 2 * len(read) <= len(found):
        finite = max(int(np.isfinite(values).sum()) for _, values in curves)
        few = f": {finite} finite values, of {SHORTEST} needed" if finite < SHORTEST else ""
        return Bounds.inconclusive(
            f"{failure} by more than its noise{few}", "record a ramp of more steps, from a lower rate to a higher one"
        )
    base_lr, base_interval = _mean([one.base_lr for one in read])
    max_lr, max_interval = _mean([one.max_lr for one in read])
    rates = [one.max_lr[1] for one in read]
    return Bounds(
        base_lr,
        max_lr,
        {"base_lr": base_interval, "max_lr": max_interval},
        "medium" if len(read) > 1 and max(rates) < 2 * min(rates) else "low",
        [weakness, *_reasons(read, max_lr, max(float(rates[-1]) for rates, _ in curves))],
    )


def _reasons(read: Sequence[_Found], max_lr: float, last: float) -> list[str]:
    """What is to be known beside: how the curves end, and what was done to them."""
    reasons = []
    open_ends = [one.open_end for one in read if one.open_end]
    if 2 * len(open_ends) > len(read):
        near = "max_lr lies near the curve's end; " if max_lr > END * last else ""
        reasons.append(f"{near}{open_ends[-1]}: a higher max_lr may do as well")
    if averagings := {one.averaging.coefficient for one in read if one.averaging}:
        coefficients = " and ".join(f"{one:g}" for one in sorted(averagings))
        reasons.append(f"the losses are an exponential average, of coefficient {coefficients}, which was undone")
    if any(one.hump for one in read):
        reasons.append("the loss climbed before it fell, and was read beyond its climb")
    return reasons


def _curves(lr: ArrayLike, name: str, values: ArrayLike) -> list[tuple[Array, Array]]:
    """Rates and values of each seed."""
    rates, rows = _rows("lr", lr), _rows(name, values)
    rates = rates * len(rows) if len(rates) == 1 else rates
    shapes = [[row.shape for row in each] for each in (rates, rows)]
    if shapes[0] != shapes[1] or any(len(shape) != 1 for shape in shapes[0]):
        raise InvalidArgument(
            name, f"must have one value for each rate, (n,) or a row for each seed: of shapes {shapes[0]}", shapes[1]
        )
    return [(_checked(rate), row) for rate, row in zip(rates, rows, strict=True)]


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


def _mean(places: Sequence[Place]) -> tuple[float, Interval]:
    """Geometric means over the seeds; the interval holds every seed's value."""
    values = [value for _, value, _ in places]
    low, mean, high = (float(np.exp(np.mean(np.log(each)))) for each in zip(*places, strict=True))
    return float(np.clip(mean, min(values), max(values))), (min(low, *values), max(high, *values))

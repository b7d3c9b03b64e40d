"""Reading one recorded loss: where its valley lies. Of other tools' ramps nothing is known but that the rate rises."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from clr.range_tests.averaging import Averaging, by_noise, from_zero
from clr.range_tests.noise import Noise
from clr.range_tests.signal import EDGE, MEDIAN_ERROR, Array, despike, smooth

SHORTEST = 20
"""Samples below which nothing is read."""

WIDTH = 1 / 40
"""Smoothing of a recorded curve, as a share of its samples: a quarter of a decade where a ramp spans ten."""

REACH = math.log(10) / 5
"""Most that the smoothing reaches, in ln(rate): the first samples of a linear ramp lie decades apart."""

FINEST = 1000
"""Samples that a curve is reduced to before it is read: its features are as wide as its smoothing."""

FALL = 6.0
"""Standard errors that a fall must exceed: both its ends are the luckiest of many places."""

STEEP = 0.6
"""Share of a climb that is done at half its length where it is steepest at its start."""

Place = tuple[float, float, float]
"""Rates: lowest, value, highest."""


@dataclass(frozen=True)
class Reading:
    """What one curve says of max_lr.

    Args:
        valley: lowest and highest of the rates that do as well as the minimum, and between them their middle; where the
            curve ends within the valley, the minimum.
        rise: the most that the loss rose again beyond them, as a share of its fall; infinite: it was no longer finite.
        averaging: the average that was undone, None where there was none.
        hump: the curve climbed before it fell, and was read beyond that.
    """

    valley: Place
    rise: float
    averaging: Averaging | None
    hump: bool


def read_loss(rates: Array, loss: Array) -> Reading | None:
    """The valley of a recorded loss; None where it never fell by more than its noise.

    Args:
        rates, loss: (n,), rising from 0 or above; what is not finite and followed by a finite loss was not recorded.
    """
    finite = np.isfinite(loss)
    if np.count_nonzero(rates[finite] > 0) < SHORTEST:
        return None
    x, losses = places(rates[finite]), loss[finite]
    reading = _read(x, losses)
    if reading is not None and not finite[-1]:
        return replace(reading, rise=math.inf)
    return reading


def _read(x: Array, losses: Array) -> Reading | None:
    if form := from_zero(losses):
        return _read_valley(x, form.undo(losses), averaging=form)
    reading = _read_valley(x, losses)
    if reading is None and (top := _climb(x, losses)):
        return _read_valley(x[top:], losses[top:], hump=True)
    form = by_noise(losses[: _break(losses)[0]])
    if reading is None or form is None:
        return reading
    undone = _read_valley(x, form.undo(losses), averaging=form)
    # An average lags behind its losses: what leads them was none.
    return undone if undone is None or undone.valley[1] <= reading.valley[1] else reading


def _read_valley(x: Array, losses: Array, averaging: Averaging | None = None, hump: bool = False) -> Reading | None:
    end, ceiling = _break(losses)
    curve = _Curve(*reduced(x[:end], np.minimum(losses[:end], ceiling)))
    valley = curve.valley()
    if valley is None:
        return None
    low, at, high = (float(np.exp(curve.x[place])) for place in (valley.low, valley.at, valley.high))
    value = math.sqrt(low * high) if valley.high < len(curve.x) - 1 else at
    return Reading((low, value, high), valley.rise, averaging, hump)


def _climb(x: Array, losses: Array) -> int:
    """Where a climb ends that is steepest at its start, as that of an average from 0; 0: there is none."""
    _, means = reduced(x, despike(losses))
    curve = smooth(means, WIDTH * len(means))
    ahead = max(SHORTEST // 2, len(curve) // 10)
    top = next(k for k in range(len(curve)) if curve[k] >= curve[k : k + ahead].max())
    is_climb = curve[top // 2] - curve[0] > STEEP * (curve[top] - curve[0])
    end = top * math.ceil(len(losses) / FINEST)
    return end if is_climb and top > 3 and end <= len(losses) - SHORTEST else 0


def places(rates: Array) -> Array:
    """Logarithms of the rates; samples at rate 0 lie below the first above it, as far as that from the next."""
    zeros = int(np.count_nonzero(rates == 0))
    x = np.log(rates[zeros:])
    step = max(x[1] - x[0], 1e-6)
    return np.concatenate([x[0] - step * np.arange(zeros, 0, -1), x])


def _break(y: Array) -> tuple[int, float]:
    """Where the curve ends: beyond its minimum, as far above its start as that lies below. And this ceiling.

    What explodes counts as no more: it says no more than a loss that is high.
    """
    level = float(np.median(y[: max(3, len(y) // 20)]))
    tame = despike(y)
    lowest = int(np.argmin(tame))
    ceiling = level + max(level - float(tame[lowest]), 3 * Noise.of(y[: max(8, len(y) // 3)]).error(1))
    high = np.flatnonzero(tame[lowest:] > ceiling)
    return lowest + int(high[0]) + 1 if len(high) else len(y), ceiling


def reduced(x: Array, y: Array) -> tuple[Array, Array]:
    """Means of neighbours, where there are more samples than a reading can use."""
    size = math.ceil(len(y) / FINEST)
    starts = np.arange(0, len(y), size)
    counts = np.diff(np.append(starts, len(y)))
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts


@dataclass(frozen=True)
class _Valley:
    """Indices: the minimum, and how far to each side the curve lies as low; its rise beyond, as a share of its fall."""

    low: int
    at: int
    high: int
    rise: float


class _Curve:
    def __init__(self, x: Array, y: Array):
        self.x, self.y = x, y
        spacing = np.gradient(x) if len(x) > 1 else np.ones(1)
        widths = np.minimum(WIDTH * len(x), REACH / np.maximum(spacing, 1e-12))
        self.smooth, self.averages = _smooth(despike(y), widths)
        self.noise = Noise.of(y)

    def valley(self) -> _Valley | None:
        at = int(np.argmin(self.smooth))
        noise = replace(self.noise, deviation=Noise.of(self.y[: max(at + 1, 8)]).deviation)
        error = noise.error(float(self.averages[at]))
        bottom = float(self.smooth[at])
        fall, errors = max(self._falls(at, bottom, noise, error), key=lambda pair: pair[1], default=(0.0, 0.0))
        if errors <= FALL:
            return None
        decade = float(np.interp(self.x[at] - math.log(10), self.x, self.smooth)) - bottom
        depth = max(2 * error, EDGE * min(decade, fall))
        higher = np.flatnonzero(self.smooth > bottom + depth)
        low = int(higher[higher < at].max(initial=-1)) + 1
        high = int(higher[higher > at].min(initial=len(self.x))) - 1
        return _Valley(low, at, high, (float(self.y[-1]) - bottom) / fall)

    def _falls(self, at: int, bottom: float, noise: Noise, error: float) -> Iterator[tuple[float, float]]:
        """The fall from a start of so many samples, and how many standard errors it has."""
        if self.y[0] > self.y[1] > bottom + 3 * error:  # not one wild sample
            fall = float(self.y[0]) - bottom
            yield fall, fall / max(math.hypot(noise.error(1), error), 1e-300)
        count = 3
        while count <= max(3, at) and count <= len(self.y):
            fall = float(np.median(self.y[:count])) - bottom
            yield fall, fall / max(math.hypot(MEDIAN_ERROR * noise.error(count), error), 1e-300)
            count *= 2


def _smooth(values: Array, widths: Array) -> tuple[Array, Array]:
    """Gaussian means, each over its own width; the kernel is renormalised at the ends.

    Args:
        values, widths: (n,); widths are standard deviations in samples, below a third of one nothing is smoothed.

    Returns:
        (n,) means, and (n,) how many independent samples each of them averages.
    """
    places = np.arange(len(values))
    distance = (places[None, :] - places[:, None]) / np.where(widths < 1 / 3, 0.05, widths)[:, None]
    weights = np.exp(-0.5 * distance**2)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights @ values, 1 / np.sum(weights**2, axis=1)

"""How many recorded curves ``clr.read_bounds`` reads right: curves that are made, so that the right answer is known.

    python -m benchmarks.curves                 # every kind, 40 curves each
    python -m benchmarks.curves --per-kind 200 linear averaged-from-zero

A curve is a loss without noise, of known minimum, then noise, then what a tool makes of it: an average, a row for each
hundred steps, an end where it broke. Right is a max_lr within a factor 2 of the rates at which the loss without noise
lies within a twentieth of its fall of the minimum; of a curve that says nothing, the answer "inconclusive".
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.table import markdown
from clr.range_tests.bounds import Bounds
from clr.range_tests.recorded import read_bounds

Array = NDArray[np.float64]
Random = np.random.Generator

TOLERANCE = 2.0
SHARE = 0.05


@dataclass(frozen=True)
class Made:
    """A recorded curve; the rates that are right as max_lr, None where nothing can be said."""

    lr: Array
    loss: Array
    right: tuple[float, float] | None
    metric: Array | None = None

    def read(self) -> Bounds:
        return read_bounds(self.lr, self.loss, self.metric)

    def is_right(self, bounds: Bounds) -> bool:
        if self.right is None or bounds.max_lr is None:
            return (self.right is None) == (bounds.max_lr is None)
        return self.right[0] / TOLERANCE <= bounds.max_lr <= self.right[1] * TOLERANCE


@dataclass(frozen=True)
class Shape:
    """A loss over the rate: falls around ``falls``, breaks around ``breaks``."""

    falls: float
    breaks: float
    steepness: float
    explosion: float
    scale: float
    floor: float

    @classmethod
    def random(cls, random: Random, breaks: float | None = None, decades: tuple[float, float] = (1, 2.5)) -> "Shape":
        breaks = breaks or 10 ** random.uniform(-3, 0.5)
        scale = 10 ** random.uniform(-1, 1)
        return cls(
            falls=breaks / 10 ** random.uniform(*decades),
            breaks=breaks,
            steepness=random.uniform(0.8, 2.5),
            explosion=random.uniform(1, 3),
            scale=scale,
            floor=scale * random.choice([0.05, 0.3, 1.0, -30.0]),
        )

    def __call__(self, lr: Array) -> Array:
        ratio = np.maximum(lr, 1e-30) / self.falls
        fall = 1 / (1 + ratio**-self.steepness)
        return self.floor + self.scale * (1 - fall + np.minimum((lr / self.breaks) ** (2 * self.explosion), 1e4))

    def right(self, low: float, high: float) -> tuple[float, float]:
        """The rates near the minimum between these two."""
        grid = np.geomspace(low, high, 4000)
        loss = self(grid)
        good = grid[loss <= loss.min() + SHARE * (loss[0] - loss.min())]
        return float(good[0]), float(good[-1])


def exponential(shape: Shape, random: Random, n: int | None = None) -> Array:
    low, high = shape.falls / 10 ** random.uniform(0.5, 5), shape.breaks * 10 ** random.uniform(0.3, 1.5)
    return np.geomspace(low, high, n or int(random.integers(80, 400)))


def ramp(random: Random, noise: float = 0.03, n: int | None = None) -> Made:
    shape = Shape.random(random)
    lr = exponential(shape, random, n)
    return of(shape, lr, shape(lr) + noise * shape.scale * random.normal(size=len(lr)))


def of(shape: Shape, lr: Array, loss: Array, metric: Array | None = None) -> Made:
    positive = lr[lr > 0]
    return Made(lr, loss, shape.right(float(positive[0]), float(positive[-1])), metric)


def average(loss: Array, beta: float, correction: int | None, start: float = 0.0) -> Array:
    """An exponential average; ``correction``: which step its correction believes to be the first; None: none."""
    out, mean = [], start
    for step, value in enumerate(loss):
        mean = beta * mean + (1 - beta) * value
        out.append(mean if correction is None else mean / (1 - beta ** (step + correction)))
    return np.array(out)


def averaged(random: Random, beta: float, correction: int | None, from_first: bool = False) -> Made:
    """As finders record it: averaged, and ended at four times the best."""
    made = ramp(random, 0.05, int(random.integers(90, 160)))
    loss = made.loss - made.loss.min() + 0.3 * np.ptp(np.minimum(made.loss, made.loss[0]))  # a loss above 0, as theirs
    smoothed = average(loss, beta, correction, loss[0] if from_first else 0.0)
    best = np.minimum.accumulate(np.where(np.arange(len(loss)) > len(loss) // 3, smoothed, np.inf))
    worse = np.flatnonzero(smoothed > 4 * best)
    end = int(worse[0]) + 1 if len(worse) else len(loss)
    return Made(made.lr[:end], smoothed[:end], made.right)


def falls_at_once(random: Random, noise: float = 0.03) -> Made:
    shape = Shape.random(random)
    lr = np.geomspace(shape.falls * 10 ** random.uniform(-0.3, 0.3), shape.breaks * 10, int(random.integers(60, 300)))
    return of(shape, lr, shape(lr) + noise * shape.scale * random.normal(size=len(lr)))


def linear(random: Random, ends: tuple[float, float] = (1.5, 4), noise: float = 0.03) -> Made:
    """From 0; a mean over many steps, so that it falls within the first rows."""
    shape = Shape.random(random, decades=(0.7, 1.5))
    lr = np.linspace(0, shape.breaks * random.uniform(*ends), int(random.integers(60, 400)))
    return of(shape, lr, shape(lr) + noise * shape.scale * random.normal(size=len(lr)))


def drifting(random: Random) -> Made:
    """A linear ramp that never breaks: falls within the first tenth, is flat, and rises slowly."""
    shape = Shape.random(random, decades=(0.8, 1.2))
    shape = Shape(shape.falls, shape.breaks, shape.steepness, 0.5, shape.scale, abs(shape.floor))
    lr = np.linspace(0, shape.breaks * random.uniform(0.3, 1), int(random.integers(80, 300)))
    return of(shape, lr, shape(lr) + 0.02 * shape.scale * random.normal(size=len(lr)))


def heavy(random: Random) -> Made:
    """An epoch a row, ragged beyond the break, over decades of loss."""
    shape = Shape.random(random)
    lr = exponential(shape, random, int(random.integers(60, 120)))
    clean = shape(lr) - shape.floor + 0.3 * shape.scale
    beyond = lr > shape.breaks / 2
    ragged = clean * np.exp(np.where(beyond, 0.3, 0.02) * random.normal(size=len(lr)))
    return Made(lr, ragged, of(shape, lr, ragged).right)


def cut(random: Random, kind: Callable[[Random], Made]) -> Made:
    """Ends before it broke, still falling: the last rate is the best that is known."""
    made = kind(random)
    assert made.right is not None
    kept = made.lr <= made.right[0] / random.uniform(1.2, 3)
    kept[: max(30, len(made.lr) // 3)] = True
    lr, loss = made.lr[kept], made.loss[kept]
    return Made(lr, loss, (float(min(made.right[0], lr[-1])) / 2, float(lr[-1])))


def broken(random: Random) -> Made:
    """NaN where it broke, in a few places before, and one wild value."""
    made = ramp(random)
    loss = made.loss.copy()
    end = int(np.argmax(made.lr > made.right[1] * 4)) if made.right and made.lr[-1] > made.right[1] * 4 else len(loss)
    loss[end:] = math.nan
    loss[random.integers(0, max(1, end // 2), 3)] = math.nan
    loss[int(random.integers(3, max(4, end // 2)))] += 5 * abs(np.nanmax(loss[: end // 2]))
    return Made(made.lr, loss, made.right)


def seldom(random: Random) -> Made:
    """Logged at every fifth step."""
    made = ramp(random, n=int(random.integers(200, 600)))
    return Made(made.lr, np.where(np.arange(len(made.lr)) % 5, math.nan, made.loss), made.right)


def hump(random: Random) -> Made:
    """A passing instability on the way down."""
    shape = Shape.random(random, decades=(2, 3))
    lr = exponential(shape, random)
    at = shape.falls * 10 ** random.uniform(0, 0.6)
    bump = 0.6 * shape.scale * np.exp(-((np.log10(lr / at) / 0.08) ** 2))
    return of(shape, lr, shape(lr) + bump + 0.03 * shape.scale * random.normal(size=len(lr)))


def nothing(random: Random, kind: str) -> Made:
    """Noise, a loss that only rises, or noise that was averaged."""
    n = int(random.integers(40, 400))
    lr = np.geomspace(1e-6, 1, n) if random.random() < 0.5 else np.linspace(0, 1, n)
    loss = 2.3 + 0.05 * random.normal(size=n)
    if kind == "rising":
        loss += 3 * lr
    if kind == "averaged":
        loss = average(loss, 0.95, None, loss[0])
    return Made(lr, loss, None)


def measured(random: Random, kind: str) -> Made:
    """A metric that climbs to a plateau: right is where it arrives."""
    lr = np.linspace(0, 1, int(random.integers(60, 300))) * 10 ** random.uniform(-2, 1)
    arrives = lr[-1] * random.uniform(0.1, 0.4)
    if kind == "exponential":
        lr = np.geomspace(lr[-1] * 1e-6, lr[-1], len(lr))
    x = lr / arrives
    rise = np.minimum(1, np.log1p(9 * x) / math.log(10)) if kind != "exponential" else 1 / (1 + (x * 3) ** -2.0)
    if kind == "falling":
        rise -= 0.4 * np.maximum(0, x - 1.5)
    metric = 0.1 + 0.6 * rise + 0.02 * random.normal(size=len(lr))
    # 5 % below the plateau, as a careful reader takes it
    reached = arrives * ((19 / 9) ** 0.5 if kind == "exponential" else (10**0.95 - 1) / 9)
    return Made(lr, np.full(len(lr), math.nan), (reached / 1.5, max(reached * 1.5, arrives)), metric)


KINDS: dict[str, Callable[[Random], Made]] = {
    "exponential": ramp,
    "noisy": lambda random: ramp(random, 0.12),
    "nearly-noiseless": lambda random: ramp(random, 1e-4),
    "few-points": lambda random: ramp(random, 0.03, int(random.integers(22, 40))),
    "many-points": lambda random: ramp(random, 0.3, int(random.integers(2000, 5000))),
    "falls-at-once": falls_at_once,
    "falls-at-once-noiseless": lambda random: falls_at_once(random, 1e-4),
    "epoch-a-point": heavy,
    "averaged-from-zero": lambda random: averaged(random, 0.98, 2),
    "averaged-uncorrected": lambda random: averaged(random, float(random.choice([0.9, 0.95, 0.98])), None),
    "averaged-from-first": lambda random: averaged(random, 0.95, None, from_first=True),
    "averaged-corrected": lambda random: averaged(random, 0.98, 1),
    "linear": linear,
    "linear-breaks-early": lambda random: linear(random, (15, 40)),
    "linear-noisy": lambda random: linear(random, noise=0.1),
    "linear-never-breaks": drifting,
    "cut": lambda random: cut(random, ramp),
    "cut-linear": lambda random: cut(random, linear),
    "broken": broken,
    "logged-seldom": seldom,
    "hump": hump,
    "noise": lambda random: nothing(random, "noise"),
    "averaged-noise": lambda random: nothing(random, "averaged"),
    "rising": lambda random: nothing(random, "rising"),
    "metric-linear": lambda random: measured(random, "linear"),
    "metric-exponential": lambda random: measured(random, "exponential"),
    "metric-falling": lambda random: measured(random, "falling"),
}


def curves(kind: str, count: int) -> Iterator[Made]:
    """The same for the same kind and number."""
    for number in range(count):
        yield KINDS[kind](np.random.default_rng([number, *kind.encode()]))


def row(kind: str, made: list[Made]) -> tuple[int, list[str]]:
    """How many of them are read right, and a row of the table."""
    read = [(one, one.read()) for one in made]
    right = sum(one.is_right(bounds) for one, bounds in read)
    widths, held, off = [], 0, []
    for one, bounds in read:
        if one.right and bounds.interval and bounds.max_lr:
            low, high = bounds.interval["max_lr"]
            widths.append(high / low)
            held += low <= one.right[1] and high >= one.right[0]
            off.append(math.log10(bounds.max_lr / math.sqrt(one.right[0] * one.right[1])))
    silent = sum(bounds.max_lr is None for _, bounds in read)
    cells = [f"{median(widths):.3g}", f"{held / len(widths):.0%}", f"{median(off):+.2f}"] if widths else ["", "", ""]
    return right, [kind, f"{right}/{len(made)}", str(silent), *cells]


def main() -> None:
    """Read the kinds named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", help=f"of {', '.join(KINDS)}; all unless named")
    parser.add_argument("--per-kind", type=int, default=40)
    chosen = parser.parse_args()
    if unknown := set(chosen.kinds) - set(KINDS):
        parser.error(f"kinds: must be of {', '.join(KINDS)}, but got {', '.join(sorted(unknown))}")
    found = [row(kind, list(curves(kind, chosen.per_kind))) for kind in chosen.kinds or KINDS]
    total = [["all", f"{sum(right for right, _ in found)}/{len(found) * chosen.per_kind}", "", "", "", ""]]
    head = ["kind", "right", "inconclusive", "interval x", "holds it", "decades off"]
    print(markdown(head, [cells for _, cells in found] + total))


if __name__ == "__main__":
    main()

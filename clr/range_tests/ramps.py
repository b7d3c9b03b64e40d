"""Bracket and ramps: at which order of magnitude of the rate a network learns, and where that ends."""

import math
from dataclasses import dataclass

import numpy as np

from clr.range_tests.method import METHOD, ramp
from clr.range_tests.signal import Array, Start, Valley, gaps_filled, read_valley
from clr.run import Curve, Plan, Run

Ran = list[tuple[Run, Curve]]


@dataclass(frozen=True)
class Ends:
    """Lowest and highest rate that may be tried, as logarithms; infinite where the caller has not said."""

    lowest: float
    highest: float

    @classmethod
    def of(cls, lowest: float | None, highest: float | None) -> "Ends":
        """From the rates themselves."""
        return cls(math.log(lowest) if lowest else -math.inf, math.log(highest) if highest else math.inf)

    @property
    def bracket(self) -> tuple[float, float]:
        """Where the first ramp begins and ends."""
        of = METHOD.bracket
        low, high = self.lowest, self.highest
        if math.isinf(low):
            low = min(of.lowest, high - of.narrowest)
        if math.isinf(high):
            high = max(of.highest, low + of.narrowest)
        return low, high


@dataclass(frozen=True)
class Bracket:
    """What the ramps over many decades say.

    Args:
        start: loss of an untouched network; None where it is never finite.
        valley: the reading of the last of them, the one that tells where the training breaks.
        bottom: the lowest rate that was tried.
        runs: all of them.
        saturation: the logarithm of a rate from which on all train alike, as where an optimizer bounds its steps;
            infinite where none was seen.
    """

    start: Start | None
    valley: Valley
    bottom: float
    runs: Ran
    saturation: float = math.inf

    @property
    def unused(self) -> bool:
        """Whether all rates train alike."""
        return self.saturation <= self.bottom

    @property
    def broke_at_once(self) -> bool:
        """Whether hardly any rate was low enough."""
        return not self.valley.learned and self.valley.broke and self.valley.edge < self.bottom + METHOD.ramps.down


def bracket(steps: int, seed: int, ends: Ends) -> Plan[Bracket]:
    """A ramp over eight decades, and further ones until the training breaks within, all on the same batches.

    They end, too, where a ramp at rates a thousand times as high does no other than the one before.

    Args:
        steps: of the first; a further one takes half.
        seed: of them all.
        ends: rates that none goes beyond.
    """
    of = METHOD.bracket
    low, high = ends.bracket
    found = yield from _bracket(low, high, steps, seed, [])
    for _ in range(of.most):  # downwards: without a start nothing can be read
        if math.isfinite(ends.lowest) or not (found.start is None or found.broke_at_once):
            break
        low -= of.beyond
        found = yield from _bracket(low, low + of.beyond + METHOD.ramps.down, steps // 2, seed, found.runs)
    for _ in range(of.most):
        if found.start is None or found.valley.broke or math.isfinite(ends.highest):
            break
        again = yield from _bracket(high - math.log(10), high + of.beyond, steps // 2, seed, found.runs, found.start)
        saturation = math.inf
        if not again.valley.broke:
            lower, higher = again.runs[-2:]
            saturation = _saturation(lower, higher, exactly=lower is again.runs[0])
        found = Bracket(found.start, again.valley, found.bottom, again.runs, saturation)
        if math.isfinite(saturation):
            break
        high += of.beyond
    return found


def _saturation(lower: tuple[Run, Curve], higher: tuple[Run, Curve], exactly: bool) -> float:
    """Logarithm of the rate that the lower of two ramps begins at, if they do alike; else infinite.

    Args:
        lower, higher: on the same batches.
        exactly: whether alike means to the digit: a network that has not moved yet does much like one that died.
    """
    (run, curve), (_, above) = lower, higher
    n = min(len(curve.loss), len(above.loss))
    apart = np.asarray(above.loss[:n]) - np.asarray(curve.loss[:n])
    noise = 0.0 if exactly else METHOD.proofs.clearly * float(apart.std()) / math.sqrt(n)
    return math.log(run.base_lr) if abs(float(apart.mean())) <= noise and np.isfinite(apart).all() else math.inf


def _bracket(low: float, high: float, steps: int, seed: int, before: Ran, start: Start | None = None) -> Plan[Bracket]:
    run = ramp(low, high, max(8, steps), seed)
    (curve,) = yield [run]
    loss = gaps_filled(curve.loss)
    known = start or Start.of(loss)
    valley = read_valley(rates_of(run), [loss], known or Start(0.0, 1.0, 1.0), METHOD.bracket.width, settles=True)
    return Bracket(known, valley, low, [*before, (run, curve)])


@dataclass(frozen=True)
class Ramps:
    """What two slower ramps, on seeds of their own, say together and each by itself.

    Args:
        x: logarithms of their rates.
        both, each: readings of their mean, and of each.
        runs: the two.
    """

    x: Array
    both: Valley
    each: list[Valley]
    runs: Ran

    @property
    def apart(self) -> float:
        """Factor between the rates at which they broke."""
        return math.exp(max(valley.edge for valley in self.each) - min(valley.edge for valley in self.each))

    @property
    def onset(self) -> tuple[float, float] | None:
        """Lowest and highest rate at which a loss began to fall; None when none fell."""
        onsets = [math.exp(valley.onset) for valley in self.each if valley.onset is not None]
        return (min(onsets), max(onsets)) if onsets else None


def ramps(around: Bracket, steps: int, seeds: list[int], ends: Ends) -> Plan[Ramps]:
    """Ramps around the edge of what was bracketed.

    Args:
        around: a bracket with a start.
        steps: of each.
        seeds: one for each.
        ends: rates that none goes beyond.
    """
    assert around.start is not None
    edge, of = min(around.valley.edge, around.saturation), METHOD.ramps
    ended = around.valley.broke or math.isfinite(around.saturation)
    down, up = (of.down, of.up) if ended else (math.log(10), math.log(10))
    high = min(edge + up, ends.highest)
    made = [ramp(min(edge - down, high - of.up), high, steps, seed) for seed in seeds]
    curves = yield made
    x, losses = rates_of(made[0]), [gaps_filled(curve.loss) for curve in curves]
    together = read_valley(x, losses, around.start, of.width)
    each = [read_valley(x, [loss], around.start, of.width) for loss in losses]
    return Ramps(x, together, each, list(zip(made, curves, strict=True)))


def rates_of(run: Run) -> Array:
    """Logarithms of a ramp's rates."""
    return np.linspace(math.log(run.base_lr), math.log(run.max_lr), run.steps)

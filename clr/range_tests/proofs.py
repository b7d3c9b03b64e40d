"""Proofs: short whole cycles at several rates, all of one length, from one start, on the same batches."""

import math
from dataclasses import dataclass

import numpy as np

from clr.range_tests.bounds import RATIO
from clr.range_tests.method import METHOD, rate
from clr.range_tests.ramps import Ran
from clr.range_tests.signal import Array, Start, gaps_filled
from clr.run import TAIL, Curve, Plan, Run
from clr.schedules.cycles import RISE


@dataclass(frozen=True)
class Proof:
    """A short cycle: the logarithm of its peak, its losses, cut off at the ceiling, and the metric at its end."""

    x: float
    losses: Array
    metric: float | None

    @classmethod
    def of(cls, x: float, run: Run, curve: Curve, start: Start) -> "Proof":
        """What ran; a training that broke has learnt nothing, so its end is the ceiling."""
        ceiling = start.level + METHOD.proofs.ceiling * start.sd
        losses = np.minimum(np.nan_to_num(gaps_filled(curve.loss), nan=ceiling), ceiling)
        if curve.diverged or len(losses) < run.steps:
            losses = np.full(run.steps, ceiling)
        return cls(x, losses, curve.metric[-1] if curve.metric and not curve.diverged else None)

    @property
    def tail(self) -> Array:
        """The losses of its last sixth, at least three."""
        return self.losses[-max(3, len(self.losses) // TAIL) :]

    @property
    def end(self) -> float:
        """Their mean."""
        return float(self.tail.mean())

    @property
    def error(self) -> float:
        """Standard error of the end."""
        return float(self.tail.std()) / math.sqrt(len(self.tail))


class Proofs:
    """Proofs of one length and one seed, in the order of their rates.

    Two of them saw the same batches, so what they differ by says more than either does.

    Args:
        steps: of each, even.
        seed: of all.
        start: loss of an untouched network.
    """

    def __init__(self, steps: int, seed: int, start: Start) -> None:
        self.steps, self.seed, self.start = steps - steps % 2, seed, start
        self.proofs: list[Proof] = []
        self.runs: Ran = []

    def prove(self, rates: list[float]) -> Plan[None]:
        """Train at these rates, side by side."""
        runs = [_cycle(x, self.steps, self.seed) for x in rates]
        curves = yield runs
        self.runs += zip(runs, curves, strict=True)
        made = [Proof.of(x, run, curve, self.start) for x, run, curve in zip(rates, runs, curves, strict=True)]
        self.proofs = sorted([*self.proofs, *made], key=lambda proof: proof.x)

    def bracket_best(self, most: int, highest: float, high_broke: bool) -> Plan[None]:
        """Go on, one rate at a time, until the best has a worse one on either side, or there are ``most`` proofs.

        Where three have learnt nothing, others as long would not either.
        """
        while len(self.proofs) < most and not self.bracketed and (len(self.proofs) < 3 or self.learnt):
            x = self._next(high_broke)
            if x > highest:
                if self.highest_is_best and self.proofs[-1].x >= highest:
                    return  # no higher rate may be tried, and no lower one is better
                x = highest
            yield from self.prove([x])

    def _next(self, high_broke: bool) -> float:
        low, high = self.proofs[0], self.proofs[-1]
        gap = METHOD.proofs.step * METHOD.proofs.stride[min(len(self.proofs), 4) - 2]
        if not self.learnt and high_broke:
            return low.x - 2 * gap
        if len(self.proofs) > 2 and not self.told_apart:
            up = not high_broke  # networks that broke are alike, and so are those that have not begun to learn
        elif len(self.proofs) == 2:
            up = not self.clearly_better(low, high)  # below the limit of stability more is better: a draw goes up
        else:
            up = self.highest_is_best
        return high.x + gap if up else low.x - gap

    def clearly_better(self, one: Proof, other: Proof) -> bool:
        """Whether ``one`` ended lower by more than the noise of the difference."""
        difference = other.tail - one.tail
        error = float(difference.std()) / math.sqrt(len(difference))
        return float(difference.mean()) > METHOD.proofs.clearly * error

    @property
    def best(self) -> Proof:
        """The one that ended lowest."""
        return min(self.proofs, key=lambda proof: proof.end)

    @property
    def at(self) -> int:
        """Its place among the rates."""
        return self.proofs.index(self.best)

    @property
    def bracketed(self) -> bool:
        """Whether there is a worse one on either side of the best."""
        return 0 < self.at < len(self.proofs) - 1

    @property
    def highest_is_best(self) -> bool:
        """Whether nothing says that a rate could be too high."""
        return self.at == len(self.proofs) - 1

    @property
    def lowest_is_best(self) -> bool:
        """Whether nothing says that a rate could be too low."""
        return self.at == 0

    @property
    def limit(self) -> float:
        """Logarithm of the rate half-way from the best to the first above it that broke; infinite where none did."""
        ceiling = self.start.level + METHOD.proofs.ceiling * self.start.sd
        broken = [proof.x for proof in self.proofs[self.at :] if proof.end >= ceiling]
        return (self.best.x + broken[0]) / 2 if broken else math.inf

    @property
    def told_apart(self) -> bool:
        """Whether the best is clearly better than the worst."""
        return self.clearly_better(self.best, max(self.proofs, key=lambda proof: proof.end))

    @property
    def learnt(self) -> bool:
        """Whether the best ended clearly below the start; or below it, and below the lowest rate by more than noise."""
        noise = math.hypot(self.best.error, self.start.sd / math.sqrt(len(self.best.tail)))
        if self.fall > METHOD.judgement.learnt * noise:
            return True
        lowest = self.proofs[0]  # higher rates that only did harm show nothing
        return self.fall > 0 and lowest.end - self.best.end > noise / 2 and self.clearly_better(self.best, lowest)

    @property
    def fall(self) -> float:
        """How far below the start the best ended."""
        return self.start.level - self.best.end

    @property
    def harmless(self) -> float:
        """Logarithm of the highest rate that did not end clearly worse than the lowest."""
        return max(proof.x for proof in self.proofs if not self.clearly_better(self.proofs[0], proof))

    @property
    def fall_by_the_middle(self) -> float:
        """Share of the best proof's fall that was done by its middle: small where it spent half of its steps on the
        plateau that it began on."""
        losses, n = self.best.losses, len(self.best.losses)
        start = max(self.start.level, float(losses[: max(3, n // 8)].mean()))
        fall = start - self.best.end
        return (start - float(losses[int(0.4 * n) : int(0.6 * n)].mean())) / fall if fall > 0 else 0.0

    @property
    def vertex(self) -> tuple[float, float]:
        """Logarithm of the best rate, and the curvature of the ends about it.

        The minimum of the parabola through the best and its neighbours, no nearer to a neighbour than to the best; a
        third of a step outside where the best has no neighbour there.
        """
        x, ends = np.array([proof.x for proof in self.proofs]), np.array([proof.end for proof in self.proofs])
        step, at = METHOD.proofs.step, self.at
        if self.bracketed:
            near = slice(at - 1, at + 2)
            curvature, slope, _ = np.polyfit(x[near] - x[at], ends[near] - ends[at], 2)
            curvature = max(curvature, 1e-12)
            lowest, highest = (x[at - 1] - x[at]) / 2, (x[at + 1] - x[at]) / 2
            return float(x[at] + np.clip(-slope / (2 * curvature), lowest, highest)), float(curvature)
        outwards = -step / 3 if self.lowest_is_best else step / 3
        return float(x[at] + outwards), float(np.ptp(ends)) / (2 * step**2) + 1e-12

    @property
    def middle(self) -> float:
        """Logarithm of the rate between the lowest and the highest."""
        return (self.proofs[0].x + self.proofs[-1].x) / 2

    def vertex_with(self, curvature: float) -> float:
        """The same of two proofs, when the curvature is known from others; within one step of their middle.

        Shorter proofs may have seen less of the fall than these, and so of its curvature.
        """
        low, high = self.proofs[0], self.proofs[-1]
        least = METHOD.proofs.curvature * max(0.0, self.fall)
        away = (low.end - high.end) / (2 * max(curvature, least, 1e-12) * (high.x - low.x))
        return self.middle + float(np.clip(away, -METHOD.proofs.step, METHOD.proofs.step))


def _cycle(x: float, steps: int, seed: int) -> Run:
    top, up = rate(x), min(max(1, round(RISE * steps)), steps - 1)
    return Run(
        policy="triangular",
        base_lr=top / RATIO,
        max_lr=top,
        step_size_up=up,
        step_size_down=steps - up,
        steps=steps,
        seed=seed,
        evaluate_every=steps,
        val_limit=METHOD.proofs.val_limit,
    )

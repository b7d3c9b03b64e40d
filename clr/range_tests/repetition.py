"""One repetition of the range test: bracket, ramps, and a proof at the rates they point to.

A ramp alone cannot tell the best rate of a training: the network has learnt at the lower rates before it meets the
higher ones, so the curve lags the rate, and lags less the slower the ramp. Two limits bound the lag. Where stability
is what limits the rate, the edge of the valley is the answer whatever the ramp's speed. Where the distance travelled
is (the network needs a certain sum of rates to leave its start), the answer falls as one over the length. The ramps say
where the edge is and whether anything was learnt; short triangles at rates between the two limits say the rest.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from clr.range_tests.bounds import RATIO, Confidence, Interval
from clr.range_tests.signal import EDGE, Array, Start, Valley, read_valley
from clr.run import TAIL, Curve, Plan, Run, fresh_seeds

LOWEST, HIGHEST = 1e-7, 10.0
"""Ends of the bracket: below any rate that moves a network, above any but the rarest that do not break it."""

NARROWEST = math.log(1e4)
"""A bracket with one end of the caller's own spans at least this: four decades, the last part of which falls."""

BRACKET_SHARE, RAMP_SHARE, PROOF_SHARE = 1 / 10, 3 / 40, 1 / 4
"""Shares of one repetition's budget: a bracket, two ramps and three proofs fill it. As much as possible goes to the
proofs, since short ones mislead; ramps only say where to put them."""

BRACKET_STEPS, RAMP_STEPS, PROOF_STEPS = 16, 12, 12
"""Fewest steps: two a decade for the bracket and the ramps, and a rise and fall of six steps for a proof."""

FEWEST_STEPS = BRACKET_STEPS + 2 * RAMP_STEPS + 3 * PROOF_STEPS

DOWN, UP = math.log(64), math.log(2)
"""How far the ramps reach below and above the bracket's edge: slower than the bracket, they break earlier, by a factor
of two to thirty between a tenth of the budget and all of it, and never later."""

DECADE = math.log(10)

BRACKET_WIDTH, RAMP_WIDTH = 1 / 40, 1 / 30
"""Smoothing, as a share of the ramp: a fifth of a decade of the bracket's eight, a sixth of an octave in the ramps."""

STEP, BLIND_STEP = math.log(2.5), math.log(4)
"""Spacing of the proofs: half of the width in which a rate is good, an octave and a half to three. When the ramps
learnt nothing the place is known worse, and the first two stand further apart."""

FARTHEST = 8.0
"""Lengths of a proof beyond which the best rate is taken to fall no further: the exponents were checked on trainings of
eight, and of three trainings of 20 to 40 proofs two had their best rate at the proofs' own (docs/decisions/0005)."""

TRIANGLE_AREA = 0.55
"""Mean rate of a triangle from a tenth to the whole of its peak, as a share of the peak."""

POINTS = 100
"""Most evaluations of the metric along a ramp, for the picture; never below half of that, enough to see a plateau's
edge, unless the ramp is shorter."""

VAL_LIMIT = 500
"""Most validation examples behind each of those: a standard error of two points of accuracy at most."""

APART = 4.0
"""Factor between two readings above which they contradict each other: the whole width of a basin of good rates."""

EXPLODED = 3.0
"""A ramp stops once the loss has climbed this many of its falls above its start: the reading cuts it off at one."""


@dataclass(frozen=True)
class Finding:
    """What one repetition says; no rates when it could not be carried out, or neither learnt nor broke.

    Args:
        max_lr, interval: the rate for the whole training, and where else it may lie.
        end: loss at which the best proof ended, and its standard error; None without proofs.
        onset: the lowest and highest rate at which a ramp's loss began to fall; None when none fell.
        confidence: by the number of doubts.
        doubts: what speaks against it, in plain words.
        ramps: over x, the logarithm of the rate: the smoothed mean of the ramps.
        runs: all runs and their curves.
    """

    max_lr: float | None
    interval: Interval | None
    end: tuple[float, float] | None
    onset: Interval | None
    confidence: Confidence
    doubts: list[str]
    ramps: tuple[Array, Array] | None
    runs: list[tuple[Run, Curve]]


@dataclass(frozen=True)
class _Lengths:
    """Steps of the runs, and of the training they stand for."""

    bracket: int
    ramp: int
    proof: int
    training: int

    @classmethod
    def of(cls, budget: int, training: int) -> "_Lengths":
        bracket = max(BRACKET_STEPS, int(BRACKET_SHARE * budget))
        ramp = max(RAMP_STEPS, int(RAMP_SHARE * budget))
        proof = min(int(PROOF_SHARE * budget), (budget - bracket - 2 * ramp) // 3)
        return cls(bracket, ramp, proof - proof % 2, training)


@dataclass(frozen=True)
class _Proof:
    """A short triangle: the logarithm of its peak, the loss it ended at and that loss's standard error."""

    x: float
    end: float
    error: float

    @classmethod
    def of(cls, x: float, run: Run, curve: Curve, start: Start) -> "_Proof":
        ceiling = start.level + 3 * start.sd  # an explosion counts as having learnt nothing
        if curve.diverged or len(curve.loss) < run.steps:
            return cls(x, ceiling, 0.0)
        tail = np.minimum(curve.loss[-max(3, run.steps // TAIL) :], ceiling)
        return cls(x, float(tail.mean()), float(tail.std()) / math.sqrt(len(tail)))


def repetition(
    budget: int, training: int, seed: int, lowest: float | None = None, highest: float | None = None
) -> Plan[Finding]:
    """Bracket, two ramps, two proofs and a third, in at most ``budget`` steps.

    Args:
        budget: steps of all runs together, >= ``FEWEST_STEPS``.
        training: steps of one cycle of the training to be recommended for.
        seed: of this repetition.
        lowest, highest: rates that the bracket spans; None: ``LOWEST`` and ``HIGHEST``. No run goes beyond a highest
            rate of the caller's own, whatever the bracket says.
    """
    steps = _Lengths.of(budget, training)
    bracket_seed, proof_seed, *ramp_seeds = fresh_seeds(seed, "repetition", 4)
    limit = math.log(highest) if highest else math.inf
    bottom = math.log(lowest) if lowest else min(math.log(LOWEST), limit - NARROWEST)
    top = limit if highest else max(math.log(HIGHEST), bottom + NARROWEST)
    bracket = _ramp(bottom, top, steps.bracket, bracket_seed)
    (curve,) = yield [bracket]
    runs = [(bracket, curve)]
    start = Start.of(curve.loss)
    if start is None:
        doubt = "the loss is not finite, even at the lowest rate"
        return Finding(None, None, None, None, "inconclusive", [doubt], None, runs)
    wide = read_valley(_x(bracket), [curve.loss], start, BRACKET_WIDTH)

    low, high = (wide.edge - DOWN, wide.edge + UP) if wide.broke else (wide.edge - DECADE, wide.edge + DECADE)
    ramps = [_ramp(low, min(high, limit), steps.ramp, one) for one in ramp_seeds]
    curves = yield ramps
    runs += zip(ramps, curves, strict=True)
    losses = [curve.loss for curve in curves]
    evidence = _Evidence(start, steps, wide, _x(ramps[0]), losses, math.log(bracket.base_lr), limit)

    rates = evidence.first_two
    while len(evidence.proofs) < 3:
        proofs = [_triangle(rate, steps.proof, proof_seed) for rate in rates]  # one seed: same start, same batches
        curves = yield proofs
        runs += zip(proofs, curves, strict=True)
        for rate, proof, curve in zip(rates, proofs, curves, strict=True):
            evidence.proofs.append(_Proof.of(rate, proof, curve, start))
        rates = [evidence.third]
    return evidence.finding(runs)


class _Evidence:
    """What the runs of one repetition say, as they come in. Rates are logarithms.

    Args:
        start: level and noise of an untouched network.
        steps: lengths of the runs.
        wide: reading of the bracket.
        x, losses: rates and losses of the ramps.
        bottom: the lowest rate of the bracket.
        limit: the highest rate that may be tried or recommended.
    """

    def __init__(
        self,
        start: Start,
        steps: _Lengths,
        wide: Valley,
        x: Array,
        losses: list[list[float]],
        bottom: float,
        limit: float,
    ) -> None:
        self.start, self.steps, self.wide, self.x, self.bottom, self.limit = start, steps, wide, x, bottom, limit
        self.both = read_valley(x, losses, start, RAMP_WIDTH)
        self.each = [read_valley(x, [loss], start, RAMP_WIDTH) for loss in losses]
        # At rate r a proof travels TRIANGLE_AREA * steps * r; the ramp had travelled steps / span * r before it reached
        # r. If distance limits, a proof's best rate is lower by the quotient; if stability does, it is the edge.
        self.area = math.log(max(1.0, TRIANGLE_AREA * steps.proof * float(x[-1] - x[0]) / steps.ramp))
        self.proofs: list[_Proof] = []

    @property
    def broke(self) -> bool:
        """Whether some rate was too high."""
        return self.wide.broke or self.both.broke

    @property
    def first_two(self) -> list[float]:
        """Around the middle of the two limits; around the lower one, and further apart, where nothing was learnt.

        The third has room above them.
        """
        share, gap = (1 / 2, STEP) if self.both.learned else (1, BLIND_STEP)
        centre = min(self.both.edge - share * self.area, self.limit - STEP - gap / 2)
        return [centre - gap / 2, centre + gap / 2]

    @property
    def third(self) -> float:
        """On the side that the first two point to."""
        low, high = self.proofs[:2]
        best = self._best
        if self.start.level - best.end < max(4 * self._end_error, EDGE * self.both.fall):
            # Neither learnt: too high where the ramps ended at a break, too low where they did not.
            return low.x - 2 * STEP if self.broke else high.x + STEP
        if high.end <= best.end + math.sqrt(2) * best.error:
            return high.x + STEP  # below the limit of stability more is better, so a draw goes up
        return low.x - STEP

    @property
    def _best(self) -> _Proof:
        return min(self.proofs, key=lambda proof: proof.end)

    @property
    def _highest_is_best(self) -> bool:
        return self._best.x == max(proof.x for proof in self.proofs)

    @property
    def _lowest_is_best(self) -> bool:
        return self._best.x == min(proof.x for proof in self.proofs)

    @property
    def _end_error(self) -> float:
        """Standard error of a proof's end, were its losses as noisy as an untouched network's."""
        return self.start.sd / math.sqrt(max(3, self.steps.proof // TAIL))

    @property
    def _noise(self) -> float:
        """Standard error of the proofs' ends, typically."""
        return max(float(np.median([proof.error for proof in self.proofs])), 1e-6 * self.start.sd)

    def _vertex(self) -> float:
        """The minimum of the parabola through the proofs, within one step of the best of them.

        A curvature below the noise is taken as the noise: then a draw stays near the middle rate.
        """
        proofs = sorted(self.proofs, key=lambda proof: proof.x)
        u = np.array([(proof.x - proofs[1].x) / STEP for proof in proofs])
        _, slope, curvature = np.linalg.solve(np.stack([np.ones(3), u, u * u], axis=1), [proof.end for proof in proofs])
        if curvature <= 0:
            return self._best.x
        best = proofs.index(self._best)
        vertex = -slope / (2 * max(curvature, self._noise))
        return float(proofs[1].x + STEP * np.clip(vertex, max(u[0], u[best] - 1), min(u[2], u[best] + 1)))

    def finding(self, runs: list[tuple[Run, Curve]]) -> Finding:
        """The rate for the whole training, its interval and what speaks against it."""
        top = self._vertex()
        if not self.both.learned:  # distance limits: the exponent is from 1/2 to 1, and 1/2 gives the highest place
            top = min(top, self.both.edge - self.area / 2)
        # From a proof's length to the training's, the best rate goes as length ** -g: 0 if stability limits it, 1/2 if
        # gradient noise does, 1 if distance does. The middle of the first two, or of all where nothing was learnt.
        longer = (0.25 if self.both.learned else 0.5) * math.log(min(FARTHEST, self.steps.training / self.steps.proof))
        if not self.broke and self._highest_is_best:  # nothing says that a rate could be too high
            top, longer = self._best.x, 0.0
        x = min(top - longer, self.limit)
        good = [top] + [proof.x for proof in self.proofs if proof.end <= self._best.end + 2 * self._noise]
        low = top - STEP if self._lowest_is_best else max(min(good), top - STEP)
        high = top + STEP if self._highest_is_best else min(max(good), top + STEP)
        low, high = low - 2 * longer, min(high, self.limit)
        onsets = [math.exp(valley.onset) for valley in self.each if valley.onset is not None]
        confidence, doubts = self._judgement()
        known = confidence != "inconclusive" or self.broke
        return Finding(
            _rate(x) if known else None,
            (_rate(min(low, x)), _rate(max(high, x))) if known else None,
            (self._best.end, self._best.error),
            (min(onsets), max(onsets)) if onsets else None,
            confidence,
            doubts,
            (self.x, self.both.curve),
            runs,
        )

    def _judgement(self) -> tuple[Confidence, list[str]]:
        """None, one or more doubts: high, medium or low. A draw between the proofs is a doubt of the lighter kind."""
        doubts = list(self._doubts())
        grade: Confidence = "high" if not doubts else "medium" if len(doubts) == 1 else "low"
        if max(proof.end for proof in self.proofs) - self._best.end < 4 * self._noise:
            doubts.append("the short cycles were too short or too noisy to tell their rates apart")
            grade = "medium" if grade == "high" else grade
        if self.start.level - self._best.end < 3 * math.hypot(self._best.error, self._end_error):
            return "inconclusive", [
                *doubts,
                "no short cycle lowered the loss beyond its noise: give the test more steps",
            ]
        return grade, doubts

    def _doubts(self) -> Iterator[str]:
        if not self.broke:
            yield "no rate tried was too high: with a higher range_test.max_lr there may be a better one"
        if not self.both.learned:
            yield "the ramps were too short to learn anything: a longer test would tell more"
        if not self.wide.learned and self.wide.broke and self.wide.edge < self.bottom + DOWN:
            yield "the training broke near the lowest rate tried: allow a lower range_test.min_lr"
        apart = math.exp(max(valley.edge for valley in self.each) - min(valley.edge for valley in self.each))
        if apart > APART:
            yield f"the two ramps broke at rates that differ {apart:.0f}-fold"
        if self._lowest_is_best:
            yield "of the three short cycles the one at the lowest rate ended best"
        if self._highest_is_best:
            yield "of the three short cycles the one at the highest rate ended best"


def _ramp(low: float, high: float, steps: int, seed: int) -> Run:
    return Run(
        policy="exponential_ramp",
        base_lr=_rate(low),
        max_lr=_rate(high),
        step_size_up=steps,
        steps=steps,
        seed=seed,
        evaluate_every=math.ceil(steps / POINTS),
        val_limit=VAL_LIMIT,
        explode=EXPLODED,
    )


def _triangle(x: float, steps: int, seed: int) -> Run:
    top = _rate(x)
    return Run(
        policy="triangular",
        base_lr=top / RATIO,
        max_lr=top,
        step_size_up=steps // 2,
        steps=steps,
        seed=seed,
        evaluate_every=steps,
        val_limit=VAL_LIMIT,
    )


def _rate(x: float) -> float:
    """The rate at ``x``, without what logarithms add: 10 rather than 10.000000000000002."""
    return float(f"{math.exp(x):.12g}")


def _x(ramp: Run) -> Array:
    """Logarithms of a ramp's rates."""
    return np.linspace(math.log(ramp.base_lr), math.log(ramp.max_lr), ramp.steps)

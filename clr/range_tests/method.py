"""Every number of the range test that is a choice, with its reason. Rates are natural logarithms throughout."""

import math
from dataclasses import dataclass, field

from clr.run import Run

OCTAVE, DECADE = math.log(2), math.log(10)


@dataclass(frozen=True)
class Bracketing:
    """The first ramp: from far too low to far too high, for the order of magnitude.

    Args:
        lowest, highest: where it begins and ends; no answer is bound to lie between them.
        narrowest: what it spans at least when one end is the caller's own; four decades, the last part of which falls.
        beyond: what a further ramp spans where the first did not break, or broke at its beginning.
        most: further ramps in each direction; three reach from 1e-19 to 1e13.
        share, steps: of a repetition's budget, and the fewest; two steps a decade.
        width: of the smoothing, as a share of the ramp; a fifth of a decade of eight.
    """

    lowest: float = math.log(1e-7)
    highest: float = math.log(10)
    narrowest: float = 4 * DECADE
    beyond: float = 4 * DECADE
    most: int = 3
    share: float = 0.07
    steps: int = 16
    width: float = 1 / 40


@dataclass(frozen=True)
class Ramping:
    """Two slower ramps around the bracket's edge: the picture, and where to begin with proofs.

    Args:
        down, up: how far they reach below and above the edge; slower than the bracket, they break earlier, by a factor
            of two to thirty between a tenth of the budget and all of it, and never later.
        share, steps: of a repetition's budget for each, and the fewest. They are cheap: over nineteen tasks an edge
            tells the best rate of a proof no better than within a factor of three.
        width: of the smoothing, as a share of the ramp; a sixth of an octave.
        offset: the first proofs lie this far below the edge, in the median of those tasks; a ramp reads too high, since
            the network has learnt at the lower rates before it meets the higher ones.
        blind: how much further below it they lie where the ramps learnt nothing, and the edge is that of an untouched
            network, which breaks last.
        points: most evaluations of the metric along a ramp, for the picture.
        explode: a ramp stops once the loss has climbed this many of its falls above its start; the reading cuts it off
            at one.
    """

    down: float = 6 * OCTAVE
    up: float = OCTAVE
    share: float = 0.035
    steps: int = 12
    width: float = 1 / 30
    offset: float = 2.25 * OCTAVE
    blind: float = OCTAVE
    points: int = 100
    explode: float = 3.0


@dataclass(frozen=True)
class Proving:
    """Short whole cycles of the recommended shape, which say what no ramp can: how well a rate trains.

    Args:
        step: between two rates; half of the width in which a rate is good, an octave and a half to three.
        stride: factors of ``step`` for the third, fourth and fifth rate, as the search for the best goes on outwards.
        most: proofs of the first length, so that some of the budget is left for the second.
        share, steps: of a repetition's budget for each of the first length, and the fewest; a rise and a fall.
        clearly: standard errors of a difference, on the same batches, above which it is no draw.
        curvature: of the ends about the best rate, as a share of their fall, at least.
        ceiling: standard deviations above the start at which losses count no further.
        thrown: share of the fall by which a cycle, over ``moment`` of its steps, is above one at a lower rate where it
            has been thrown back.
        moment: share of the steps; long enough to be no single batch, short enough for a network that soon recovers.
        converging: how far below a rate that threw a cycle back the best is at least: within a factor of two of the
            largest that converges (Bengio 2012, Smith 2015).
        scores: times that one of the longest is scored, the last at its end: where it went too far, one before says so.
        val_limit: most validation examples scored each time.
    """

    step: float = math.log(2.5)
    stride: tuple[float, float, float] = (1.0, 1.5, 2.5)
    most: int = 5
    share: float = 0.1
    steps: int = 12
    clearly: float = 2.0
    curvature: float = 0.05
    ceiling: float = 3.0
    thrown: float = 1 / 3
    moment: float = 1 / 12
    converging: float = OCTAVE
    scores: int = 4
    val_limit: int = 500


@dataclass(frozen=True)
class Lengthening:
    """From proofs of two lengths to the training's own: the best rate goes as length ** -exponent.

    Args:
        exponent, spread: what is believed before anything is measured, mean and standard deviation, beside what
            ``pace`` knows of the optimizer. Over nineteen tasks it was .1 to .2 in most and .3 in the mean of Adam's
            family.
        plateau: shares of its fall that a proof had done by its middle, between which it goes from still being on the
            loss it began at to having left it. The tasks that had not left it had less than .2, most others above .6.
        plateau_spread: of the belief there, where exponents from -.5 to 1 were measured: the two lengths decide.
        overfitted: the exponent where scores get worse the further a training goes: so far as rate times steps.
        error: standard deviation of the best rate of one seed's proofs, an octave's half.
    """

    exponent: float = 0.2
    spread: float = 0.25
    plateau: tuple[float, float] = (0.1, 0.4)
    plateau_spread: float = 0.5
    overfitted: float = 1.0
    error: float = 0.4 * OCTAVE


@dataclass(frozen=True)
class Judging:
    """What intervals and confidence promise.

    Args:
        basin: half the width of the rates whose regret is below 1 %: 1.8 octaves in the median of fourteen tasks. An
            answer that errs by more is of no high confidence.
        measured: how far the best of a grid of factor 2 lies from the best rate: half a step, and its noise.
        deviations: standard deviations to each side that an interval holds, nine of ten of a normal distribution.
        apart: factor between two readings above which they contradict each other: the whole width of a basin.
        learnt: standard errors by which a proof must end below the start to have learnt anything.
        seen: share of the way from an untouched network to a constant output by which a score must be better than that
            output's; and, in losses, below which noise can tell the two apart.
        left: share of its fall that a proof must have done by its middle for high confidence: what most do that are off
            the plateau they began on.
        scored: what longer cycles' scores must gain for high confidence, over what their losses fall further, both as
            shares of the whole: with less, more may be fitted than learnt.
        cost: share of the short cycles' fall that an error of the answer's size, and their noise, may come to for high
            confidence.
    """

    basin: float = 0.9 * OCTAVE
    measured: float = 0.65 * OCTAVE
    deviations: float = 1.64
    apart: float = 4.0
    learnt: float = 3.0
    seen: float = 0.05
    left: float = 0.5
    scored: float = 0.5
    cost: float = 0.1


@dataclass(frozen=True)
class Method:
    """The range test's constants, by phase."""

    bracket: Bracketing = field(default_factory=Bracketing)
    ramps: Ramping = field(default_factory=Ramping)
    proofs: Proving = field(default_factory=Proving)
    length: Lengthening = field(default_factory=Lengthening)
    judgement: Judging = field(default_factory=Judging)

    @property
    def fewest_steps(self) -> int:
        """The shortest repetition: a bracket, two ramps and three proofs."""
        return self.bracket.steps + 2 * self.ramps.steps + 3 * self.proofs.steps


METHOD = Method()


def rate(x: float) -> float:
    """The rate at ``x``, its logarithm, without what logarithms add: 10 rather than 10.000000000000002."""
    return float(f"{math.exp(x):.12g}")


def ramp(low: float, high: float, steps: int, seed: int) -> Run:
    """An exponential ramp between two rates, given as logarithms."""
    of = METHOD.ramps
    return Run(
        policy="exponential_ramp",
        base_lr=rate(low),
        max_lr=rate(high),
        step_size_up=steps,
        steps=steps,
        seed=seed,
        evaluate_every=math.ceil(steps / of.points),
        val_limit=METHOD.proofs.val_limit,
        explode=of.explode,
    )

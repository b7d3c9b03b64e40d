"""What the runs of one repetition say together: the best rate of the training, where else it may lie, and any doubts.

How the best rate depends on the length of a training differs from task to task, so it is measured between proofs of two
lengths, as far as they can tell, and believed otherwise.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clr.range_tests.bounds import Confidence, Interval
from clr.range_tests.method import METHOD, rate
from clr.range_tests.pace import pace
from clr.range_tests.proofs import Proofs
from clr.range_tests.ramps import Bracket, Ends, Ramps, Ran
from clr.range_tests.signal import Array


@dataclass(frozen=True)
class Finding:
    """What one repetition says; no rates when it could not be carried out, or neither learnt nor broke.

    Args:
        max_lr, interval: the rate for the whole training, and where else it may lie.
        end: loss at which the best of the shorter proofs ended, and its standard error; None without proofs.
        onset: the lowest and highest rate at which a ramp's loss began to fall; None when none fell.
        confidence: by the doubts.
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
    runs: Ran


@dataclass(frozen=True)
class Best:
    """The best rate of the training, a logarithm, and its standard deviation."""

    x: float
    deviation: float


def at_length(
    known: Sequence[tuple[float, float, float]],
    length: float,
    exponent: float = METHOD.length.exponent,
    spread: float = METHOD.length.spread,
) -> Best:
    """The best rate at one length from those at others, which it goes with as length ** -g.

    Least squares of v = x + g log(N / n) over x, the logarithm of the best rate at length N, and g.

    Args:
        known: v, n and the standard deviation of v: logarithms of the best rates at other lengths.
        length: N.
        exponent, spread: g as it is believed, and the standard deviation of that.
    """
    design = np.array([[1 / error, math.log(length / n) / error] for _, n, error in known] + [[0, 1 / spread]])
    target = np.array([v / error for v, _, error in known] + [exponent / spread])
    covariance = np.linalg.inv(design.T @ design)
    return Best(float((covariance @ design.T @ target)[0]), math.sqrt(covariance[0, 0]))


class Evidence:
    """What the runs of one repetition say, as they come in. Rates are logarithms.

    Args:
        around, seen: bracket and ramps.
        ends: rates that may be tried or recommended.
        training, cycles: steps of one cycle of the training to be recommended for, and how many it has.
        optimizer: what trains, where known.
    """

    def __init__(
        self,
        around: Bracket,
        seen: Ramps,
        ends: Ends,
        training: int,
        cycles: int,
        optimizer: Mapping[str, Any] | None,
    ) -> None:
        self.around, self.seen, self.ends, self.optimizer = around, seen, ends, optimizer
        self.training, self.cycles = training, cycles
        self.first: Proofs | None = None
        self.second: Proofs | None = None

    @property
    def runs(self) -> Ran:
        """All of them, in order."""
        return [*self.around.runs, *self.seen.runs, *(run for one in self._made for run in one.runs)]

    @property
    def taken(self) -> int:
        """Steps of all runs together."""
        return sum(run.steps for run, _ in self.runs)

    @property
    def broke(self) -> bool:
        """Whether some rate was too high."""
        return self.around.valley.broke or self.seen.both.broke

    @property
    def ended(self) -> bool:
        """Whether higher rates than those tried are of no use."""
        return self.broke or self.saturation < math.inf

    @property
    def saturation(self) -> float:
        """A rate from which on all train alike, as far as was seen; infinite where there is none."""
        alike = [one.alike[0] for one in self._made if one.alike]
        return min([self.around.saturation, *alike])

    @property
    def unused(self) -> bool:
        """Whether no rate did better or worse than another, and higher ones would not."""
        assert self.first is not None
        bounded = math.isfinite(self.around.saturation) and not self.first.told_apart
        return bounded or len(self.first.alike) == len(self.first.proofs)

    @property
    def blind(self) -> bool:
        """Whether neither the bracket nor the ramps learnt anything."""
        return not (self.around.valley.learned or self.seen.both.learned)

    @property
    def guess(self) -> float:
        """Where the ramps say that the best rate may be."""
        of = METHOD.ramps
        return self.seen.both.edge - of.offset - (0 if self.seen.both.learned else of.blind)

    @property
    def limit(self) -> float:
        """The highest rate that may be best: the caller's, or short of what broke proofs."""
        return min([self.ends.highest, *(one.limit - self.paced(one.steps, self.training) for one in self._made)])

    @property
    def safe(self) -> float:
        """The highest rate that is recommended: no more than half of one that threw a proof back."""
        back = [one.thrown_back - self.paced(one.steps, self.training) for one in self._made]
        return min([self.limit, *(x - METHOD.proofs.converging for x in back)])

    @property
    def _made(self) -> list[Proofs]:
        return [one for one in (self.first, self.second) if one is not None]

    def paced(self, steps: int, more: int) -> float:
        """How much lower a rate moves the network as far in each step of a longer training; see ``pace``."""
        return pace(self.optimizer, more) - pace(self.optimizer, steps)

    @property
    def thrown_back(self) -> float:
        """Logarithm of the lowest rate at which a cycle was thrown back; infinite where none was."""
        return min((one.thrown_back for one in self._made), default=math.inf)

    @property
    def plateau(self) -> float:
        """From 0 to 1, how far the shorter proofs were still on the plateau that they began on.

        They were where longer ones fell more than twice as far, whatever a small and noisy fall looks like.
        """
        if self.first is None:
            return 0.0
        further = self.second is not None and self.second.learnt and self.second.fall > 2 * self.first.fall
        if further or not self.first.learnt:
            return 1.0
        low, high = METHOD.length.plateau
        return float(np.clip((high - self.first.fall_by_the_middle) / (high - low), 0, 1))

    @property
    def on_plateau(self) -> bool:
        """Whether they had hardly left it."""
        return self.plateau > 0.5

    @property
    def learnt(self) -> bool:
        """Whether proofs of either length lowered the loss, or scores bear the longest out where it is too noisy."""
        return any(one.learnt for one in self._made) or (bool(self._made) and self._made[-1].scored)

    @property
    def only_a_constant(self) -> bool:
        """Whether the longest did no better than one output for all examples."""
        return bool(self._made) and self._made[-1].only_a_constant

    @property
    def borne_out(self) -> bool:
        """Whether the longer proofs learnt too, and their best rate is within a step of where it was looked for."""
        if self.first is None or self.second is None:
            return True
        away = abs(self.second.vertex_with(self.first.vertex[1]) - self.second.middle)
        return self.second.learnt and away < 0.99 * METHOD.proofs.step

    @property
    def _further(self) -> tuple[float, float] | None:
        """What the longer proofs' best lowered the loss and bettered the score by, each as a share of the whole.

        0 for a loss that fell by no more than noise; None where that says nothing.
        """
        if self.first is None or self.second is None or not (self.first.learnt and self.second.learnt):
            return None
        before, after, usual = self.first.best_score, self.second.best, self.second.untouched.usual
        if before is None or after.score is None or not max(before.value, after.score) > usual:
            return None
        fell, noise = self.first.best.end - after.end, math.hypot(self.first.best.error, after.error)
        gained = (after.score - before.value) / (max(before.value, after.score) - usual)
        return (fell / self.second.fall if fell > METHOD.proofs.clearly * noise else 0.0), gained

    @property
    def gained(self) -> float:
        """What scores gained where losses fell further, over what these fell; infinite where that says nothing."""
        fell, gained = self._further or (0.0, 0.0)
        return gained / fell if fell else math.inf

    @property
    def overfits(self) -> bool:
        """Whether longer cycles fitted more and scored worse, or the longest scored best before their ends.

        Where the loss fell no further, or longer ones gained well, a little worse is noise.
        """
        last, of = self.second or self.first, METHOD.judgement
        if last is None or last.best_score is None or last.best_score.value <= last.untouched.usual:
            return False
        lost = self._further is not None and self._further[1] < -of.cost
        return lost or self.gained < 0 or last.went_too_far(0.0 if self.gained < of.scored else of.cost)

    def _as_far(self) -> Best:
        """The rate at which the training goes as far as what scored best did."""
        made = [one.best_score for one in self._made]
        score, of, whole = max(one for one in made if one is not None), METHOD.length, self.training * self.cycles
        longer = math.log(whole / score.steps)
        x = score.x - of.overfitted * longer - self.paced(score.steps, whole)
        return Best(x, math.hypot(2 * of.error, of.spread * longer))

    def best(self) -> Best:
        """The best rate of the training: from proofs of one or two lengths, or from the ramps alone."""
        of = METHOD.length
        if self.first is None:
            return Best(self.guess, 4 * of.error)
        if self.overfits:
            return self._as_far()
        if not self.broke and self.first.highest_is_best:
            return Best(self.first.best.x, 2 * of.error)  # nothing says that a rate could be too high
        spread = of.spread + self.plateau * (of.plateau_spread - of.spread)
        return at_length(self._readings, self.training, of.exponent, spread)

    @property
    def _readings(self) -> list[tuple[float, int, float]]:
        """What proofs of either length say of the best rate, how long they were, and how far that errs.

        They are rates at which the optimizer's steps are as large in the whole training as they were in the proofs.
        """
        assert self.first is not None
        error, made = METHOD.length.error, []
        x, curvature = self.first.vertex
        if self.first.learnt or self.second is None:
            made.append((x, self.first.steps, error if self.first.bracketed else 2 * error))
        if self.second is not None:
            known = curvature if self.first.learnt else 0.0
            seen = self.second.proofs[0].x
            if self.second.learnt or self.second.scored:
                seen = self.second.vertex_with(known) if len(self.second.proofs) == 2 else self.second.vertex[0]
            made.append((seen, self.second.steps, error))
        return [(x - self.paced(n, self.training), n, error) for x, n, error in made]

    @property
    def _apart(self) -> float:
        """How far apart what the two lengths say is, beyond what is believed of length."""
        if len(self._readings) < 2:
            return 0.0
        (x, n, _), (longer_x, longer_n, _) = self._readings
        return abs(x - longer_x - METHOD.length.exponent * math.log(longer_n / n))

    def finding(self) -> Finding:
        """The rate for the whole training, its interval and what speaks against it."""
        best, step = self.best(), METHOD.proofs.step
        likely = min(best.x, self.safe)
        prudence = self.first.prudence(best.deviation) if self.first is not None and self.second is None else 0.0
        x = min(likely, best.x - prudence)
        reach = math.hypot(METHOD.judgement.deviations * best.deviation, METHOD.judgement.measured)
        low, high = min(x, likely - reach), min(best.x, self.limit) + reach
        if self.first is not None:
            low -= step if self.first.lowest_is_best else 0
            high += step if self.first.highest_is_best else 0
        confidence, doubts = self._judgement(best)
        known = confidence != "inconclusive" or self.broke
        return Finding(
            rate(x) if known else None,
            (rate(low), rate(max(x, min(high, self.limit)))) if known else None,
            None if self.first is None else (self.first.best.end, self.first.best.error),
            self.seen.onset,
            confidence,
            doubts,
            (self.seen.x, self.seen.both.curve),
            self.runs,
        )

    def _judgement(self, best: Best) -> tuple[Confidence, list[str]]:
        if self.first is None:
            return "low", ["read from ramps alone, before any short cycle was trained"]
        doubts = list(self._doubts(best))
        if not self.broke and self.first.highest_is_best and self.ends.highest == math.inf:
            return "inconclusive", [
                *doubts,
                "the higher the rate the lower the loss, without end: is it bounded below?",
            ]
        proofs = [pair for one in self._made for pair in one.runs]
        if all(curve.diverged for _, curve in proofs):
            lowest = min(run.max_lr for run, _ in proofs)
            doubts.insert(0, f"every short cycle diverged, at {lowest:.3g} too: are all values in the data finite?")
        elif self.unused:
            return "inconclusive", [*doubts, "no rate did better or worse than another: is the learning rate used?"]
        if not self.learnt:
            missed = "lowered the loss beyond its noise"
            if self.only_a_constant:
                missed = "did better than one output for all examples"
            return "inconclusive", [*doubts, f"no short cycle {missed}: give the test more steps"]
        reservations = list(self._reservations(best))
        return "low" if doubts else "medium" if reservations else "high", doubts + reservations

    def _reservations(self, best: Best) -> Iterator[str]:
        """What keeps an answer without a doubt from being of high confidence."""
        assert self.first is not None
        if self.saturation < math.inf:
            yield f"from {rate(self.saturation):.3g} on all rates train alike: the optimizer bounds its steps"
        if self.cycles > 1 and self.runs[-1][0].steps < self.training:
            yield "the training goes over its data far more often than any cycle did: whether it overfits was not seen"
        if self.gained < METHOD.judgement.scored:
            yield "longer cycles lowered the loss by more than they bettered the score: more may be fitted than learnt"
        if self.safe < min(best.x, self.limit):
            yield f"a cycle at {rate(self.thrown_back):.3g} lost much of its fall on the way: half of that is the most"
        if self._apart > METHOD.judgement.basin:
            yield f"cycles of one length are best at {math.exp(self._apart):.2g} times the rate of those of the other"
        if not self.first.told_apart:
            yield "the short cycles were too short or too noisy to tell their rates apart"
        if self.first.fall_by_the_middle < METHOD.judgement.left and not self.on_plateau:
            yield "the short cycles spent much of their steps near the loss they began at"
        if self.first.cost(best.deviation) > METHOD.judgement.cost:
            yield "the short cycles are so steep about the best rate, or so noisy, that a small error may cost much"
        if any(one.unseeded for one in self._made):
            yield "runs of one seed began at different losses: what is random must follow from the run's seed"
        if all(one.contradicted for one in self._made):
            yield "the metric got worse as the loss fell: too much is fitted, or the direction is the wrong way round"
        if best.deviation > METHOD.judgement.basin and self.second is not None:
            yield "the training is so much longer than the short cycles that its best rate is less certain than theirs"

    def _doubts(self, best: Best) -> Iterator[str]:
        assert self.first is not None
        count = len(self.first.proofs)
        if not self.ended:
            yield "no rate tried was too high: with a higher range_test.max_lr there may be a better one"
        if self.around.broke_at_once:
            yield "the training broke near the lowest rate tried: allow a lower range_test.min_lr"
        if self.on_plateau:
            yield "the short cycles had hardly left the loss they began at: a longer test would tell more"
        if self.first.lowest_is_best:
            yield f"of the {count} short cycles the one at the lowest rate ended best"
        if self.first.highest_is_best:
            yield f"of the {count} short cycles the one at the highest rate ended best"
        if self.overfits:
            yield "cycles that went further ended with a lower loss but no better score: more is fitted than learnt"
        if not self.borne_out:
            yield "longer cycles on other batches do best at another rate"
        if best.deviation > METHOD.judgement.basin and self.second is None:
            yield "the short cycles are all of one length, and the training is much longer: its best rate is a guess"

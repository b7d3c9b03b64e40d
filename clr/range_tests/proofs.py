"""Proofs: short whole cycles at several rates, all of one length, from one start, on the same batches."""

import math

import numpy as np

from clr.range_tests.bounds import RATIO
from clr.range_tests.method import METHOD, rate
from clr.range_tests.proof import Proof, Score, Untouched
from clr.range_tests.ramps import Ran
from clr.range_tests.signal import FALL, MAD, Start, gaps_filled
from clr.run import Plan, Run
from clr.schedules.cycles import RISE

SAME_START = 0.1
"""Share of the noise of an untouched network's loss by which runs of one seed may differ in their first step: what
rounding does is less, and other batches or weights do more."""


class Proofs:
    """Proofs of one length and one seed, in the order of their rates.

    Two of them saw the same batches, so what they differ by says more than either does.

    Args:
        steps: of each, even.
        seed: of all.
        untouched: how networks do that have not been trained.
        scores: times that each is scored, the last at its end.
    """

    def __init__(self, steps: int, seed: int, untouched: Untouched, scores: int = 1) -> None:
        self.steps, self.seed, self.untouched, self.scores = steps - steps % 2, seed, untouched, scores
        self.proofs: list[Proof] = []
        self.runs: Ran = []

    def prove(self, rates: list[float]) -> Plan[None]:
        """Train at these rates, side by side."""
        runs = [_cycle(x, self.steps, self.seed, self.scores) for x in rates]
        curves = yield runs
        self.runs += zip(runs, curves, strict=True)
        start, sign = self.start, self.untouched.sign
        made = [Proof.of(x, run, curve, start, sign) for x, run, curve in zip(rates, runs, curves, strict=True)]
        self.proofs = sorted([*self.proofs, *made], key=lambda proof: proof.x)

    def bracket_best(self, most: int, highest: float, high_broke: bool) -> Plan[None]:
        """Go on, one rate at a time, until the best has a worse one on either side, or there are ``most`` proofs.

        Where three have learnt nothing, others as long would not either.
        """
        while len(self.proofs) < most and not self.bracketed and (len(self.proofs) < 3 or self.fell):
            x = self._next(high_broke)
            if x > highest:
                if self.highest_is_best and self.proofs[-1].x >= highest:
                    return  # no higher rate may be tried, and no lower one is better
                x = highest
            yield from self.prove([x])

    def _next(self, high_broke: bool) -> float:
        low, high = self.proofs[0], self.proofs[-1]
        gap = METHOD.proofs.step * METHOD.proofs.stride[min(len(self.proofs), 4) - 2]
        if not self.fell and high_broke:
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
    def start(self) -> Start:
        """Loss of an untouched network."""
        return self.untouched.start

    @property
    def ceiling(self) -> float:
        """Where losses count no further."""
        return self.start.level + METHOD.proofs.ceiling * self.start.sd

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
        """Logarithm of the highest rate that may be best, for cycles of this length; infinite where nothing says so.

        Half-way from the best to the first above it that broke, and the lowest that was thrown back.
        """
        broken = [proof.x for proof in self.proofs[self.at :] if proof.end >= self.ceiling]
        return min((self.best.x + broken[0]) / 2 if broken else math.inf, self.thrown_back)

    @property
    def thrown_back(self) -> float:
        """Logarithm of the lowest rate that lost much of its fall on the way to its end; infinite where none did.

        Such a cycle may end lowest of all, since its rate comes down again; a longer one is thrown back more often.
        """
        return min((proof.x for at, proof in enumerate(self.proofs) if self._thrown_back(at)), default=math.inf)

    def _thrown_back(self, at: int) -> bool:
        """Whether it was once far above one at a lower rate, on the same batches."""
        of, losses = METHOD.proofs, self.proofs[at].losses
        moment = max(3, round(of.moment * self.steps))
        slowest = min(self.runs, key=lambda ran: ran[0].max_lr)[1]
        start, own = self.start, float(np.mean(gaps_filled(slowest.loss)[:moment]))  # of this seed's network
        level = own if own > start.level + FALL * start.sd / math.sqrt(moment) else start.level
        for lower in self.proofs[:at]:
            above = losses - lower.losses
            noise = MAD * float(np.median(np.abs(np.diff(above)))) / math.sqrt(2 * moment)
            most = float(np.convolve(above, np.ones(moment) / moment, "valid").max())
            if self._fell(lower) and most > max(of.thrown * (level - self.best.end), FALL * noise):
                return True
        return False

    @property
    def told_apart(self) -> bool:
        """Whether the best is clearly better than the worst."""
        return self.clearly_better(self.best, max(self.proofs, key=lambda proof: proof.end))

    @property
    def alike(self) -> list[float]:
        """Logarithms of the rates, two or more, that ended as the best did, to the digit: as one rate would."""
        same = [proof.x for proof in self.proofs if proof.end == self.best.end]
        return same if len(same) > 1 else []

    @property
    def learnt(self) -> bool:
        """Whether the best fell, and did better than a constant output."""
        return self.fell and not self.only_a_constant

    @property
    def fell(self) -> bool:
        """Whether the best ended clearly below the start; or below it, and below the lowest rate by more than noise."""
        best, lowest = self.best, self.proofs[0]  # higher rates that only did harm show nothing
        if self._fell(best):
            return True
        noise = self._noise(best)
        return self.fall > 0 and lowest.end - best.end > noise / 2 and self.clearly_better(best, lowest)

    @property
    def only_a_constant(self) -> bool:
        """Whether the best did no better than one output for all examples, if that is far below the start.

        So are targets of another mean, or classes of unequal sizes: a cycle then falls far by learning that output
        alone, and at nearly any rate alike. Where its loss is not clearly below, the score decides; without scores, a
        noise too large to tell leaves it at that it has learnt more.
        """
        constant, score, usual = self.untouched.constant, self.best.score, self.untouched.usual
        if constant is None or self.start.level - constant.loss <= FALL * self.start.error:
            return False
        noise, of = math.hypot(self.best.error, constant.sd / math.sqrt(len(self.best.tail))), METHOD.judgement
        if self.best.end < constant.loss - of.learnt * noise:
            return False
        if score is not None and constant.score is not None and math.isfinite(usual):
            known = self.untouched.sign * constant.score
            return score - known <= of.seen * abs(known - usual)
        return noise < of.seen * (self.start.level - constant.loss)

    @property
    def scored(self) -> bool:
        """Whether a noisy loss is borne out by the scores: the best scores best, and better than untouched networks."""
        scores = [proof.score for proof in self.proofs if proof.score is not None]
        best = self.best.score
        return best is not None and best == max(scores) > self.untouched.good and not self.only_a_constant

    @property
    def unseeded(self) -> bool:
        """Whether runs of one seed began at different losses, which no rate had any part in yet."""
        heads = [curve.loss[:2] for _, curve in self.runs]
        told = [head[0] for head in heads if len(set(head)) == 2 and math.isfinite(head[0])]  # else a mean of several
        return len(told) > 1 and max(told) - min(told) > SAME_START * self.start.sd

    @property
    def contradicted(self) -> bool:
        """Whether each that lowered the loss scores worse than any untouched network."""
        scores = [proof.score for proof in self.proofs if self._fell(proof)]
        return bool(scores) and all(score is not None and score < self.untouched.bad for score in scores)

    def went_too_far(self, by: float) -> bool:
        """Whether each that lowered the loss scored better before its end than at it, one by this share of its gain.

        They saw the same batches, so that what is noise in one's score may be in all.
        """
        lost = [proof.share_lost(self.untouched.usual) for proof in self.proofs if self._fell(proof)]
        return bool(lost) and min(lost) > 0 and max(lost) > by

    @property
    def best_score(self) -> Score | None:
        """The best of all that lowered the loss, at whatever step; None without scores."""
        scores = [score for proof in self.proofs if self._fell(proof) for score in proof.scores]
        return max(scores, default=None)

    def _fell(self, proof: Proof) -> bool:
        return self.start.level - proof.end > METHOD.judgement.learnt * self._noise(proof)

    def _noise(self, proof: Proof) -> float:
        """Standard error of a fall from the start to its end."""
        return math.hypot(proof.error, self.start.sd / math.sqrt(len(proof.tail)))

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

        The minimum of the parabola through the best and its neighbours, no nearer to a neighbour than to the best.
        Where the best has no neighbour on one side, through the three on the other, and at most a third of a step
        beyond it: so far it is with two proofs alone. Where the rate above the best is over a cliff, nothing says
        that lower rates would do better.
        """
        x, ends = np.array([proof.x for proof in self.proofs]), np.array([proof.end for proof in self.proofs])
        step, at = METHOD.proofs.step, self.at
        least, most = self._reach
        if len(x) > 2:
            first = min(max(at - 1, 0), len(x) - 3)
            near = slice(first, first + 3)
            curvature, slope, _ = np.polyfit(x[near] - x[at], ends[near] - ends[at], 2)
            if self.bracketed or curvature > 0:
                curvature = max(curvature, 1e-12)
                return float(x[at] + np.clip(-slope / (2 * curvature), least, most)), float(curvature)
        outwards = most if self.highest_is_best else least
        return float(x[at] + outwards), float(np.ptp(ends)) / (2 * step**2) + 1e-12

    def cost(self, deviation: float) -> float:
        """What an error of this size, a logarithm, would cost the best, and its end's noise: a share of its fall.

        Of its fall below a constant output, where that is known.
        """
        fall, constant = self.fall, self.untouched.constant
        if constant is not None:
            fall = min(fall, constant.loss - self.best.end)
        return (self.vertex[1] * deviation**2 + self.best.error) / fall if fall > 0 else math.inf

    @property
    def _reach(self) -> tuple[float, float]:
        """How far from the best proof's rate the best rate may lie, downwards and upwards."""
        at, x, step = self.at, [proof.x for proof in self.proofs], METHOD.proofs.step
        up = (x[at + 1] - x[at]) / 2 if at < len(x) - 1 else step / 3
        if at:
            return (x[at - 1] - x[at]) / 2, up
        return 0.0 if self.below_cliff else -step / 3, up

    @property
    def below_cliff(self) -> bool:
        """Whether the next rate above the best kept less than half of its fall: the valley's wall, and no parabola."""
        above = self.proofs[self.at + 1 : self.at + 2]
        return self._fell(self.best) and any(self.start.level - proof.end < self.fall / 2 for proof in above)

    def prudence(self, deviation: float) -> float:
        """How far below the best rate, beside a cliff, an answer does best that errs by ``deviation``, a logarithm.

        The ends, straight lines between the rates and level with the start beyond them, are averaged over such errors;
        where that is lowest lies so much below the best. 0 without a cliff, or where no lower rate was proved.
        """
        if self.lowest_is_best or not self.below_cliff:
            return 0.0
        level, far = self.start.level, 2 * METHOD.proofs.step
        x, ends = [proof.x for proof in self.proofs], [min(proof.end, level) for proof in self.proofs]
        slope = min((ends[1] - ends[0]) / (x[1] - x[0]), 0.0)
        x, ends = [x[0] - far, *x], [min(ends[0] - slope * far, level), *ends]
        rates, errors = np.linspace(x[0], self.best.x, 200), np.linspace(-2.5, 2.5, 41)
        expected = np.interp(rates[:, None] + deviation * errors, x, ends, right=level) @ np.exp(-(errors**2) / 2)
        return self.best.x - float(rates[np.argmin(expected)])

    @property
    def middle(self) -> float:
        """Logarithm of the rate between the lowest and the highest."""
        return (self.proofs[0].x + self.proofs[-1].x) / 2

    def vertex_with(self, curvature: float) -> float:
        """The same of two proofs, when the curvature is known from others; within one step of their middle.

        Shorter proofs may have seen less of the fall than these, and so of its curvature.
        """
        low, high = self.proofs[0], self.proofs[-1]
        if self.below_cliff:
            return low.x + self._reach[0]
        curvature = max(curvature, METHOD.proofs.curvature * self.fall, 1e-12)
        away = (low.end - high.end) / (2 * curvature * (high.x - low.x))
        return self.middle + float(np.clip(away, -METHOD.proofs.step, METHOD.proofs.step))


def _cycle(x: float, steps: int, seed: int, scores: int) -> Run:
    top, up = rate(x), min(max(1, round(RISE * steps)), steps - 1)
    return Run(
        policy="triangular",
        base_lr=top / RATIO,
        max_lr=top,
        step_size_up=up,
        step_size_down=steps - up,
        steps=steps,
        seed=seed,
        evaluate_every=math.ceil(steps / scores),
        val_limit=METHOD.proofs.val_limit,
    )

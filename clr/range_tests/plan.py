"""The LR range test: several repetitions side by side, and what they say together.

A plan without I/O: it yields rounds of runs and reads their curves. ``clr.range_test`` carries it out in this process,
a worker on a cluster.
"""

import csv
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clr.range_tests.bounds import RATIO, Bounds, Confidence, Interval
from clr.range_tests.evidence import Finding
from clr.range_tests.method import METHOD
from clr.range_tests.repetition import repetition
from clr.run import ConstantOutput, Curve, Direction, Plan, Run, fresh_seeds
from clr.schedules.cycles import TrainingLength
from clr.spec import RangeTestSpec

GRADES: tuple[Confidence, ...] = ("inconclusive", "low", "medium", "high")

BASE_RATIOS = (3.0, 20.0)
"""Between these ratios base_lr makes no difference that could be measured over one whole-budget triangle, so the onset
of the fall moves the interval of base_lr within them."""

FEWEST, MOST, SHARE = 1000, 4000, 1 / 10
"""Steps of a test: a tenth of the training, no more than ``MOST`` and, where the training has them, no fewer than
``FEWEST``. What a test needs is steps enough to read, and it has them then."""

REPETITION = 1000
"""Steps of a repetition before there is a second one: long proofs are worth more than several seeds, since short ones
may not have left the loss they began at."""

CLEARLY = 4.0
"""Standard errors between the best ends of two repetitions above which one is worse, and not unlucky."""


@dataclass(frozen=True)
class RangeTest:
    """What a range test recorded and found.

    Args:
        bounds: base_lr and max_lr with intervals, or why there are none.
        runs: every run that was made with its curve, in order: ramps, then short triangles that prove a rate.
        smoothed: the mean of the ramps as it was read: ``lr`` and ``loss``, equally long.
    """

    bounds: Bounds
    runs: list[tuple[Run, Curve]]
    smoothed: dict[str, list[float]]

    @property
    def curves(self) -> list[Curve]:
        """The ramps, in order."""
        return [curve for run, curve in self.runs if run.is_ramp]

    @property
    def cost_steps(self) -> int:
        """Optimizer steps of all runs together."""
        return sum(len(curve.loss) for _, curve in self.runs)

    def to_dict(self) -> dict[str, Any]:
        """What was found, as JSON values; the curves are not in it."""
        return {"bounds": self.bounds.to_dict(), "smoothed": self.smoothed}

    def rows(self) -> list[dict[str, Any]]:
        """One row per step of the ramps: lr, loss, metric (where it was taken), seed."""
        return [row | {"seed": run.seed} for run, curve in self.runs if run.is_ramp for row in curve.rows()]

    def chart(self, metric: str = "metric") -> Any:
        """The picture, an Altair chart; ``metric`` is the name on the axis."""
        from clr.charts import range_test_chart

        return range_test_chart(self._document(metric))

    def _document(self, metric: str) -> dict[str, Any]:
        curves = [{"params": {"policy": run.policy}, "points": curve.rows()} for run, curve in self.runs]
        return self.to_dict() | {"curves": curves, "metric": metric}

    def _repr_html_(self) -> str:
        from clr.charts.notebook import range_test_html

        return range_test_html(self._document("metric"))

    def to_csv(self, path: str | Path) -> None:
        """Write ``rows`` with the header lr,loss,metric,seed."""
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, ["lr", "loss", "metric", "seed"])
            writer.writeheader()
            writer.writerows(self.rows())


def steps_of_test(length: TrainingLength, spec: RangeTestSpec, max_steps: int | None = None) -> int:
    """Most optimizer steps that the whole test takes, all seeds together: never more than one training unless asked."""
    if spec.epochs is not None:
        allowed = max(1, round(spec.epochs * length.iterations_per_epoch))
    else:
        allowed = min(length.steps, max(FEWEST, min(MOST, round(SHARE * length.steps))))
    return min(allowed, max_steps or allowed)


def range_test_plan(
    length: TrainingLength,
    spec: RangeTestSpec,
    seed: int,
    max_steps: int | None = None,
    tell: Callable[[Bounds], None] = lambda bounds: None,
    direction: Direction = "maximize",
    optimizer: Mapping[str, Any] | None = None,
    constant: ConstantOutput | None = None,
) -> Plan[RangeTest]:
    """The test as a plan: up to ``spec.seeds`` repetitions, as many as the steps allow, their runs side by side.

    Args:
        length: the training to find bounds for.
        spec: most repetitions, ends of the bracket, and budget of the test itself.
        seed: what the repetitions' seeds are made from.
        max_steps: a hard limit on the steps of all runs together.
        tell: called with what the runs so far say, each time that a repetition knows more: first after a seventh of the
            steps. A plan that is run again over recorded curves says the same again.
        direction: of the metric, where the runs have one.
        optimizer: what trains, where known; see ``clr.training.optimizers.described``.
        constant: what the best constant output does, where known.
    """
    allowed = steps_of_test(length, spec, max_steps)
    if allowed < METHOD.fewest_steps:
        reason = (
            f"a range test takes at least {METHOD.fewest_steps} steps, but may take {allowed}: train longer, or allow "
            "more"
        )
        return RangeTest(Bounds.inconclusive(reason), [], {"lr": [], "loss": []})
    each = max(METHOD.fewest_steps, min(length.steps, REPETITION))
    count = max(1, min(spec.seeds, allowed // each))
    known: dict[int, Finding] = {}

    def tell_all(repeated: int, finding: Finding) -> None:
        known[repeated] = finding
        tell(read_together([known[i] for i in sorted(known)]))

    plans = [
        repetition(
            allowed // count,
            length.steps // length.fewest_cycles,
            one,
            spec.min_lr,
            spec.max_lr,
            direction,
            partial(tell_all, i),
            optimizer,
            constant,
            length.fewest_cycles,
        )
        for i, one in enumerate(fresh_seeds(seed, "range_test", count))
    ]
    findings = yield from side_by_side(plans)
    runs = [pair for finding in findings for pair in finding.runs]
    return RangeTest(read_together(findings), runs, _smoothed(findings))


def side_by_side(plans: Sequence[Plan[Finding]]) -> Plan[list[Finding]]:
    """Several plans as one, whose batches are the plans' batches joined."""
    results: dict[int, Finding] = {}
    batches = {i: next(plan) for i, plan in enumerate(plans)}
    while batches:
        curves = iter((yield [run for batch in batches.values() for run in batch]))
        following = {}
        for i, batch in batches.items():
            try:
                following[i] = plans[i].send([next(curves) for _ in batch])
            except StopIteration as stop:
                results[i] = stop.value
        batches = following
    return [results[i] for i in range(len(plans))]


def read_together(findings: Sequence[Finding]) -> Bounds:
    """Bounds from what the repetitions found: the geometric mean of their rates, in an interval that holds them all."""
    if all(finding.confidence == "inconclusive" for finding in findings):
        return Bounds.inconclusive(*_doubts(findings))
    count, voting = len(findings), _voting(findings)
    rates = [rate for rate, _ in voting]
    if max(rates) > METHOD.judgement.apart * min(rates):
        reason = f"repetitions contradict each other: their max_lr differ by a factor of {_factor(rates)}"
        return Bounds.inconclusive(f"{reason}, and neither ended clearly better", *_doubts(findings))
    reasons = [f"{sum(len(finding.runs) for finding in findings)} runs in {count} repetition{'s' if count > 1 else ''}"]
    grade = sum(GRADES.index(finding.confidence) for finding in findings) // count
    known = [finding.max_lr for finding in findings if finding.max_lr is not None]
    if count > 1:
        reasons.append(f"their max_lr differ by a factor of {_factor(known)}")
    if uncertain := sum(finding.confidence == "inconclusive" for finding in findings):
        reasons.append(f"{uncertain} of {count} are inconclusive by themselves")
    if left_out := len(known) - len(voting):
        reasons.append(f"{left_out} of {count} ended worse than the others, and do not count")
        grade = 1
    max_lr = _mean(rates)
    narrower = math.sqrt(len(voting))  # several seeds err less than one
    low, high = (_mean([interval[end] for _, interval in voting]) for end in (0, 1))
    interval = {
        "base_lr": _base_interval(max_lr, [finding.onset for finding in findings if finding.onset is not None]),
        "max_lr": (
            min([max_lr * (low / max_lr) ** (1 / narrower), *rates]),
            max([max_lr * (high / max_lr) ** (1 / narrower), *rates]),
        ),
    }
    return Bounds(max_lr / RATIO, max_lr, interval, GRADES[max(1, grade)], reasons + _doubts(findings))


def _factor(rates: Sequence[float]) -> str:
    spread = max(rates) / min(rates)
    return f"{spread:.2g}" if spread < 10 else f"{spread:.0f}"


def _voting(findings: Sequence[Finding]) -> list[tuple[float, Interval]]:
    """Rates and intervals that count.

    All do, even of repetitions that are inconclusive by themselves but know at which rates the training breaks. Where
    they contradict each other, the proofs decide, which all trained as long: only the conclusive count, and of these
    none whose best proof ended clearly above the best of all.
    """
    known = [(one, one.max_lr, one.interval, one.end) for one in findings if one.max_lr and one.interval]
    rates = [rate for _, rate, _, _ in known]
    if max(rates) > METHOD.judgement.apart * min(rates):
        known = [each for each in known if each[0].confidence != "inconclusive"]
        ends = [end for _, _, _, end in known if end is not None]
        best, error = min(ends, default=(math.inf, 0.0))
        known = [one for one in known if not one[3] or one[3][0] - best <= CLEARLY * math.hypot(one[3][1], error)]
    return [(rate, interval) for _, rate, interval, _ in known]


def _doubts(findings: Sequence[Finding]) -> list[str]:
    """Each once, with how many repetitions have it where not all do."""
    counts = Counter(doubt for finding in findings for doubt in finding.doubts)
    count = len(findings)
    return [doubt if has == count else f"{doubt} ({has} of {count} repetitions)" for doubt, has in counts.items()]


def _base_interval(max_lr: float, onsets: Sequence[Interval]) -> Interval:
    """From base_lr to where the seeds' losses began to fall, within the ratios that do equally well, or all these."""
    least, most = (max_lr / ratio for ratio in reversed(BASE_RATIOS))
    if not onsets:
        return least, most
    low = _mean([min(onset[0], max_lr / RATIO) for onset in onsets])
    high = _mean([max(onset[1], max_lr / RATIO) for onset in onsets])
    return min(max(low, least), most), min(max(high, least), most)


def _mean(values: Sequence[float]) -> float:
    """Geometric mean; rounding does not take it out of the values' range."""
    return min(max(math.exp(sum(map(math.log, values)) / len(values)), min(values)), max(values))


def _smoothed(findings: Sequence[Finding]) -> dict[str, list[float]]:
    """Mean of the repetitions' smoothed ramps, at the rates of the first, where they overlap it."""
    ramps = [finding.ramps for finding in findings if finding.ramps is not None]
    if not ramps:
        return {"lr": [], "loss": []}
    x = ramps[0][0]
    rows = [np.interp(x, *ramp, left=np.nan, right=np.nan) for ramp in ramps]
    return {"lr": np.exp(x).tolist(), "loss": np.nanmean(rows, axis=0).tolist()}

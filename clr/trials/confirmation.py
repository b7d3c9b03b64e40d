"""The confirmation: finalists and baselines trained again on fresh seeds, and what the differences say."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, NamedTuple

from scipy.special import stdtrit

from clr.run import Curve, Direction, Plan, fresh_seeds
from clr.schedules.cycles import Candidate, TrainingLength
from clr.trials.baselines import BASELINES

CONFIDENCE = 0.9
"""Two-sided level at which a paired difference counts: with three seeds a stricter one could never be met."""


@dataclass(frozen=True)
class Confirmation:
    """What the fresh runs say.

    Args:
        winner: the finalist with the best mean.
        runs: name, mean, std, values and the baseline's rate, in the order they were asked for.
        verdict: the winner beside the fixed rate (or the best baseline), in words.
        warnings: whatever else the runs show against the winner.
    """

    winner: Candidate
    runs: list[dict[str, Any]]
    verdict: str
    warnings: list[str]


def confirm_steps(finalists: Sequence[Candidate], seeds: int, baselines: Sequence[str], length: TrainingLength) -> int:
    """Optimizer steps that the confirmation takes."""
    trainings = sum(BASELINES[name].probes + seeds for name in baselines)
    return trainings * 2 * (length.steps // 2) + seeds * sum(finalist.steps for finalist in finalists)


def confirm_plan(
    finalists: Sequence[Candidate],
    seeds: int,
    baselines: Sequence[str],
    length: TrainingLength,
    seed: int,
    direction: Direction,
) -> Plan[Confirmation]:
    """Probe each baseline's own best rate on one seed, then run it and the finalists on ``seeds`` fresh ones."""
    sign = 1 if direction == "maximize" else -1
    (probe,) = fresh_seeds(seed, "probe", 1)
    max_lr = finalists[0].max_lr
    tried = [(name, lr) for name in baselines for lr in BASELINES[name].rates(max_lr) if BASELINES[name].probes]
    probes = yield [BASELINES[name].run(lr, length, probe) for name, lr in tried]
    best_first = sorted(zip(tried, probes, strict=True), key=lambda pair: -_rank(pair[1].value, sign))
    own_best = {name: BASELINES[name].rate or max_lr for name in baselines}
    own_best |= {name: lr for (name, lr), _ in reversed(best_first)}
    fresh = fresh_seeds(seed, "confirm", seeds)
    curves = yield [
        *(finalist.run(seed) for finalist in finalists for seed in fresh),
        *(BASELINES[name].run(lr, length, seed) for name, lr in own_best.items() for seed in fresh),
    ]
    groups = [curves[i : i + seeds] for i in range(0, len(curves), seeds)]
    entries = [_summary("finalist", group) for group in groups[: len(finalists)]]
    first = max(range(len(finalists)), key=lambda i: _rank(entries[i]["mean"], sign))
    recommended = entries[first] | {"name": "recommended"}
    others = [
        _summary(name, group, lr=lr)
        for (name, lr), group in zip(own_best.items(), groups[len(finalists) :], strict=True)
    ]
    verdict, warnings = _verdict(recommended, others, sign)
    return Confirmation(finalists[first], [recommended, *others], verdict, warnings)


def _rank(value: float | None, sign: int) -> float:
    return float("-inf") if value is None else sign * value


def _summary(name: str, curves: Sequence[Curve], **more: Any) -> dict[str, Any]:
    values = [curve.value for curve in curves]
    finite = [value for value in values if value is not None]
    whole = len(finite) == len(values)
    return {
        "name": name,
        **more,
        "mean": fmean(finite) if whole else None,
        "std": (stdev(finite) if len(finite) > 1 else 0.0) if whole else None,
        "values": values,
    }


def _verdict(recommended: dict[str, Any], others: Sequence[dict[str, Any]], sign: int) -> tuple[str, list[str]]:
    if recommended["mean"] is None:
        return "the recommended schedule diverged", ["a confirmation run of the recommended schedule diverged"]
    if not others:
        return "no baseline was run", []
    leads = {run["name"]: compare(recommended, run, sign) for run in others}
    warnings = [
        f"{run['name']} at {run['lr']:.3g} did better by {-lead.difference:.3g} +- {lead.error:.2g}"
        for run in others
        if (lead := leads[run["name"]]) is not None and lead.counts and lead.difference < 0
    ]
    best = max(others, key=lambda run: _rank(run["mean"], sign))["name"]
    reference = "fixed" if "fixed" in leads else best
    lead = leads[reference]
    if lead is None:
        return f"CLR ahead: {reference} diverged", warnings
    if not lead.counts:
        return "no difference", warnings
    if lead.difference > 0:
        return f"CLR ahead by {lead.difference:.3g} +- {lead.error:.2g}", warnings
    return f"{'a fixed rate' if reference == 'fixed' else reference} did better", warnings


class Lead(NamedTuple):
    """Mean paired difference in our favour, its standard error, and whether it is more than chance."""

    difference: float
    error: float
    counts: bool


def compare(ours: dict[str, Any], theirs: dict[str, Any], sign: int) -> Lead | None:
    """How far we are ahead, seed by seed; None when theirs diverged.

    With one seed there is no error to speak of, and no difference counts.
    """
    if theirs["mean"] is None:
        return None
    pairs = [sign * (a - b) for a, b in zip(ours["values"], theirs["values"], strict=True)]
    difference = fmean(pairs)
    if len(pairs) < 2:
        return Lead(difference, 0.0, False)
    error = stdev(pairs) / len(pairs) ** 0.5
    needed = float(stdtrit(len(pairs) - 1, (1 + CONFIDENCE) / 2)) * error
    return Lead(difference, error, abs(difference) > needed)

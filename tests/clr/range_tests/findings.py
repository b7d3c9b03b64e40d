"""What a repetition finds in simulated runs."""

import numpy as np

from clr.range_tests.evidence import Finding
from clr.range_tests.repetition import repetition
from clr.run import Curve, Run
from tests.clr.simulated import Simulate, carry_out, rates_of


def find(simulate: Simulate, budget: int = 1000, training: int = 1000, seed: int = 0, **ends: float | None) -> Finding:
    return carry_out(repetition(budget, training, seed, **ends), simulate)  # type: ignore[arg-type]


def ramps_of(finding: Finding) -> list[Run]:
    return [run for run, _ in finding.runs if run.is_ramp]


def proofs_of(finding: Finding) -> tuple[list[Run], list[Run]]:
    """Those of the first length, and the longer ones."""
    proofs = [run for run, _ in finding.runs if not run.is_ramp]
    short = [run for run in proofs if run.steps == proofs[0].steps]
    return short, proofs[len(short) :]


def highest(finding: Finding) -> float:
    """The highest rate of any run, and of the answer."""
    return max([run.max_lr for run, _ in finding.runs] + [finding.max_lr or 0] + list(finding.interval or []))


def plateau(distance: float) -> Simulate:
    """A loss of 1 until the rates sum up to the distance, which falls to 0 then; it breaks above a rate of 1."""

    def simulate(run: Run) -> Curve:
        random = np.random.default_rng(run.seed)
        losses, travelled = [], 0.0
        for lr in rates_of(run):
            travelled += lr
            losses.append(
                1 / (1 + max(0.0, travelled - distance) ** 2) + 0.01 * random.normal() + 1e3 * max(0.0, lr - 1)
            )
        return Curve(rates_of(run), losses)

    return simulate

"""Training runs without training: plans carried out on a noisy quadratic bowl."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from clr.run import Curve, Plan, Result, Run
from clr.schedules.cycles import rate_of

EDGE_OF_STABILITY = 2.0
"""Of gradient descent in the bowl: 2 over its largest curvature, 1."""

Simulate = Callable[[Run], Curve]


def carry_out(plan: Plan[Result], simulate: Simulate) -> Result:
    """What the plan finds when ``simulate`` makes its runs."""
    return in_batches(plan, simulate)[0]


def in_batches(plan: Plan[Result], simulate: Simulate) -> tuple[Result, list[int]]:
    """The same, and how many runs each batch had."""
    curves: Any = None
    sizes: list[int] = []
    while True:
        try:
            runs = plan.send(curves)
        except StopIteration as stop:
            return stop.value, sizes
        sizes.append(len(runs))
        curves = [simulate(run) for run in runs]


def bowl(a: float = 1.0, b: float = 0.0, k: float = 1.0, noise: float = 0.02, most: float = math.inf) -> Simulate:
    """Gradient descent, with noise, in a quadratic bowl of 30 curvatures from 0.01 to 1.

    Args:
        a, b: the loss is reported times a, plus b.
        k: the bowl is stretched so that rates k times as high do the same.
        noise: standard deviation of the reported loss.
        most: a higher rate does what this one does.
    """
    curvature = np.logspace(-2, 0, 30)

    def simulate(run: Run) -> Curve:
        random = np.random.default_rng(run.seed)
        where = random.normal(size=30) * 0.44
        rates, losses = [], []
        for lr in rates_of(run):
            with np.errstate(all="ignore"):
                loss = 0.5 * float(np.sum(curvature * where**2)) + noise * random.normal()
                where = where - min(lr, most) / k * (curvature * where + 0.05 * random.normal(size=30))
            rates.append(lr)
            losses.append(a * loss + b)
            if not math.isfinite(losses[-1]):
                break
        return Curve(rates, losses, diverged=not math.isfinite(losses[-1]))

    return simulate


def losses_of(loss: Callable[[int, np.random.Generator], float]) -> Simulate:
    """Runs that end where the loss, made of the step and random numbers alone, is no longer finite."""

    def simulate(run: Run) -> Curve:
        random = np.random.default_rng(run.seed)
        losses: list[float] = []
        while len(losses) < run.steps and all(math.isfinite(one) for one in losses[-1:]):
            losses.append(loss(len(losses), random))
        return Curve(rates_of(run)[: len(losses)], losses, diverged=not math.isfinite(losses[-1]))

    return simulate


def rates_of(run: Run) -> list[float]:
    rate = rate_of(run)
    return [rate(step) for step in range(run.steps)]

import csv
import json
import math
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clr.bounds import RATIO, Bounds
from clr.charts import svg
from clr.proposal import Budget
from clr.range_test import ENOUGH_STEPS, RangeTest, range_test_plan, side_by_side, steps_of_test
from clr.repetition import FEWEST_STEPS, repetition
from clr.run import Curve, Run
from clr.spec import RangeTestSpec
from tests.clr.simulated import EDGE_OF_STABILITY, Simulate, bowl, carry_out, losses_of

BUDGETS = {steps: Budget(20, steps // 20) for steps in (200, 400, 1000, 10_000)}

Loss = Callable[[int, np.random.Generator], float]


def test_of(simulate: Simulate, steps: int = 1000, seed: int = 0, **spec: float) -> RangeTest:
    return carry_out(range_test_plan(BUDGETS[steps], RangeTestSpec.model_validate(spec), seed), simulate)


test_of.__test__ = False  # type: ignore[attr-defined]


@cache
def tested(steps: int = 1000, seed: int = 0) -> RangeTest:
    return test_of(bowl(), steps, seed)


def conclusive(bounds: Bounds) -> tuple[float, float]:
    """base_lr and max_lr of bounds that are sound in every respect."""
    assert bounds.base_lr is not None
    assert bounds.max_lr is not None
    assert bounds.interval is not None
    assert 0 < bounds.base_lr < bounds.max_lr
    for name, value in (("base_lr", bounds.base_lr), ("max_lr", bounds.max_lr)):
        low, high = bounds.interval[name]
        assert 0 < low <= value * (1 + 1e-12)
        assert value * (1 - 1e-12) <= high
    return bounds.base_lr, bounds.max_lr


def trained(steps: int, max_lr: float) -> float:
    """Mean loss, without its noise, at the end of whole trainings on seeds of their own."""
    simulate = bowl(noise=0)
    ends = []
    for seed in range(1000, 1004):
        run = Run("triangular", max_lr / RATIO, max_lr, steps // 2, steps, seed, steps)  # type: ignore[misc]
        ends.append(float(np.mean(simulate(run).loss[-steps // 50 :])))
    return float(np.mean(ends))

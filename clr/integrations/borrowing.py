"""The range test on a model and optimizer that a framework prepared."""

import time
from typing import Any

from clr.borrowed import borrowed
from clr.proposal import Budget
from clr.range_test import range_test_plan
from clr.recommendation import Cost, Recommendation
from clr.spec import RangeTestSpec
from clr.training import execute


def recommended(budget: Budget, seeds: int, seed: int, **own: Any) -> Recommendation:
    """What the range test alone recommends for a training as long as ``budget``.

    Args:
        budget: length of the training.
        seeds: most repetitions of the test, >= 1.
        seed: what their seeds are made from.
        own: as in ``clr.borrowed.borrowed``: left bit for bit as it was.
    """
    began = time.monotonic()
    with borrowed(**own) as task:
        tested = execute(task, range_test_plan(budget, RangeTestSpec(seeds=seeds), seed))
    cost = Cost.of(tested.cost_steps, time.monotonic() - began, budget.steps)
    proposal = budget.first_proposal(tested.bounds)
    return Recommendation.of("range_test", tested.bounds, proposal, budget.iterations_per_epoch, cost=cost)

"""The range test on a model and optimizer that a framework prepared."""

import time
from typing import Any

from clr.range_tests.plan import range_test_plan
from clr.schedules.cycles import TrainingLength
from clr.spec import RangeTestSpec
from clr.training.borrowing import borrowed
from clr.training.loop import execute
from clr.tuning.recommendation import Recommendation, SpentCost


def recommended(length: TrainingLength, seeds: int, seed: int, **own: Any) -> Recommendation:
    """What the range test alone recommends for a training as long as ``length``.

    Args:
        length: of the training.
        seeds: most repetitions of the test, >= 1.
        seed: what their seeds are made from.
        own: as in ``clr.training.borrowing.borrowed``: left bit for bit as it was.
    """
    began = time.monotonic()
    with borrowed(**own) as task:
        tested = execute(task, range_test_plan(length, RangeTestSpec(seeds=seeds), seed))
    cost = SpentCost.of(tested.cost_steps, time.monotonic() - began, length.steps)
    candidate = tested.bounds.candidate(length)
    return Recommendation.of("range_test", tested.bounds, candidate, length.iterations_per_epoch, cost=cost)

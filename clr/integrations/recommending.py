"""What the range test alone recommends for a training that a framework prepared."""

import logging
import time
from collections.abc import Callable
from math import isfinite
from typing import Any

from clr.errors import InvalidArgument
from clr.range_tests.plan import range_test_plan
from clr.run import Curve, Run
from clr.schedules.cycles import TrainingLength
from clr.spec import RangeTestSpec
from clr.training.loop import carry_out
from clr.tuning.recommendation import Recommendation, SpentCost, reasons_of_groups

log = logging.getLogger(__name__)

NEAR = 0.05
"""Share of a cycle within which a training may end before or after it: its rate is next to base_lr there."""


def recommended(
    length: TrainingLength, seeds: int, seed: int, curve_of: Callable[[Run], Curve], optimizer: dict[str, Any] | None
) -> Recommendation:
    """The bounds, stepsize and cost for a training as long as ``length``.

    Args:
        length: of the training.
        seeds: most repetitions of the test, >= 1.
        seed: what their seeds are made from.
        curve_of: makes a run, and leaves everything as it was.
        optimizer: what it trains with, see ``clr.training.optimizers.described``.
    """
    began = time.monotonic()
    plan = range_test_plan(length, RangeTestSpec(seeds=seeds), seed, optimizer=optimizer)
    tested = carry_out(plan, curve_of)
    cost = SpentCost.of(tested.cost_steps, time.monotonic() - began, length.steps)
    candidate = tested.bounds.candidate(length)
    return Recommendation.of(
        "range_test",
        tested.bounds,
        candidate,
        length.iterations_per_epoch,
        reasons=reasons_of_groups(optimizer),
        cost=cost,
        optimizer=optimizer,
    )


def warn_of_mid_cycle(found: Recommendation, steps: float) -> None:
    """Log a warning where a training of so many steps ends far from where a cycle of the schedule does.

    Args:
        found: conclusive.
        steps: of the training; infinite where nobody knows.
    """
    if found.step_size_up is None or found.step_size_down is None or not isfinite(steps):
        return
    cycle = found.step_size_up + found.step_size_down
    cycles = max(1, round(steps / cycle))
    if abs(steps - cycles * cycle) > max(2 * cycles, NEAR * cycle):
        told = (
            "the training takes %d steps, and ends in the middle of a cycle of %d: train for %d, or find bounds for it"
        )
        log.warning(told, steps, cycle, cycles * cycle)


def conclusive(found: Recommendation) -> Recommendation:
    """A recommendation that a training may follow; why its confidence is low, if it is, is logged as a warning.

    Raises:
        InvalidArgument: it is inconclusive.
    """
    if found.max_lr is None:
        raise InvalidArgument("recommendation", f"must have bounds, but is inconclusive: {'; '.join(found.reasons)}")
    doubts = [*found.warnings, *(found.reasons if found.confidence == "low" else [])]
    if doubts:
        log.warning("max_lr %g has %s confidence: %s", found.max_lr, found.confidence, "; ".join(doubts))
    return found

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clr.errors import InvalidArgument
from clr.range_tests.bounds import Bounds
from clr.schedules.cycles import (
    Candidate,
    TrainingLength,
    default_multipliers,
    rate_of,
    significant,
    way_of,
    whole_cycles,
)
from clr.schedules.policies import CYCLIC, DECAYING, schedule

EPOCHS = st.floats(1e-3, 1e4)
BUDGETS = st.builds(TrainingLength, EPOCHS, st.integers(1, 100_000))
MAX_LRS = st.floats(1e-8, 1e3)
RATIOS = st.floats(1.001, 1000)


def bounds(base_lr: float, max_lr: float) -> Bounds:
    return Bounds(base_lr, max_lr, {"base_lr": (base_lr, base_lr), "max_lr": (max_lr, max_lr)}, "high")


@given(length=BUDGETS, max_lr=MAX_LRS, ratio=RATIOS, cycles=st.integers(1, 1000))
def test_whole_cycles_fill_the_budget_to_within_two_steps_a_cycle(
    length: TrainingLength, max_lr: float, ratio: float, cycles: int
) -> None:
    candidate = length.propose(max_lr, ratio, cycles)
    assert candidate.cycles == min(cycles, length.steps // 2)
    assert length.steps - 2 * candidate.cycles < candidate.steps <= length.steps
    assert candidate.steps % (2 * candidate.stepsize) == 0


@given(policy=st.sampled_from(CYCLIC), cycles=st.integers(1, 9))
def test_a_schedule_ends_where_the_next_cycle_would_begin(policy: str, cycles: int) -> None:
    candidate = TrainingLength(20, 37).propose(0.1, 4, cycles, policy)
    bound = {"base_lr": candidate.base_lr, "max_lr": candidate.max_lr, "stepsize": candidate.stepsize}
    rate = schedule(policy, **bound, gamma=candidate.gamma)  # type: ignore[arg-type]
    decay = candidate.gamma**candidate.steps if policy == "exp_range" and candidate.gamma else 1.0
    assert rate(candidate.steps) == pytest.approx(candidate.base_lr * decay)
    assert rate(candidate.steps - candidate.stepsize) > rate(candidate.steps)


def test_the_run_of_a_schedule_has_a_point_at_the_end_of_each_cycle() -> None:
    run = TrainingLength(20, 500).propose(0.006, 6, 5, "exp_range").run(seed=9)
    assert (run.steps, run.step_size_up, run.step_size_down) == (10_000, 1000, 1000)
    assert (run.evaluate_every, run.seed) == (2000, 9)
    assert (run.policy, run.base_lr, run.max_lr, run.val_limit) == ("exp_range", 0.001, 0.006, None)
    assert run.gamma is not None


@given(epochs=EPOCHS, low=st.floats(1e-3, 100), width=st.floats(1, 100))
def test_whole_cycles_are_all_those_whose_multiplier_lies_in_the_range(epochs: float, low: float, width: float) -> None:
    high = low * width
    cycles = whole_cycles(epochs, low, high)
    for k in {*cycles[:3], *cycles[-3:]}:
        assert low * (1 - 1e-6) <= epochs / (2 * k) <= high * (1 + 1e-6)
    first, after = cycles.start, max(cycles.stop, cycles.start)
    if first > 1:
        assert epochs / (2 * (first - 1)) > high * (1 - 1e-6)
    assert epochs / (2 * after) < low * (1 + 1e-6) or not cycles


@pytest.mark.parametrize(
    ("epochs", "low", "high", "expected"),
    [(20, 1, 10, range(1, 11)), (20, 10, 10, [1]), (0.3, 0.15, 10, [1]), (20, 6, 9, []), (7, 0.7, 0.7, [5])],
)
def test_multipliers_on_the_edge_of_the_range_are_inside(
    epochs: float, low: float, high: float, expected: list[int]
) -> None:
    assert list(whole_cycles(epochs, low, high)) == list(expected)


@given(epochs=st.floats(1e-6, 1e5))
def test_one_whole_cycle_always_fits_the_default_multipliers(epochs: float) -> None:
    assert whole_cycles(epochs, *default_multipliers(epochs))[0] == 1


@given(epochs=st.floats(1e-6, 1e5))
def test_the_fewest_cycles_keep_the_stepsize_within_ten_epochs(epochs: float) -> None:
    k = TrainingLength(epochs, 100).fewest_cycles
    assert epochs / (2 * k) <= 10 * (1 + 1e-9)
    assert k == 1 or epochs / (2 * (k - 1)) > 10


@given(length=BUDGETS, max_lr=MAX_LRS, ratio=RATIOS)
def test_rates_are_rounded_to_four_digits_and_stay_in_order(
    length: TrainingLength, max_lr: float, ratio: float
) -> None:
    candidate = length.propose(max_lr, ratio, 1)
    assert candidate.base_lr <= candidate.max_lr
    assert candidate.max_lr == pytest.approx(max_lr, rel=5.01e-4)
    assert candidate.base_lr == pytest.approx(max_lr / ratio, rel=5.01e-4)
    assert candidate.ratio == pytest.approx(ratio, rel=2e-3)
    assert significant(candidate.base_lr) == candidate.base_lr
    assert candidate.stepsize_multiplier > 0


@pytest.mark.parametrize("policy", DECAYING)
def test_gamma_decays_by_a_decade_over_the_budget(policy: str) -> None:
    candidate = TrainingLength(20, 500).propose(0.1, 10, 2, policy)
    assert candidate.gamma is not None
    assert candidate.gamma**10_000 == pytest.approx(0.1)


def test_policies_that_do_not_decay_have_no_gamma() -> None:
    assert all(
        TrainingLength(20, 500).propose(0.1, 10, 2, policy).gamma is None for policy in set(CYCLIC) - set(DECAYING)
    )


def test_a_proposal_survives_json() -> None:
    for policy in ("triangular", "exp_range"):
        candidate = TrainingLength(20, 500).propose(0.123456, 3.3, 3, policy)
        assert Candidate(**json.loads(json.dumps(candidate.to_dict()))) == candidate


def test_where_an_epoch_has_few_steps_a_cycle_has_more_epochs() -> None:
    candidate = TrainingLength(1000, 1).propose(0.1, 10, TrainingLength(1000, 1).fewest_cycles)
    assert (candidate.cycles, candidate.stepsize) == (5, 100)
    assert TrainingLength(60, 10).fewest_cycles == 3, "ten epochs are a hundred steps"


def test_the_first_proposal_takes_the_bounds_and_the_fewest_cycles() -> None:
    candidate = bounds(0.001, 0.006).candidate(TrainingLength(50, 100))
    assert candidate is not None
    assert (candidate.base_lr, candidate.max_lr, candidate.cycles) == (0.001, 0.006, 3)
    assert Bounds.inconclusive("all noise").candidate(TrainingLength(50, 100)) is None


@given(length=BUDGETS, cycles=st.integers(1, 20))
def test_a_proposal_that_fills_the_budget_stays_as_it_is(length: TrainingLength, cycles: int) -> None:
    candidate = length.propose(0.1, 7, cycles, "exp_range")
    assert length.stretch(candidate) == candidate


def test_a_longer_budget_repeats_the_cycle_and_a_shorter_one_cuts_it() -> None:
    candidate = TrainingLength(5, 500).propose(0.1, 7, 2, "exp_range")
    longer, shorter = TrainingLength(50, 500).stretch(candidate), TrainingLength(1, 500).stretch(candidate)
    assert (longer.cycles, longer.stepsize, longer.steps) == (20, candidate.stepsize, 25_000)
    assert (shorter.cycles, shorter.steps) == (1, 500)
    for stretched in (longer, shorter):
        assert (stretched.base_lr, stretched.max_lr, stretched.policy) == (
            candidate.base_lr,
            candidate.max_lr,
            "exp_range",
        )
    assert longer.gamma is not None
    assert longer.gamma**25_000 == pytest.approx(0.1)


@pytest.mark.parametrize("epochs", [0, -1, math.nan, math.inf])
def test_a_budget_has_a_positive_finite_number_of_epochs(epochs: float) -> None:
    with pytest.raises(InvalidArgument, match="epochs: must be above 0 and finite"):
        TrainingLength(epochs, 100)


def test_a_budget_has_at_least_one_step_an_epoch_and_two_in_all() -> None:
    with pytest.raises(InvalidArgument, match="iterations_per_epoch: must be at least 1, but got 0"):
        TrainingLength(1, 0)
    assert TrainingLength(0.001, 1).steps == 2


@pytest.mark.parametrize(("steps", "within"), [(40, 1e-12), (999, 1e-12), (20_000, 1e-3), (1_000_000, 1e-3)])
def test_a_run_goes_as_far_as_the_sum_of_its_rates_however_long_it_is(steps: int, within: float) -> None:
    run = TrainingLength(1, steps).propose(0.1, 10, 1).run(0)
    part, rate = min(steps, 20_000) // 2, rate_of(run)
    assert way_of(run, part) == pytest.approx(sum(rate(step) for step in range(part)), rel=within)
    assert way_of(run, steps) == pytest.approx(0.055 * steps, rel=0.05)

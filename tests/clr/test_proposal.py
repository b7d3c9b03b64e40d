import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clr.bounds import Bounds
from clr.errors import InvalidArgument
from clr.policies import CYCLIC, DECAYING, schedule
from clr.proposal import Budget, Proposal, default_multipliers, significant, whole_cycles

EPOCHS = st.floats(1e-3, 1e4)
BUDGETS = st.builds(Budget, EPOCHS, st.integers(1, 100_000))
MAX_LRS = st.floats(1e-8, 1e3)
RATIOS = st.floats(1.001, 1000)


def bounds(base_lr: float, max_lr: float) -> Bounds:
    return Bounds(base_lr, max_lr, {"base_lr": (base_lr, base_lr), "max_lr": (max_lr, max_lr)}, "high")


@given(budget=BUDGETS, max_lr=MAX_LRS, ratio=RATIOS, cycles=st.integers(1, 1000))
def test_whole_cycles_fill_the_budget_to_within_two_steps_a_cycle(
    budget: Budget, max_lr: float, ratio: float, cycles: int
) -> None:
    proposal = budget.propose(max_lr, ratio, cycles)
    assert proposal.cycles == min(cycles, budget.steps // 2)
    assert budget.steps - 2 * proposal.cycles < proposal.steps <= budget.steps
    assert proposal.steps % (2 * proposal.stepsize) == 0


@given(policy=st.sampled_from(CYCLIC), cycles=st.integers(1, 9))
def test_a_schedule_ends_where_the_next_cycle_would_begin(policy: str, cycles: int) -> None:
    proposal = Budget(20, 37).propose(0.1, 4, cycles, policy)
    bound = {"base_lr": proposal.base_lr, "max_lr": proposal.max_lr, "stepsize": proposal.stepsize}
    rate = schedule(policy, **bound, gamma=proposal.gamma)  # type: ignore[arg-type]
    decay = proposal.gamma**proposal.steps if policy == "exp_range" and proposal.gamma else 1.0
    assert rate(proposal.steps) == pytest.approx(proposal.base_lr * decay)
    assert rate(proposal.steps - proposal.stepsize) > rate(proposal.steps)


def test_the_run_of_a_schedule_has_a_point_at_the_end_of_each_cycle() -> None:
    run = Budget(20, 500).propose(0.006, 6, 5, "exp_range").run(seed=9)
    assert (run.steps, run.stepsize, run.evaluate_every, run.seed) == (10_000, 1000, 2000, 9)
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
    k = Budget(epochs, 100).fewest_cycles
    assert epochs / (2 * k) <= 10 * (1 + 1e-9)
    assert k == 1 or epochs / (2 * (k - 1)) > 10


@given(budget=BUDGETS, max_lr=MAX_LRS, ratio=RATIOS)
def test_rates_are_rounded_to_four_digits_and_stay_in_order(budget: Budget, max_lr: float, ratio: float) -> None:
    proposal = budget.propose(max_lr, ratio, 1)
    assert proposal.base_lr <= proposal.max_lr
    assert proposal.max_lr == pytest.approx(max_lr, rel=5.01e-4)
    assert proposal.base_lr == pytest.approx(max_lr / ratio, rel=5.01e-4)
    assert proposal.ratio == pytest.approx(ratio, rel=2e-3)
    assert significant(proposal.base_lr) == proposal.base_lr
    assert proposal.stepsize_multiplier > 0


@pytest.mark.parametrize("policy", DECAYING)
def test_gamma_decays_by_a_decade_over_the_budget(policy: str) -> None:
    proposal = Budget(20, 500).propose(0.1, 10, 2, policy)
    assert proposal.gamma is not None
    assert proposal.gamma**10_000 == pytest.approx(0.1)


def test_policies_that_do_not_decay_have_no_gamma() -> None:
    assert all(Budget(20, 500).propose(0.1, 10, 2, policy).gamma is None for policy in set(CYCLIC) - set(DECAYING))


def test_a_proposal_survives_json() -> None:
    for policy in ("triangular", "exp_range"):
        proposal = Budget(20, 500).propose(0.123456, 3.3, 3, policy)
        assert Proposal(**json.loads(json.dumps(proposal.to_dict()))) == proposal


def test_the_first_proposal_takes_the_bounds_and_the_fewest_cycles() -> None:
    proposal = Budget(50, 100).first_proposal(bounds(0.001, 0.006))
    assert proposal is not None
    assert (proposal.base_lr, proposal.max_lr, proposal.cycles) == (0.001, 0.006, 3)
    assert Budget(50, 100).first_proposal(Bounds.inconclusive("all noise")) is None


@given(budget=BUDGETS, cycles=st.integers(1, 20))
def test_a_proposal_that_fills_the_budget_stays_as_it_is(budget: Budget, cycles: int) -> None:
    proposal = budget.propose(0.1, 7, cycles, "exp_range")
    assert budget.stretch(proposal) == proposal


def test_a_longer_budget_repeats_the_cycle_and_a_shorter_one_cuts_it() -> None:
    proposal = Budget(5, 500).propose(0.1, 7, 2, "exp_range")
    longer, shorter = Budget(50, 500).stretch(proposal), Budget(1, 500).stretch(proposal)
    assert (longer.cycles, longer.stepsize, longer.steps) == (20, proposal.stepsize, 25_000)
    assert (shorter.cycles, shorter.steps) == (1, 500)
    for stretched in (longer, shorter):
        assert (stretched.base_lr, stretched.max_lr, stretched.policy) == (
            proposal.base_lr,
            proposal.max_lr,
            "exp_range",
        )
    assert longer.gamma is not None
    assert longer.gamma**25_000 == pytest.approx(0.1)


@pytest.mark.parametrize("epochs", [0, -1, math.nan, math.inf])
def test_a_budget_has_a_positive_finite_number_of_epochs(epochs: float) -> None:
    with pytest.raises(InvalidArgument, match="epochs: must be above 0 and finite"):
        Budget(epochs, 100)


def test_a_budget_has_at_least_one_step_an_epoch_and_two_in_all() -> None:
    with pytest.raises(InvalidArgument, match="iterations_per_epoch: must be at least 1, but got 0"):
        Budget(1, 0)
    assert Budget(0.001, 1).steps == 2

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clr.range_tests.bounds import RATIO
from clr.range_tests.repetition import DOWN, FARTHEST, FEWEST_STEPS, HIGHEST, LOWEST, STEP, UP, Finding, repetition
from clr.run import Run
from tests.clr.simulated import EDGE_OF_STABILITY, Simulate, bowl, carry_out, in_batches, losses_of


def find(simulate: Simulate, budget: int = 500, training: int = 1000, seed: int = 0, **ends: float | None) -> Finding:
    return carry_out(repetition(budget, training, seed, **ends), simulate)


def runs_of(finding: Finding) -> tuple[Run, list[Run], list[Run]]:
    """The bracket, the two ramps and the three proofs."""
    runs = [run for run, _ in finding.runs]
    return runs[0], runs[1:3], runs[3:]


def highest(finding: Finding) -> float:
    """The highest rate of any run, and of the answer."""
    return max([run.max_lr for run, _ in finding.runs] + [finding.max_lr or 0] + list(finding.interval or []))


def test_a_bracket_two_ramps_and_three_proofs_are_run_in_four_batches() -> None:
    _, sizes = in_batches(repetition(500, 1000, 0), bowl())
    assert sizes == [1, 2, 2, 1]


def test_the_runs_are_ramps_over_the_bracket_then_around_its_edge_then_triangles() -> None:
    finding = find(bowl())
    bracket, ramps, proofs = runs_of(finding)
    assert (bracket.base_lr, bracket.max_lr) == (LOWEST, HIGHEST)
    assert ramps[0].max_lr / ramps[0].base_lr == pytest.approx(math.exp(UP + DOWN))
    assert ramps[0].max_lr < 4 * EDGE_OF_STABILITY
    assert (ramps[0].base_lr, ramps[0].max_lr) == (ramps[1].base_lr, ramps[1].max_lr)
    assert all(run.policy == "exponential_ramp" and run.explode for run in (bracket, *ramps))
    assert all(run.policy == "triangular" and run.explode is None for run in proofs)
    assert [run.max_lr / run.base_lr for run in proofs] == pytest.approx([RATIO] * 3)
    steps = [math.log(high / low) for low, high in pairwise(sorted(run.max_lr for run in proofs))]
    assert steps == pytest.approx([STEP] * 2)
    assert all(2 * run.step_size_up == run.steps for run in proofs), "a proof is one whole cycle"


def test_every_ramp_has_a_seed_of_its_own_and_the_proofs_share_one() -> None:
    bracket, ramps, proofs = runs_of(find(bowl()))
    assert len({run.seed for run in (bracket, *ramps, proofs[0])}) == 4
    assert len({run.seed for run in proofs}) == 1
    assert not {run.seed for run in proofs} & {run.seed for run, _ in find(bowl(), seed=1).runs}


@settings(max_examples=50, deadline=None)
@given(budget=st.integers(FEWEST_STEPS, 5000), training=st.integers(2, 100_000), seed=st.integers(0, 2**31))
def test_a_repetition_never_takes_more_than_its_budget(budget: int, training: int, seed: int) -> None:
    finding = find(losses_of(lambda step, random: 1 - step / 1e4 + 0.01 * random.normal()), budget, training, seed)
    taken = sum(run.steps for run, _ in finding.runs)
    assert taken <= budget
    assert taken > 0.85 * budget or budget < 2 * FEWEST_STEPS
    assert len(finding.runs) == 6


@pytest.mark.parametrize("seed", range(4))
def test_the_answer_lies_below_the_edge_of_stability_and_in_its_interval(seed: int) -> None:
    finding = find(bowl(), seed=seed)
    assert finding.max_lr is not None
    assert finding.interval is not None
    assert finding.onset is not None
    assert 0.1 < finding.max_lr < EDGE_OF_STABILITY
    assert finding.interval[0] <= finding.max_lr <= finding.interval[1]
    assert 0 < finding.onset[0] <= finding.onset[1] < EDGE_OF_STABILITY
    assert finding.confidence in ("medium", "high")


def test_a_longer_training_gets_a_lower_rate() -> None:
    rates = [find(bowl(), training=training).max_lr or 0 for training in (125, 500, 1000)]
    assert rates[0] > rates[1] > rates[2] > rates[0] / 4


def test_beyond_eight_proofs_a_longer_training_gets_the_same_rate_and_an_interval_up_to_that_of_the_proofs() -> None:
    long, longer = find(bowl(), training=2000), find(bowl(), training=100_000)
    assert (long.max_lr, long.interval) == (longer.max_lr, longer.interval)
    assert long.max_lr is not None
    assert long.interval is not None
    assert long.interval[1] >= long.max_lr * FARTHEST**0.25 * 0.999, "where the length makes no difference"


@pytest.mark.parametrize("top", [100.0, EDGE_OF_STABILITY, 1.0, 0.3, 0.05, 1e-3, 1e-9])
@pytest.mark.parametrize("bottom", [None, 0.5])
@pytest.mark.parametrize("budget", [FEWEST_STEPS, 500])
def test_no_run_goes_beyond_a_highest_rate_of_the_callers_own(top: float, bottom: float | None, budget: int) -> None:
    finding = find(bowl(), budget, lowest=bottom and bottom * top, highest=top)
    bracket, ramps, proofs = runs_of(finding)
    assert highest(finding) <= top * (1 + 1e-9)
    assert bracket.max_lr == top
    assert bracket.base_lr == (0.5 * top if bottom else pytest.approx(min(LOWEST, top / 1e4)))
    assert all(run.base_lr < run.max_lr / 2 for run in ramps)
    assert len({run.max_lr for run in proofs}) == 3


def test_a_highest_rate_that_nothing_reaches_changes_nothing() -> None:
    free, limited = find(bowl()), find(bowl(), highest=HIGHEST, lowest=LOWEST)
    assert limited.max_lr == free.max_lr
    assert limited.runs == free.runs


def test_a_highest_rate_that_is_still_too_low_is_itself_proved() -> None:
    finding = find(bowl(), highest=0.05)
    assert highest(finding) == 0.05
    assert max(run.max_lr for run in runs_of(finding)[2]) == 0.05
    assert any("no rate tried was too high" in doubt for doubt in finding.doubts)
    assert finding.confidence == "low"
    assert finding.max_lr is not None
    assert 0.01 < finding.max_lr <= 0.05


def test_a_training_shorter_than_its_proofs_is_not_advised_more_than_the_highest_rate() -> None:
    free, limited = find(bowl(), training=20), find(bowl(), training=20, highest=0.05)
    assert limited.max_lr == 0.05
    assert highest(limited) == 0.05
    assert (free.max_lr or 0) > 0.05


def test_without_a_highest_rate_a_bracket_that_never_broke_is_followed_by_ramps_a_decade_beyond() -> None:
    finding = find(bowl(k=100))
    _, ramps, _ = runs_of(finding)
    assert ramps[0].max_lr == pytest.approx(10 * HIGHEST)
    assert finding.max_lr is not None
    assert 10 < finding.max_lr < 100 * EDGE_OF_STABILITY


@pytest.mark.parametrize("lowest", [5.0, 10.0, 1000.0])
def test_a_lowest_rate_near_or_above_the_default_highest_still_begins_a_rising_bracket(lowest: float) -> None:
    bracket, *_ = runs_of(find(bowl(k=1e4), lowest=lowest))
    assert bracket.base_lr == lowest
    assert bracket.max_lr >= 1e4 * lowest * (1 - 1e-9)


def test_rates_are_written_without_what_logarithms_add() -> None:
    bracket, *_ = runs_of(find(bowl(), lowest=1e-5, highest=0.7))
    assert (bracket.base_lr, bracket.max_lr) == (1e-5, 0.7)


def test_a_loss_that_is_never_finite_ends_the_repetition_after_the_bracket() -> None:
    finding = find(losses_of(lambda step, random: math.nan))
    assert (finding.max_lr, finding.interval, finding.onset) == (None, None, None)
    assert finding.confidence == "inconclusive"
    assert finding.doubts == ["the loss is not finite, even at the lowest rate"]
    assert len(finding.runs) == 1


def test_what_neither_learnt_nor_broke_has_no_rate() -> None:
    finding = find(losses_of(lambda step, random: 1 + 0.01 * random.normal()))
    assert finding.confidence == "inconclusive"
    assert (finding.max_lr, finding.interval) == (None, None)
    assert any("no rate tried was too high" in doubt for doubt in finding.doubts)
    low, middle, high = (run.max_lr for run in runs_of(finding)[2])
    assert low < middle < high, "nothing learnt and nothing broke: the third is the highest"


def breaking(run: Run) -> Any:
    """A loss that never falls, and breaks above the rate 0.1."""
    losses = losses_of(lambda step, random: 1 + 0.01 * random.normal())(run)
    for step, rate in enumerate(losses.lr):
        losses.loss[step] += 1e3 * max(0, rate - 0.1)
    return losses


def test_what_broke_without_learning_is_inconclusive_but_knows_where_it_broke() -> None:
    finding = find(breaking)
    assert finding.confidence == "inconclusive"
    assert finding.max_lr is not None
    assert finding.max_lr < 0.1
    first, second, third = (run.max_lr for run in runs_of(finding)[2])
    assert third < first < second, "neither learnt: both are too high"


@settings(max_examples=25, deadline=None)
@given(
    losses=st.lists(st.floats(width=32), min_size=1, max_size=40),
    noise=st.sampled_from([0.0, 1e-3, 1.0, 1e6]),
    budget=st.integers(FEWEST_STEPS, 400),
)
def test_no_curve_whatever_raises_or_yields_a_rate_outside_its_interval(
    losses: list[float], noise: float, budget: int
) -> None:
    def loss(step: int, random: np.random.Generator) -> float:
        return losses[step % len(losses)] + noise * random.normal()

    finding = find(losses_of(loss), budget)
    if finding.max_lr is not None:
        assert finding.interval is not None
        assert 0 < finding.interval[0] <= finding.max_lr <= finding.interval[1] < math.inf

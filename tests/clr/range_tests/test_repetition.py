import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clr.range_tests.bounds import RATIO
from clr.range_tests.method import METHOD, rate
from clr.range_tests.repetition import repetition
from clr.run import Curve, Run
from clr.schedules.cycles import RISE
from tests.clr.range_tests.findings import find, highest, plateau, proofs_of, ramps_of
from tests.clr.simulated import EDGE_OF_STABILITY, Simulate, bowl, in_batches, losses_of, rates_of

FEWEST_STEPS = METHOD.fewest_steps
LOWEST, HIGHEST = rate(METHOD.bracket.lowest), rate(METHOD.bracket.highest)


def test_a_bracket_two_ramps_and_proofs_of_two_lengths_are_run_one_after_the_other() -> None:
    _, sizes = in_batches(repetition(1000, 1000, 0), bowl())
    assert sizes[:3] == [1, 2, 2]
    assert sizes[-1] == 2
    assert set(sizes[3:-1]) == {1}, "the search for the best rate goes on one proof at a time"


def test_the_runs_are_ramps_over_the_bracket_then_around_its_edge_then_cycles_of_the_recommended_shape() -> None:
    finding = find(bowl())
    bracket, *ramps = ramps_of(finding)
    assert (bracket.base_lr, bracket.max_lr) == (LOWEST, HIGHEST)
    assert ramps[0].max_lr / ramps[0].base_lr == pytest.approx(math.exp(METHOD.ramps.up + METHOD.ramps.down))
    assert ramps[0].max_lr < 4 * EDGE_OF_STABILITY
    assert (ramps[0].base_lr, ramps[0].max_lr) == (ramps[1].base_lr, ramps[1].max_lr)
    assert all(run.policy == "exponential_ramp" and run.explode for run in (bracket, *ramps))
    for run in (*proofs_of(finding)[0], *proofs_of(finding)[1]):
        assert (run.policy, run.explode) == ("triangular", None)
        assert run.max_lr / run.base_lr == pytest.approx(RATIO)
        assert run.step_size_up + (run.step_size_down or 0) == run.steps, "a proof is one whole cycle"
        assert run.step_size_up == pytest.approx(RISE * run.steps, abs=1)


def test_every_ramp_has_a_seed_of_its_own_and_proofs_of_one_length_share_one() -> None:
    finding = find(bowl())
    short, long = proofs_of(finding)
    assert len({run.seed for run in (*ramps_of(finding), short[0], long[0])}) == 5
    assert len({run.seed for run in short}) == len({run.seed for run in long}) == 1
    assert not {run.seed for run in short} & {run.seed for run, _ in find(bowl(), seed=1).runs}


@settings(max_examples=50, deadline=None)
@given(budget=st.integers(FEWEST_STEPS, 5000), training=st.integers(2, 100_000), seed=st.integers(0, 2**31))
def test_a_repetition_never_takes_more_than_its_budget(budget: int, training: int, seed: int) -> None:
    finding = find(losses_of(lambda step, random: 1 - step / 1e4 + 0.01 * random.normal()), budget, training, seed)
    assert sum(run.steps for run, _ in finding.runs) <= budget


@pytest.mark.parametrize("seed", range(4))
def test_the_answer_lies_below_the_edge_of_stability_and_in_its_interval(seed: int) -> None:
    finding = find(bowl(), seed=seed)
    assert finding.max_lr is not None
    assert finding.interval is not None
    assert finding.onset is not None
    assert 0.1 < finding.max_lr < EDGE_OF_STABILITY
    assert finding.interval[0] <= finding.max_lr <= finding.interval[1]
    assert 0 < finding.onset[0] <= finding.onset[1] < EDGE_OF_STABILITY


@pytest.mark.parametrize("seed", range(4))
def test_the_best_proof_has_a_worse_one_on_either_side(seed: int) -> None:
    finding = find(bowl(k=1 + seed), seed=seed)
    short = {id(run) for run in proofs_of(finding)[0]}
    ends = sorted(
        (run.max_lr, np.mean(curve.loss[-run.steps // 6 :])) for run, curve in finding.runs if id(run) in short
    )
    assert 0 < min(range(len(ends)), key=lambda i: ends[i][1]) < len(ends) - 1


def test_a_longer_training_gets_a_lower_rate_and_a_wider_interval() -> None:
    found = [find(bowl(), training=training) for training in (500, 5000, 50_000)]
    rates = [one.max_lr or 0 for one in found]
    widths = [one.interval[1] / one.interval[0] for one in found if one.interval]
    assert rates[0] > rates[1] > rates[2] > rates[0] / 10
    assert widths == sorted(widths)


def test_the_exponent_is_measured_where_proofs_had_hardly_left_the_loss_they_began_at() -> None:
    finding = find(plateau(3))
    assert any("hardly left the loss they began at" in doubt for doubt in finding.doubts)
    assert finding.confidence == "low"
    short, long = proofs_of(finding)
    assert finding.max_lr is not None
    assert 0.1 < finding.max_lr < 3
    assert {run.seed for run in short} == {run.seed for run in long}, "two lengths of the same training are compared"
    assert long[0].steps > 1.5 * short[0].steps


@pytest.mark.parametrize("budget", [500, 1000])
def test_where_ramps_learn_nothing_all_that_is_left_goes_into_three_long_cycles(budget: int) -> None:
    finding = find(plateau(12), budget, budget)
    cycles, longer = proofs_of(finding)
    assert len(cycles) == 3
    assert not longer
    assert sum(run.steps for run, _ in finding.runs) > 0.97 * budget
    assert finding.max_lr is not None
    assert 0.1 < finding.max_lr < 1
    assert proofs_of(find(bowl(), budget, budget))[0][0].steps == budget / 10, "and into short ones where they learn"


@pytest.mark.parametrize("top", [100.0, EDGE_OF_STABILITY, 1.0, 0.3, 0.05, 1e-3, 1e-9])
@pytest.mark.parametrize("bottom", [None, 0.5])
@pytest.mark.parametrize("budget", [FEWEST_STEPS, 500])
def test_no_run_goes_beyond_a_highest_rate_of_the_callers_own(top: float, bottom: float | None, budget: int) -> None:
    finding = find(bowl(), budget, lowest=bottom and bottom * top, highest=top)
    bracket, *ramps = ramps_of(finding)
    assert highest(finding) <= top * (1 + 1e-9)
    assert bracket.max_lr == top
    assert bracket.base_lr == (0.5 * top if bottom else pytest.approx(min(LOWEST, top / 1e4)))
    assert all(run.base_lr < run.max_lr / 1.9 for run in ramps)
    assert len({run.max_lr for runs in proofs_of(finding) for run in runs}) >= 3


def test_a_highest_rate_that_nothing_reaches_changes_nothing() -> None:
    free, limited = find(bowl()), find(bowl(), highest=HIGHEST, lowest=LOWEST)
    assert limited.max_lr == free.max_lr
    assert limited.runs == free.runs


def test_a_highest_rate_that_is_still_too_low_is_itself_proved() -> None:
    finding = find(bowl(), highest=0.05)
    assert highest(finding) == 0.05
    assert max(run.max_lr for run in proofs_of(finding)[0]) == 0.05
    assert any("no rate tried was too high" in doubt for doubt in finding.doubts)
    assert finding.confidence == "low"
    assert finding.max_lr == 0.05


@pytest.mark.parametrize("k", [1e2, 1e5, 1e9])
def test_the_bracket_goes_up_until_the_training_breaks(k: float) -> None:
    finding = find(bowl(k=k))
    brackets = [run for run in ramps_of(finding) if run.max_lr / run.base_lr > 1e3]
    assert brackets[-1].max_lr > k * EDGE_OF_STABILITY
    assert len({run.seed for run in brackets}) == 1
    assert finding.max_lr is not None
    assert 0.1 * k < finding.max_lr < k * EDGE_OF_STABILITY


@pytest.mark.parametrize("k", [1e-8, 1e-11])
def test_the_bracket_goes_down_until_the_training_no_longer_breaks(k: float) -> None:
    finding = find(bowl(k=k))
    assert finding.max_lr is not None
    assert 0.1 * k < finding.max_lr < k * EDGE_OF_STABILITY
    assert not any("lowest rate" in doubt for doubt in finding.doubts)


def dying(run: Run) -> Curve:
    """A bowl in which a rate that is too high ends in a dead network: a loss below the start that no longer changes."""
    made = bowl()(run)
    losses, dead = [], False
    for loss in made.loss:
        dead = dead or loss > 3
        losses.append(1.2 + 0.01 * math.sin(1e3 * loss) if dead and math.isfinite(loss) else 1.2 if dead else loss)
    losses += [1.2] * (run.steps - len(losses))
    return Curve(rates_of(run), losses)


def test_the_bracket_ends_where_networks_die_without_a_higher_loss() -> None:
    finding = find(dying)
    assert max(run.max_lr for run in ramps_of(finding)) < 100
    assert finding.max_lr is not None
    assert 0.1 < finding.max_lr < EDGE_OF_STABILITY


def unseeded(simulate: Simulate) -> Simulate:
    """The same with noise that depends on more than the seed."""

    def simulated(run: Run) -> Curve:
        curve = simulate(run)
        random = np.random.default_rng(int(1e6 * math.log(run.max_lr)) % 2**32)
        return replace(curve, loss=(np.asarray(curve.loss) + 0.02 * random.normal(size=len(curve.loss))).tolist())

    return simulated


@pytest.mark.parametrize(("seeded", "said"), [(True, "train alike: the optimizer bounds its steps"), (False, "noisy")])
def test_the_bracket_goes_no_further_than_to_where_higher_rates_do_no_other(seeded: bool, said: str) -> None:
    finding = find(bowl(most=0.2) if seeded else unseeded(bowl(most=0.2)))
    assert any(said in doubt for doubt in finding.doubts)
    assert finding.confidence != "high"
    assert finding.max_lr is not None
    assert finding.max_lr > 0.02
    assert highest(finding) <= 1e5


@pytest.mark.parametrize("ends", [{}, {"highest": 1.0}])
def test_a_rate_that_is_not_used_has_no_bounds(ends: dict[str, float]) -> None:
    finding = find(bowl(most=1e-20), **ends)
    assert finding.confidence == "inconclusive"
    assert "is the learning rate used?" in finding.doubts[-1]


def test_a_rate_that_is_not_used_by_a_training_without_seeds_has_no_bounds() -> None:
    finding = find(unseeded(bowl(most=1e-20)))
    assert (finding.max_lr, finding.confidence) == (None, "inconclusive")


@pytest.mark.parametrize("lowest", [5.0, 10.0, 1000.0])
def test_a_lowest_rate_near_or_above_the_default_highest_still_begins_a_rising_bracket(lowest: float) -> None:
    bracket = ramps_of(find(bowl(k=1e4), lowest=lowest))[0]
    assert bracket.base_lr == lowest
    assert bracket.max_lr >= 1e4 * lowest * (1 - 1e-9)


def test_rates_are_written_without_what_logarithms_add() -> None:
    bracket = ramps_of(find(bowl(), lowest=1e-5, highest=0.7))[0]
    assert (bracket.base_lr, bracket.max_lr) == (1e-5, 0.7)


def test_a_loss_that_is_never_finite_ends_the_repetition_after_the_brackets() -> None:
    finding = find(losses_of(lambda step, random: math.nan))
    assert (finding.max_lr, finding.interval, finding.onset) == (None, None, None)
    assert finding.confidence == "inconclusive"
    assert finding.doubts == ["the loss is not finite, even at the lowest rate"]
    assert len(finding.runs) == 1 + METHOD.bracket.most


def test_a_loss_that_is_not_finite_at_a_few_early_batches_makes_no_difference() -> None:
    def gaps(run: Run) -> Curve:
        made = bowl()(run)
        for step in (0, 3, 4):
            made.loss[step] = math.nan
        return made

    whole, holed = find(bowl()), find(gaps)
    assert whole.max_lr is not None
    assert holed.max_lr == pytest.approx(whole.max_lr, rel=0.3)


def test_what_neither_learnt_nor_broke_has_no_rate() -> None:
    finding = find(unseeded(losses_of(lambda step, random: 1 + 0.01 * random.normal())))
    assert finding.confidence == "inconclusive"
    assert (finding.max_lr, finding.interval) == (None, None)


def breaking(run: Run) -> Any:
    """A loss that never falls, and breaks above the rate 0.1."""
    losses = losses_of(lambda step, random: 1 + 0.01 * random.normal())(run)
    for step, lr in enumerate(losses.lr):
        losses.loss[step] += 1e3 * max(0, lr - 0.1)
    return losses


def test_what_broke_without_learning_is_inconclusive_but_knows_where_it_broke() -> None:
    finding = find(breaking)
    assert finding.confidence == "inconclusive"
    assert finding.max_lr is not None
    assert finding.max_lr < 0.1


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


def scored(simulate: Simulate, score: Callable[[Run], float]) -> Simulate:
    """The same runs with a score at their end, and one of an untouched network along ramps."""

    def with_scores(run: Run) -> Curve:
        curve = simulate(run)
        return replace(curve, steps=[len(curve.loss)], metric=[0.1 if run.is_ramp else score(run)])

    return with_scores


def test_a_score_tells_that_something_was_learnt_where_losses_are_too_noisy() -> None:
    def noisy(run: Run) -> Curve:
        random = np.random.default_rng(run.seed)  # the same batches at every rate
        away = abs(math.log(run.max_lr))
        losses = [
            5 + 4 * random.normal() - (0 if run.is_ramp else max(0.0, 0.3 - 0.1 * away)) for _ in range(run.steps)
        ]
        if run.max_lr > 3:
            losses = [loss * (1 if rate < 3 else 100) for loss, rate in zip(losses, rates_of(run), strict=True)]
        return Curve(rates_of(run), losses)

    alone = find(noisy, 300, 300)
    assert alone.confidence == "inconclusive"
    assert any("beyond its noise" in doubt for doubt in alone.doubts)
    borne_out = find(scored(noisy, lambda run: 0.9 - 0.1 * abs(math.log(run.max_lr))), 300, 300)
    assert borne_out.confidence == "low"
    dead = find(scored(noisy, lambda _: 0.1), 300, 300)
    assert dead.confidence == "inconclusive", "a constant predictor scores as an untouched network does"


@pytest.mark.parametrize("seeded", [True, False])
def test_a_training_that_takes_no_seed_is_told(seeded: bool) -> None:
    starts, plain = itertools.count(), bowl()

    def elsewhere(run: Run) -> Curve:
        return plain(replace(run, seed=run.seed if seeded else next(starts)))

    finding = find(elsewhere)
    assert finding.max_lr is not None
    assert any("runs of one seed began at different losses" in doubt for doubt in finding.doubts) != seeded
    if not seeded:
        assert finding.confidence != "high"


@pytest.mark.parametrize(("gain", "says"), [(1.0, False), (-1.0, True)])
def test_a_metric_that_gets_worse_as_the_loss_falls_is_told(gain: float, says: bool) -> None:
    task = bowl()

    def score(run: Run) -> float:
        return 0.1 + gain * (task(run).loss[0] - task(run).loss[-1])

    finding = find(scored(task, score))
    assert finding.max_lr is not None
    assert any("the metric got worse as the loss fell" in doubt for doubt in finding.doubts) == says


def test_a_loss_without_a_floor_is_inconclusive_unless_the_caller_names_a_highest_rate() -> None:
    def bottomless(run: Run) -> Curve:
        rates = rates_of(run)
        return Curve(rates, [float(-fallen) for fallen in np.cumsum(rates)])

    finding = find(bottomless)
    assert (finding.max_lr, finding.confidence) == (None, "inconclusive")
    assert any("without end: is it bounded below?" in doubt for doubt in finding.doubts)
    assert find(bottomless, highest=3.0).max_lr == pytest.approx(3.0, rel=0.6)


def test_where_every_short_cycle_diverges_the_data_are_asked_after() -> None:
    simulate = bowl()

    def poisoned(run: Run) -> Curve:
        curve = simulate(run)
        at = min(len(curve.loss), 14)  # of an epoch's batches one holds a value that is not finite
        return Curve(curve.lr[: at + 1], [*curve.loss[:at], math.nan], diverged=True)

    finding = find(poisoned)
    assert finding.confidence == "inconclusive"
    assert finding.doubts[0].startswith("every short cycle diverged, at")
    assert finding.doubts[0].endswith("too: are all values in the data finite?")

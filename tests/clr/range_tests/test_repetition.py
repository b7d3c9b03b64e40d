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
from clr.range_tests.evidence import Finding
from clr.range_tests.method import METHOD, rate
from clr.range_tests.proof import Proof, Untouched
from clr.range_tests.proofs import Proofs
from clr.range_tests.repetition import repetition
from clr.range_tests.signal import Start
from clr.run import ConstantOutput, Curve, Run
from clr.schedules.cycles import RISE
from tests.clr.simulated import EDGE_OF_STABILITY, Simulate, bowl, carry_out, in_batches, losses_of, rates_of

FEWEST_STEPS = METHOD.fewest_steps
LOWEST, HIGHEST = rate(METHOD.bracket.lowest), rate(METHOD.bracket.highest)


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


def proofs_at(ends: dict[float, float], start: float = 1.0) -> Proofs:
    """Proofs that ended at these losses, at rates that many steps away from one."""
    made = Proofs(30, 0, Untouched(Start(start, 0.01, 0.001)))
    noise = 0.001 * np.random.default_rng(0).normal(size=30)
    made.proofs = [Proof(x * METHOD.proofs.step, end + noise) for x, end in sorted(ends.items())]
    return made


def going_too_far(simulate: Simulate, enough: float, sharpness: float = 0.1) -> Simulate:
    """The same with scores that are best where the rates have summed up to ``enough``."""

    def simulated(run: Run) -> Curve:
        curve = simulate(run)
        went = np.cumsum(curve.lr)
        steps = [step for step in range(1, len(went) + 1) if step % run.evaluate_every == 0 or step == run.steps]
        scores = [max(0.0, 1 - sharpness * math.log(went[step - 1] / enough) ** 2) for step in steps]
        return replace(curve, steps=steps, metric=scores)

    return simulated


@pytest.mark.parametrize("training", [1_000, 4_000])
def test_what_overfits_is_given_the_rate_at_which_it_goes_as_far_as_scored_best(training: int) -> None:
    enough = 10.0
    finding = find(going_too_far(bowl(), enough), training=training)
    assert finding.confidence == "low"
    assert any("a lower loss but no better score" in doubt for doubt in finding.doubts)
    assert finding.max_lr == pytest.approx(enough / (0.55 * training), rel=1)
    assert finding.interval is not None
    assert finding.interval[0] < enough / (0.55 * training) < finding.interval[1]


def test_a_training_of_several_cycles_goes_no_further_than_one_of_a_single_cycle() -> None:
    one, two = (
        carry_out(repetition(1000, 2000 // cycles, 0, cycles=cycles), going_too_far(bowl(), 10.0)).max_lr or 0
        for cycles in (1, 2)
    )
    assert one == pytest.approx(two, rel=1e-9)


def test_where_rates_fade_what_overfits_goes_less_far_in_as_many_steps() -> None:
    found = [
        carry_out(repetition(1000, 4000, 0, optimizer={"name": name}), going_too_far(bowl(), 10.0)).max_lr or 0
        for name in ("SGD", "Adagrad")
    ]
    assert found[1] > 2 * found[0]


def scored_by_loss(score: Callable[[float], float], noise: float = 0.02) -> Simulate:
    """The bowl with scores that are made of the loss."""

    def simulated(run: Run) -> Curve:
        curve = bowl(noise=noise)(run)
        steps = [step for step in range(1, len(curve.loss) + 1) if step % run.evaluate_every == 0 or step == run.steps]
        return replace(curve, steps=steps, metric=[score(curve.loss[step - 1]) for step in steps])

    return simulated


def test_scores_that_get_better_as_the_loss_falls_change_nothing() -> None:
    known = find(bowl())
    better = find(scored_by_loss(lambda loss: -math.sqrt(abs(loss))))
    assert (better.max_lr, better.confidence, better.interval) == (known.max_lr, known.confidence, known.interval)


def test_scores_that_hardly_gain_while_the_loss_falls_are_of_no_high_confidence() -> None:
    finding = find(scored_by_loss(lambda loss: -max(loss, 0.1), noise=0.002))
    assert (finding.max_lr, finding.confidence) == (find(bowl(noise=0.002)).max_lr, "medium")
    assert any("more may be fitted than learnt" in doubt for doubt in finding.doubts)


def test_a_metric_of_the_wrong_direction_is_not_taken_for_overfitting() -> None:
    finding = find(scored_by_loss(lambda loss: loss))
    assert not any("a lower loss but no better" in doubt for doubt in finding.doubts)
    assert any("the direction is the wrong way round" in doubt for doubt in finding.doubts)


def test_only_the_longest_cycles_are_scored_before_their_ends() -> None:
    short, long = proofs_of(find(bowl()))
    assert all(run.evaluate_every == run.steps for run in short)
    assert all(run.evaluate_every == math.ceil(run.steps / METHOD.proofs.scores) for run in long)


def test_a_rate_above_a_cliff_says_nothing_of_how_low_the_best_is() -> None:
    smooth, cliff = proofs_at({0: 0.5, 1: 0.6}), proofs_at({0: 0.5, 1: 0.99})
    assert smooth.vertex[0] < 0
    assert smooth.vertex_with(smooth.vertex[1]) < METHOD.proofs.step / 2
    assert cliff.vertex[0] == 0
    assert cliff.vertex_with(0.01) == 0


def test_beside_a_cliff_an_answer_keeps_further_away_the_more_it_errs() -> None:
    cliff = proofs_at({-1: 0.6, 0: 0.5, 1: 0.99})
    small, large = (cliff.prudence(deviation) for deviation in (0.2, 0.7))
    assert 0 < small < large < METHOD.proofs.step
    steeper_below = proofs_at({-1: 0.95, 0: 0.5, 1: 0.99})
    assert steeper_below.prudence(0.7) < large, "a low rate costs as much there"


@pytest.mark.parametrize("ends", [{-1: 0.6, 0: 0.5, 1: 0.6}, {0: 0.5, 1: 0.99, 2: 1.0}, {-1: 0.6, 0: 0.5}])
def test_without_a_cliff_or_a_lower_rate_the_best_is_the_answer(ends: dict[float, float]) -> None:
    assert proofs_at(ends).prudence(0.7) == 0


def test_three_proofs_say_how_far_beyond_the_outermost_the_best_may_be() -> None:
    nearly_flat, steep = proofs_at({0: 0.9, 1: 0.52, 2: 0.5}), proofs_at({0: 0.9, 1: 0.7, 2: 0.5})
    assert METHOD.proofs.step < nearly_flat.vertex[0] < 2 * METHOD.proofs.step
    assert steep.vertex[0] == pytest.approx((2 + 1 / 3) * METHOD.proofs.step)


def test_noisy_short_cycles_are_of_no_high_confidence() -> None:
    assert find(bowl()).confidence == "high"
    noisy = find(bowl(noise=1.2))
    assert noisy.confidence == "medium"
    assert any("so noisy" in doubt for doubt in noisy.doubts)


def test_the_cost_of_an_error_is_that_of_the_parabola_and_the_noise_of_its_end() -> None:
    flat, steep = proofs_at({-1: 0.52, 0: 0.5, 1: 0.52}), proofs_at({-1: 0.9, 0: 0.5, 1: 0.9})
    assert flat.cost(METHOD.proofs.step) == pytest.approx(0.02 / 0.5, abs=0.002)
    assert steep.cost(METHOD.proofs.step) == pytest.approx(0.4 / 0.5, abs=0.002)
    assert proofs_at({-1: 0.9, 0: 0.5, 1: 0.9}, start=0.4).cost(1.0) == math.inf, "nothing fell"


def test_an_answer_that_errs_by_more_than_a_basin_is_of_no_high_confidence() -> None:
    assert find(bowl(), training=1000).confidence == "high"
    long = find(bowl(), training=100_000)
    assert long.confidence == "medium"
    assert any("so much longer" in doubt for doubt in long.doubts)


def test_one_length_of_short_cycles_says_little_of_a_much_longer_training() -> None:
    long = find(plateau(12), training=100_000)
    assert len({run.steps for run, _ in long.runs if not run.is_ramp}) == 1
    assert long.confidence == "low"
    assert any("is a guess" in doubt for doubt in long.doubts)


def test_where_the_optimizers_steps_change_with_their_number_so_does_the_rate() -> None:
    found = {
        name: carry_out(repetition(1000, 10_000, 0, optimizer={"name": name}), bowl()).max_lr or 0
        for name in ("SGD", "Adagrad", "RAdam")
    }
    assert found["SGD"] == find(bowl(), training=10_000).max_lr
    assert 2 < found["Adagrad"] / found["SGD"] < math.sqrt(10 / METHOD.proofs.share)
    assert 2 < found["SGD"] / found["RAdam"] < 8


def spiking(simulate: Simulate, above: float, height: float) -> Simulate:
    """The same, but cycles at higher rates are thrown back for a moment at their highest rate, and end as they did."""

    def simulated(run: Run) -> Curve:
        curve = simulate(run)
        if run.is_ramp or run.max_lr <= above:
            return curve
        at = run.step_size_up
        spike = range(at, at + max(4, run.steps // 16))
        return replace(curve, loss=[loss + height * (step in spike) for step, loss in enumerate(curve.loss)])

    return simulated


def test_half_of_a_rate_that_threw_a_cycle_back_is_the_most() -> None:
    found = find(bowl())
    assert found.max_lr is not None
    back = find(spiking(bowl(), 0.9 * found.max_lr, 1.0))
    lowest = min(run.max_lr for run in (*proofs_of(back)[0], *proofs_of(back)[1]) if run.max_lr > 0.9 * found.max_lr)
    assert back.max_lr == pytest.approx(lowest / 2)
    assert back.interval is not None
    assert back.interval[1] == pytest.approx(lowest)
    assert back.confidence == "medium"
    assert any(f"a cycle at {lowest:.3g} lost much of its fall" in doubt for doubt in back.doubts)


def test_what_a_cycle_soon_makes_good_or_was_never_ahead_of_changes_nothing() -> None:
    assert find(spiking(bowl(), 1e-9, 0.1)).max_lr == find(bowl()).max_lr
    assert find(spiking(bowl(), 1e-9, 1.0)).max_lr == find(bowl()).max_lr, "those at lower rates were thrown back too"


def best_at(rate_at: Callable[[int], float]) -> Simulate:
    """Cycles whose ends are a parabola about a rate that depends on their length; ramps as in the bowl."""

    def simulated(run: Run) -> Curve:
        if run.is_ramp:
            return bowl()(run)
        fall = 1 - 0.05 * math.log2(run.max_lr / rate_at(run.steps)) ** 2
        random = np.random.default_rng(run.seed)
        return Curve(
            rates_of(run),
            [0.7 - 0.6 * fall * (t / run.steps) ** 0.5 + 0.002 * random.normal() for t in range(run.steps)],
        )

    return simulated


def towards_a_constant(level: float) -> Simulate:
    """Cycles that fall from 1 to the level within a third of their steps, whatever the rate, and stay there."""

    def simulated(run: Run) -> Curve:
        if run.is_ramp:
            return bowl()(run)
        random = np.random.default_rng(run.seed)
        fallen = [max(level, 0.7 - 3 * (0.7 - level) * t / run.steps) for t in range(run.steps)]
        scatter = 0.001 * (1 + math.log10(run.max_lr) ** 2)
        return Curve(rates_of(run), [loss + scatter * random.normal() for loss in fallen])

    return simulated


def test_what_learns_one_output_for_all_examples_has_learnt_nothing() -> None:
    told = "did better than one output for all examples"
    learnt = carry_out(repetition(1000, 1000, 0), towards_a_constant(0.2))
    assert not any(told in doubt for doubt in learnt.doubts), "nobody knows what a constant loses"
    nothing = carry_out(repetition(1000, 1000, 0, constant=ConstantOutput(0.2, 0.004)), towards_a_constant(0.2))
    assert nothing.confidence == "inconclusive"
    assert any(told in doubt for doubt in nothing.doubts)


@pytest.mark.parametrize(("loss", "sd"), [(0.65, 0.02), (0.3, 0.4), (5.0, 0.1)])
def test_a_constant_that_is_passed_noisy_or_above_the_start_changes_no_rate(loss: float, sd: float) -> None:
    known, found = find(bowl()), carry_out(repetition(1000, 1000, 0, constant=ConstantOutput(loss, sd)), bowl())
    assert (found.max_lr, found.interval) == (known.max_lr, known.interval)


def test_noise_that_is_small_beside_the_fall_and_not_beside_what_was_learnt_is_of_no_high_confidence() -> None:
    sure = find(best_at(lambda steps: 0.3))
    assert not any("so noisy, that a small error may cost much" in doubt for doubt in sure.doubts)
    unsure = carry_out(repetition(1000, 1000, 0, constant=ConstantOutput(0.2, 0.001)), best_at(lambda steps: 0.3))
    assert any("so noisy, that a small error may cost much" in doubt for doubt in unsure.doubts)
    assert unsure.confidence == "medium"


def test_lengths_that_do_best_a_basin_apart_are_of_no_high_confidence() -> None:
    apart = "cycles of one length are best at"
    together = find(best_at(lambda steps: 0.3))
    assert not any(apart in doubt for doubt in together.doubts)
    doubtful = find(best_at(lambda steps: 0.3 if steps <= 100 else 0.1))
    assert any(apart in doubt for doubt in doubtful.doubts)
    assert doubtful.confidence != "high"


def test_a_score_that_is_no_more_than_noise_worse_at_all_ends_is_no_overfitting() -> None:
    def a_little_worse(share: float) -> Simulate:
        def simulated(run: Run) -> Curve:
            curve = scored_by_loss(lambda loss: -loss)(run)
            scores = list(curve.metric)
            if not run.is_ramp:
                scores[-1] = max(scores) - share
            return replace(curve, metric=scores)

        return simulated

    told = "a lower loss but no better score"
    assert not any(told in doubt for doubt in find(a_little_worse(0.02)).doubts)
    assert any(told in doubt for doubt in find(a_little_worse(0.3)).doubts)


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

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from clr.range_tests.method import METHOD
from clr.range_tests.proof import Proof, Untouched
from clr.range_tests.proofs import Proofs
from clr.range_tests.repetition import repetition
from clr.range_tests.signal import Start
from clr.run import ConstantOutput, Curve, Run
from tests.clr.range_tests.findings import find, plateau, proofs_of
from tests.clr.simulated import Simulate, bowl, carry_out, rates_of


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

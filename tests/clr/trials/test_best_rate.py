"""The belief in the best rate, after trainings made up of a parabola, a seed's luck and noise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clr.range_tests.bounds import Bounds
from clr.range_tests.method import OCTAVE
from clr.trials.best_rate import BestRate, Trained

BOUNDS = Bounds(0.01, 0.1, {"base_lr": (0.005, 0.03), "max_lr": (0.04, 0.25)}, "low")
PRIOR = BestRate.of(BOUNDS)


def trained(x: float, best: float, seed: int = 0, luck: float = 0.0, width: float = OCTAVE) -> Trained:
    return Trained(x, seed, 0.9 + luck - 0.01 * ((x - best) / width) ** 2)


def test_before_any_training_it_is_what_the_range_test_says() -> None:
    after = PRIOR.after([])
    assert after.x == pytest.approx(math.log(0.1))
    assert after.deviation == pytest.approx(PRIOR.deviation, rel=0.01)
    low, high = after.interval
    assert [low, high] == pytest.approx([0.04, 0.25], rel=0.01)


def test_one_training_says_nothing_of_the_rate() -> None:
    after = PRIOR.after([trained(PRIOR.x, PRIOR.x)])
    assert after.x == pytest.approx(PRIOR.x)
    assert after.deviation == pytest.approx(PRIOR.deviation, rel=0.01)


@pytest.mark.parametrize("octaves", [-1.0, 0.0, 0.7])
def test_three_trainings_of_a_clear_parabola_find_its_peak(octaves: float) -> None:
    best = PRIOR.x + octaves * OCTAVE
    three = [trained(PRIOR.x + k * OCTAVE, best, width=OCTAVE / 4) for k in (-1, 0, 1)]
    after = PRIOR.after(three)
    assert after.x == pytest.approx(best, abs=OCTAVE / 4)
    assert after.deviation < 0.7 * PRIOR.deviation
    assert after.lost < PRIOR.lost


def test_what_a_seed_adds_to_all_that_share_it_does_not_move_the_answer() -> None:
    best = PRIOR.x - OCTAVE / 2
    rates = [PRIOR.x + k * OCTAVE for k in (-1, 0, 1)]
    plain = PRIOR.after([trained(x, best) for x in rates])
    lucky = PRIOR.after([trained(x, best, luck=0.05) for x in rates])
    assert lucky.x == pytest.approx(plain.x)
    assert lucky.deviation == pytest.approx(plain.deviation)


def test_a_rate_that_diverged_is_a_wall_and_the_best_rate_lies_below_it() -> None:
    diverged = Trained(PRIOR.x + OCTAVE, 0, None)
    after = PRIOR.after([trained(PRIOR.x - OCTAVE, PRIOR.x), trained(PRIOR.x, PRIOR.x), diverged])
    assert after.x < PRIOR.x + OCTAVE / 2
    collapsed = Trained(PRIOR.x + OCTAVE, 0, 0.1)
    assert PRIOR.after([trained(PRIOR.x, PRIOR.x), collapsed]).x < PRIOR.x + OCTAVE / 2


def test_where_every_training_diverged_the_best_rate_lies_below_all() -> None:
    after = PRIOR.after([Trained(PRIOR.x, 0, None), Trained(PRIOR.x - OCTAVE, 0, None)])
    assert after.x < PRIOR.x - OCTAVE


def test_more_is_lost_the_further_away_and_least_at_the_best_rate() -> None:
    after = PRIOR.after([trained(PRIOR.x + k * OCTAVE, PRIOR.x) for k in (-1, 0, 1)])
    lost = [after.lost_at(after.max_lr * factor) for factor in (1, 1.5, 3)]
    assert lost == sorted(lost)
    assert lost[0] == pytest.approx(after.lost)


def test_a_longer_training_is_less_certain() -> None:
    longer = PRIOR.after_lengthening(10)
    assert longer.x == PRIOR.x
    assert longer.deviation > PRIOR.deviation
    assert PRIOR.after_lengthening(1).deviation == PRIOR.deviation


def test_intervals_hold_the_best_rate_as_often_as_they_promise() -> None:
    random, held = np.random.default_rng(0), 0
    for trial in range(400):
        best = random.normal(PRIOR.x, PRIOR.deviation)
        width = OCTAVE * 2 ** random.uniform(-2, 1)
        three = [
            trained(PRIOR.x + k * OCTAVE, best, seed=trial, luck=random.normal(0, 0.01), width=width)
            for k in (-1, 0, 1)
        ]
        low, high = PRIOR.after(three).interval
        held += low <= math.exp(best) <= high
    assert held > 0.85 * 400


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-12, 3), st.integers(0, 3), st.none() | st.floats(-5, 5)), max_size=8))
def test_whatever_was_trained_there_is_an_answer(rows: list[tuple[float, int, float | None]]) -> None:
    after = PRIOR.after([Trained(*row) for row in rows])
    assert all(math.isfinite(value) for value in (after.x, after.deviation, after.curvature, after.lost))
    assert after.deviation > 0
    assert after.interval[0] < after.max_lr < after.interval[1]

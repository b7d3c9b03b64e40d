"""Kinds of curves that others record. Of each kind many are made, whose right answer is known."""

import math
import time

import numpy as np
import pytest

from benchmarks.curves import KINDS, curves
from clr.errors import InvalidArgument
from clr.range_tests.averaging import FASTAI, LIGHTNING, TORCH_LR_FINDER, Averaging, by_noise, from_zero
from clr.range_tests.bounds import Bounds
from clr.range_tests.noise import Noise
from clr.range_tests.recorded import Recording, read_bounds, read_recordings, smoothed_mean
from clr.range_tests.signal import Array

COUNT = 12
HARD = {"linear-breaks-early": 4, "linear-noisy": 9, "hump": 9, "averaged-noise": 9, "falls-at-once": 11}
"""Where noise or too few rows before the break hide some of them: how many must be read right."""


def falling(n: int, seed: int = 0, noise: float = 0.03, low: float = 1e-6) -> tuple[Array, Array]:
    """Falls from 2.3 around 1e-3, is lowest between .01 and .03, and explodes beyond .1."""
    lr = np.geomspace(low, 1, n)
    loss = 2.3 - 1.8 / (1 + (1e-3 / lr) ** 1.5) + 0.2 * np.expm1(np.minimum(20 * lr, 8))
    return lr, loss + noise * np.random.default_rng(seed).normal(size=n)


def max_lr(bounds: Bounds) -> float:
    assert bounds.max_lr is not None, bounds.reasons
    return bounds.max_lr


def recorded_by(form: Averaging, losses: Array) -> Array:
    mean, averages = (losses[0] if form.from_first else 0.0), []
    for step, loss in enumerate(losses):
        mean = form.coefficient * mean + (1 - form.coefficient) * loss
        averages.append(mean / (1 - form.coefficient ** (step + form.correction)) if form.correction else mean)
    return np.array(averages)


@pytest.mark.parametrize("kind", KINDS)
def test_curves_of_known_bounds_are_read_right(kind: str) -> None:
    made = list(curves(kind, COUNT))
    assert sum(one.is_right(one.read()) for one in made) >= HARD.get(kind, COUNT)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "noise" not in kind and kind != "rising"])
def test_the_interval_of_a_curve_holds_what_is_right_and_is_narrow(kind: str) -> None:
    widths = []
    for one in curves(kind, COUNT):
        interval = one.read().interval
        if interval is not None and one.right is not None:
            low, high = interval["max_lr"]
            assert low <= 2 * one.right[1]
            assert high >= one.right[0] / 2
            widths.append(high / low)
    assert np.median(widths) < 10


@pytest.mark.parametrize("form", [LIGHTNING, FASTAI, TORCH_LR_FINDER, Averaging(0.9, 0)])
def test_an_average_is_undone_exactly(form: Averaging) -> None:
    _, losses = falling(100)
    assert form.undo(recorded_by(form, losses)) == pytest.approx(losses)


@pytest.mark.parametrize("seed", range(5))
def test_the_average_that_begins_at_half_the_loss_is_known_by_its_climb(seed: int) -> None:
    lr, losses = falling(100, seed, noise=0.1, low=1e-8)
    averages = recorded_by(LIGHTNING, losses)
    assert from_zero(averages) == LIGHTNING
    bounds = read_bounds(lr, averages)
    assert max_lr(bounds) == pytest.approx(max_lr(read_bounds(lr, losses)), rel=1e-6)
    assert "coefficient 0.98, which was undone" in bounds.reasons[1]


@pytest.mark.parametrize("seed", range(5))
def test_losses_themselves_are_taken_for_no_average(seed: int) -> None:
    for n in (60, 100, 400):
        _, losses = falling(n, seed)
        assert from_zero(losses) is None
        assert by_noise(losses) is None


def test_a_climb_that_no_average_explains_is_read_beyond() -> None:
    lr, losses = falling(400)
    climbing = losses - 1.8 * np.exp(-np.arange(400) / 80)
    bounds = read_bounds(lr, climbing)
    assert 0.007 < max_lr(bounds) < 0.06
    assert any("climbed before it fell" in reason for reason in bounds.reasons)


def test_the_sample_at_rate_0_is_the_level_of_a_linear_ramp() -> None:
    lr = np.linspace(0, 3, 200)
    loss = np.where(lr == 0, 4.5, 0.3 + 1.2 * np.exp(-lr / 0.05) + 0.05 * lr)
    bounds = read_bounds(lr, loss + 0.02 * np.random.default_rng(0).normal(size=200))
    assert 0.1 < max_lr(bounds) < 1.5
    assert "nothing broke: at the last rate, 3" in bounds.reasons[1]


def test_a_loss_that_broke_is_not_said_to_have_held() -> None:
    lr, losses = falling(200)
    for tail in (losses, np.where(lr > 0.1, math.nan, losses), np.where(lr > 0.1, math.inf, losses)):
        assert read_bounds(lr, tail).reasons == [
            "read from the training loss alone; a slower ramp would give a lower max_lr"
        ]


def test_a_metric_that_had_not_fallen_at_the_last_rate_is_said_to_have_not() -> None:
    lr = np.linspace(0, 3, 200)
    metric = 0.1 + 0.7 * (1 - np.exp(-lr / 0.2)) + 0.02 * np.random.default_rng(0).normal(size=200)
    losses = 2.3 - metric
    assert "the metric had not fallen at the last rate, 3" in read_bounds(lr, losses, metric).reasons[1]
    fell = np.where(lr > 2, 0.1, metric)
    assert len(read_bounds(lr, losses, fell).reasons) == 1
    assert len(read_bounds(lr, np.where(lr > 2.9, math.nan, losses), metric).reasons) == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_losses_that_were_not_finite_now_and_then_are_left_out(bad: float) -> None:
    lr, losses = falling(200)
    gaps = losses.copy()
    gaps[[0, 3, 4, 40]] = bad
    assert max_lr(read_bounds(lr, gaps)) == pytest.approx(max_lr(read_bounds(lr, losses)), rel=0.15)


def test_a_metric_alone_is_enough_and_nothing_at_all_is_not() -> None:
    lr, _ = falling(200)
    rising = 0.1 + 0.8 / (1 + (1e-3 / lr) ** 1.5) - 0.5 * (lr > 0.1)
    alone = read_bounds(lr, metric=rising)
    assert alone == read_bounds(lr, np.full(200, math.nan), rising)
    assert 1e-3 < max_lr(alone) < 0.1
    with pytest.raises(InvalidArgument, match="loss: must be given where there is no metric"):
        read_bounds(lr)


def test_rows_of_one_seed_may_have_too_few_metrics_to_be_read() -> None:
    lr, losses = falling(200)
    metric = np.where(np.arange(200) % 20 == 0, 0.5, math.nan)
    bounds = read_recordings([Recording(list(lr), list(losses), list(metric))])
    assert bounds.max_lr == read_bounds(lr, losses).max_lr
    assert bounds.reasons[-1] == "the metric was not read: it was taken 10 times, of 20 needed"


def test_the_smoothed_mean_reaches_as_far_as_all_seeds() -> None:
    short, whole = falling(200, 1), falling(300, 2)
    cut = np.where(short[0] > 0.05, math.nan, short[1])
    both = [Recording(list(short[0]), list(cut), []), Recording(list(whole[0]), list(whole[1]), [])]
    mean = smoothed_mean(both)
    assert len(mean["lr"]) == len(mean["loss"]) > 100
    assert 0.04 < mean["lr"][-1] <= 0.05
    assert smoothed_mean([Recording([0.1] * 30, [math.nan] * 30, [])]) == {"lr": [], "loss": []}


def test_the_time_of_a_reading_grows_no_faster_than_the_curve() -> None:
    def seconds(n: int) -> float:
        lr, losses = falling(n)
        start = time.process_time()
        read_bounds(lr, losses)
        read_bounds(lr, losses, -losses)
        return time.process_time() - start

    seconds(1000)
    assert seconds(160_000) < 30 * max(seconds(10_000), 0.02)


@pytest.mark.parametrize("n", [60, 100, 400])
@pytest.mark.parametrize("trend", [0.0, 5.0])
def test_noise_is_measured_whatever_the_trend(n: int, trend: float) -> None:
    white = np.random.default_rng(0).normal(size=(40, n)) + trend * np.sin(np.linspace(0, 3, n))
    found = [Noise.of(row) for row in white]
    assert np.median([noise.error(1) for noise in found]) == pytest.approx(1, rel=0.15)
    assert sum(noise.is_white for noise in found) >= 35

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clr.range_tests.signal import Array, Start, Valley, averaged, despike, finite_head, read_valley, smooth

WIDTH = 1 / 40
LOWEST_LOSS = math.log(0.01)
"""Where the curves below have their minimum, as a logarithm."""


def ramp(n: int) -> Array:
    """Logarithms of an exponential ramp's rates, from 1e-7 to 10."""
    return np.linspace(math.log(1e-7), math.log(10), n)


def falling(x: Array, noise: float = 0.03, seed: int = 0) -> Array:
    """A loss that falls from 2.3 to about 0.5 around the rate 0.001, is lowest at 0.01 and explodes near 0.1."""
    decades = (x - LOWEST_LOSS) / math.log(10)
    fall = 1.8 / (1 + np.exp(-4 * (decades + 1)))
    rise = np.expm1(4 * np.maximum(decades - 0.4, 0))
    return np.asarray(2.3 - fall + rise + noise * np.random.default_rng(seed).normal(size=len(x)))


def read(x: Array, *losses: Any, width: float = WIDTH) -> Valley:
    start = Start.of(losses[0])
    assert start is not None
    return read_valley(x, losses, start, width)


@pytest.mark.parametrize("width", [0.1, 0.5, 3, 50])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 100])
def test_smoothing_keeps_lengths_and_constants(n: int, width: float) -> None:
    assert smooth(np.full(n, -3.5), width) == pytest.approx([-3.5] * n)


def test_smoothing_averages_noise_and_leaves_its_argument_alone() -> None:
    noise = np.random.default_rng(0).normal(size=100_000)
    before = noise.copy()
    assert smooth(noise, 25).std() == pytest.approx(1 / math.sqrt(averaged(25)), rel=0.05)
    assert smooth(noise, 0.2) == pytest.approx(noise)
    assert (noise == before).all()


def test_smoothing_a_line_changes_it_at_its_ends_alone() -> None:
    line = np.arange(100.0)
    assert smooth(line, 3)[9:-9] == pytest.approx(line[9:-9])


def test_despiking_removes_one_wild_sample_and_keeps_steps() -> None:
    assert list(despike([1, 1, 99, 1, 1, 5, 5, 5])) == [1, 1, 1, 1, 1, 5, 5, 5]
    assert list(despike([2, 1])) == [2, 1]
    assert list(despike([])) == []


def test_the_finite_head_ends_before_the_first_value_that_is_not() -> None:
    assert list(finite_head([1, 2, math.nan, 3])) == [1, 2]
    assert list(finite_head([-math.inf, 1])) == []
    assert list(finite_head([1, 2])) == [1, 2]


def test_the_start_is_the_level_and_scatter_before_anything_moved() -> None:
    start = Start.of(falling(ramp(1000), noise=0.1))
    assert start is not None
    assert start.level == pytest.approx(2.3, abs=0.03)
    assert start.sd == pytest.approx(0.1, rel=0.2)
    assert start.error == pytest.approx(1.25 * 0.1 / math.sqrt(333), rel=0.2)


def test_a_spike_among_the_first_losses_hardly_moves_the_start() -> None:
    loss = falling(ramp(100))
    loss[2] = 1e6
    start = Start.of(loss)
    assert start is not None
    assert start.level == pytest.approx(2.3, abs=0.03)
    assert start.sd < 0.06


@pytest.mark.parametrize("loss", [[], [1.0, 2.0], [math.nan] * 50, [1.0, 2.0, math.inf, 1.0, 1.0]])
def test_there_is_no_start_without_three_finite_losses(loss: list[float]) -> None:
    assert Start.of(loss) is None


@pytest.mark.parametrize("n", [100, 1000])
def test_a_valley_is_read_where_it_is(n: int) -> None:
    x = ramp(n)
    valley = read(x, falling(x))
    assert valley.learned
    assert valley.broke
    assert valley.onset is not None
    assert valley.onset < valley.minimum <= valley.edge
    assert math.exp(valley.minimum) == pytest.approx(0.01, rel=0.6)
    assert math.exp(valley.onset) == pytest.approx(10**-3.5, rel=0.7)
    assert 0.01 < math.exp(valley.edge) < 0.1
    assert valley.fall == pytest.approx(1.8, rel=0.1)
    assert len(valley.curve) == n


def test_100_and_1000_samples_are_read_alike() -> None:
    coarse, fine = (read(ramp(n), falling(ramp(n))) for n in (100, 1000))
    assert coarse.edge == pytest.approx(fine.edge, abs=0.3)
    assert coarse.onset == pytest.approx(fine.onset, abs=0.3)


@settings(max_examples=50, deadline=None)
@given(
    a=st.floats(1e-6, 1e6),
    b=st.floats(-100, 100),
    k=st.floats(1e-6, 1e6),
    n=st.sampled_from([30, 100, 400]),
    seed=st.integers(0, 5),
)
def test_scaled_and_shifted_losses_and_scaled_rates_give_the_same_reading(
    a: float, b: float, k: float, n: int, seed: int
) -> None:
    x = ramp(n)
    loss = falling(x, seed=seed)
    plain, changed = read(x, loss), read(x + math.log(k), a * (loss + b))
    assert (changed.learned, changed.broke) == (plain.learned, plain.broke)
    assert changed.minimum - math.log(k) == pytest.approx(plain.minimum)
    assert changed.edge - math.log(k) == pytest.approx(plain.edge)
    assert changed.fall == pytest.approx(a * plain.fall, rel=1e-6)
    assert changed.curve == pytest.approx(a * (plain.curve + b), rel=1e-6, abs=1e-6 * a)


def test_a_negative_loss_is_a_loss_like_others() -> None:
    x = ramp(200)
    assert read(x, falling(x) - 50).edge == read(x, falling(x)).edge


def test_an_early_spike_and_an_end_that_is_not_finite_move_nothing() -> None:
    x = ramp(400)
    loss = falling(x)
    plain = read(x, loss)
    loss[2] = 9.0
    loss[(x > math.log(0.3)) & (x < math.log(3))] = math.inf
    loss[x > math.log(3)] = math.nan
    spoilt = read(x, loss)
    assert spoilt.learned
    assert spoilt.broke
    assert spoilt.edge == pytest.approx(plain.edge, abs=0.1)
    assert np.isfinite(spoilt.curve).all()


def test_a_curve_cut_off_where_it_exploded_reads_as_the_whole() -> None:
    x = ramp(400)
    loss = falling(x)
    assert read(x, loss[x < math.log(0.2)]).edge == pytest.approx(read(x, loss).edge, abs=0.1)


@pytest.mark.parametrize("n", [20, 100, 1000])
def test_noise_alone_is_not_learning(n: int) -> None:
    x = ramp(n)
    noises = (2.3 + 0.1 * np.random.default_rng(seed).normal(size=n) for seed in range(200))
    assert sum(read(x, noise).learned for noise in noises) <= 6


@pytest.mark.parametrize("loss", [np.zeros(100), np.full(100, 2.3), np.full(100, -1e-4)])
def test_a_constant_loss_neither_falls_nor_breaks(loss: Array) -> None:
    x = ramp(100)
    valley = read(x, loss)
    assert (valley.learned, valley.broke, valley.onset) == (False, False, None)
    assert valley.fall == pytest.approx(0, abs=1e-12)
    assert valley.edge == x[-1]


def test_a_loss_that_never_fell_ends_at_the_last_rate_before_it_broke() -> None:
    x = ramp(200)
    loss = 2.3 + 0.01 * np.random.default_rng(0).normal(size=200)
    loss[150:] += np.arange(50)
    valley = read(x, loss)
    assert (valley.learned, valley.broke, valley.onset) == (False, True, None)
    assert valley.edge == pytest.approx(x[150], abs=2 * (x[1] - x[0]))


def test_of_several_seeds_that_never_learnt_the_first_to_break_counts() -> None:
    x = ramp(200)
    flat = 2.3 + 0.01 * np.random.default_rng(0).normal(size=200)
    assert read(x, flat, flat[:120], flat[:150]).edge == pytest.approx(x[119])


def test_several_seeds_show_a_fall_that_one_of_them_hides_in_noise() -> None:
    x = ramp(100)
    step = np.where(x > math.log(0.01), -0.25, 0.0)
    seeds = [step + 0.2 * np.random.default_rng(seed).normal(size=100) for seed in range(16)]
    one, all_of_them = read(x, seeds[0]), read(x, *seeds)
    assert all_of_them.error == pytest.approx(one.error / 4)
    assert all_of_them.learned


def test_a_curve_that_only_falls_did_not_break() -> None:
    x = ramp(100)
    valley = read(x, falling(x)[x < LOWEST_LOSS])
    assert valley.broke, "what is missing counts as infinite"
    only = x[x < LOWEST_LOSS]
    assert not read(only, falling(only)).broke

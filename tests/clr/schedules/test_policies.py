import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, CyclicLR, LRScheduler, OneCycleLR

from clr.errors import InvalidArgument
from clr.schedules.policies import CYCLIC, DECAYING, POLICIES, RAMPS, schedule

SYMMETRIC = ("triangular", "welch", "hann")
BOUNDS = st.tuples(st.floats(1e-9, 1e3), st.floats(1, 1e4)).map(lambda pair: (pair[0], pair[0] * pair[1]))
STEPS = st.integers(0, 10**7)
SIZES = st.integers(1, 10**5)


def gamma_of(name: str) -> float | None:
    return 0.99994 if name in DECAYING else None


def rates_of(scheduler: LRScheduler, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def sgd(lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def test_the_names_are_the_contracts() -> None:
    assert list(POLICIES) == [
        *("triangular", "triangular2", "exp_range", "exp_range_amplitude", "welch", "hann"),
        *("fixed", "one_cycle", "cosine"),
    ]
    assert set(CYCLIC) < set(POLICIES)
    assert not set(RAMPS) & set(POLICIES)


@pytest.mark.parametrize("t", [0, 1, 999, 2000, 2001, 3999, 4000, 6000, 70_000])
def test_cyclic_policies_follow_the_papers_formula(t: int) -> None:
    base, top, s, gamma = 0.001, 0.006, 2000, 0.99994
    cycle = math.floor(1 + t / (2 * s))
    x = max(0.0, 1 - abs(t / s - 2 * cycle + 1))
    expected = {
        "triangular": base + (top - base) * x,
        "triangular2": base + (top - base) * x / 2 ** (cycle - 1),
        "exp_range": (base + (top - base) * x) * gamma**t,
        "exp_range_amplitude": base + (top - base) * x * gamma**t,
        "welch": base + (top - base) * (1 - (1 - x) ** 2),
        "hann": base + (top - base) * (1 - math.cos(math.pi * x)) / 2,
    }
    for name, value in expected.items():
        rate = schedule(name, base_lr=base, max_lr=top, stepsize=s, gamma=gamma_of(name))
        assert rate(t) == pytest.approx(value, rel=1e-12)


def test_the_two_readings_of_exp_range_differ_as_the_paper_and_torch_do() -> None:
    bound: dict[str, Any] = {"base_lr": 0.001, "max_lr": 0.006, "stepsize": 2000, "gamma": 0.99994}
    assert schedule("exp_range", **bound)(40_000) == pytest.approx(9.07e-5, rel=1e-3)
    assert schedule("exp_range_amplitude", **bound)(40_000) == pytest.approx(1e-3, rel=1e-3)


@given(name=st.sampled_from([*POLICIES, *RAMPS]), bounds=BOUNDS, stepsize=SIZES, step=STEPS)
def test_rates_stay_within_their_bounds(name: str, bounds: tuple[float, float], stepsize: int, step: int) -> None:
    base, top = bounds
    rate = schedule(name, base_lr=base, max_lr=top, stepsize=stepsize, gamma=gamma_of(name))(step)
    lowest = {"one_cycle": base / 1e4, "exp_range": base * 0.99994**step}.get(name, base)
    assert lowest * (1 - 1e-12) <= rate <= top * (1 + 1e-12)


@given(name=st.sampled_from(SYMMETRIC), bounds=BOUNDS, stepsize=SIZES, step=STEPS)
def test_undamped_policies_repeat_exactly_after_two_stepsizes(
    name: str, bounds: tuple[float, float], stepsize: int, step: int
) -> None:
    rate = schedule(name, base_lr=bounds[0], max_lr=bounds[1], stepsize=stepsize)
    assert rate(step + 2 * stepsize) == rate(step)


@given(name=st.sampled_from(SYMMETRIC), bounds=BOUNDS, stepsize=SIZES, share=st.floats(0, 1))
def test_undamped_policies_fall_as_they_rose(
    name: str, bounds: tuple[float, float], stepsize: int, share: float
) -> None:
    rate = schedule(name, base_lr=bounds[0], max_lr=bounds[1], stepsize=stepsize)
    step = round(share * stepsize)
    assert rate(2 * stepsize - step) == rate(step)


@given(name=st.sampled_from(CYCLIC), bounds=BOUNDS, up=SIZES, down=SIZES, cycle=st.integers(0, 50))
def test_a_cycle_begins_at_its_base_and_peaks_after_the_rising_half(
    name: str, bounds: tuple[float, float], up: int, down: int, cycle: int
) -> None:
    gamma = 1.0 if name in DECAYING else None
    rate = schedule(name, base_lr=bounds[0], max_lr=bounds[1], stepsize=up, stepsize_down=down, gamma=gamma)
    start = cycle * (up + down)
    assert rate(start) == bounds[0]
    assert rate(start + up) == max(rate(start + offset) for offset in (0, up - 1, up, up + 1))
    if name != "triangular2":
        assert rate(start + up) == bounds[1]


def test_triangular2_goes_on_where_torchs_overflows() -> None:
    rate = schedule("triangular2", base_lr=0.001, max_lr=0.006, stepsize=1)
    assert rate(2 * 1025 + 1) == 0.001
    assert rate(2 * 10**9 + 1) == 0.001


@pytest.mark.parametrize("down", [None, 3, 20])
@pytest.mark.parametrize(
    ("name", "mode"),
    [("triangular", "triangular"), ("triangular2", "triangular2"), ("exp_range_amplitude", "exp_range")],
)
def test_cyclic_policies_equal_torchs_cyclic_lr_at_every_step(name: str, mode: Any, down: int | None) -> None:
    gamma = 0.99 if name in DECAYING else None
    torchs = CyclicLR(sgd(), 0.001, 0.006, 7, step_size_down=down, mode=mode, gamma=gamma or 1.0, cycle_momentum=False)
    ours = schedule(name, base_lr=0.001, max_lr=0.006, stepsize=7, stepsize_down=down, gamma=gamma)
    assert [ours(step) for step in range(100)] == pytest.approx(rates_of(torchs, 100), rel=1e-12)


@pytest.mark.parametrize("stepsize", [1, 2, 5, 50, 123])
def test_one_cycle_equals_torchs_one_cycle_lr_at_every_step(stepsize: int) -> None:
    steps = 2 * stepsize
    torchs = OneCycleLR(sgd(), 0.5, steps, div_factor=20, cycle_momentum=False)
    expected = rates_of_budget(torchs, steps)
    ours = schedule("one_cycle", base_lr=0.5 / 20, max_lr=0.5, stepsize=stepsize)
    assert [ours(step) for step in range(steps)] == pytest.approx(expected, rel=1e-9)
    assert ours(steps) == ours(10 * steps) == pytest.approx(0.5 / 20 / 1e4)


def rates_of_budget(scheduler: LRScheduler, steps: int) -> list[float]:
    """Without the step past the end, at which OneCycleLR raises."""
    rates = rates_of(scheduler, steps - 1)
    return [*rates, scheduler.optimizer.param_groups[0]["lr"]]


@pytest.mark.parametrize("stepsize", [1, 2, 50, 123])
def test_cosine_equals_torchs_cosine_annealing_lr_within_the_budget(stepsize: int) -> None:
    steps = 2 * stepsize
    expected = rates_of(CosineAnnealingLR(sgd(0.5), steps, eta_min=0.02), steps)
    ours = schedule("cosine", base_lr=0.02, max_lr=0.5, stepsize=stepsize)
    assert [ours(step) for step in range(steps)] == pytest.approx(expected, rel=1e-9)
    assert ours(steps) == ours(10 * steps) == 0.02


def test_fixed_is_its_max_lr_at_every_step() -> None:
    rate = schedule("fixed", base_lr=0.01, max_lr=0.3, stepsize=10)
    assert {rate(step) for step in range(100)} == {0.3}


@pytest.mark.parametrize("name", RAMPS)
@pytest.mark.parametrize("stepsize", [2, 3, 100])
def test_a_ramp_starts_at_its_base_and_ends_exactly_at_its_max(name: str, stepsize: int) -> None:
    rate = schedule(name, base_lr=1e-7, max_lr=10.1, stepsize=stepsize)
    rates = [rate(step) for step in range(stepsize)]
    assert (rates[0], rates[-1], rate(stepsize), rate(9 * stepsize)) == (1e-7, 10.1, 10.1, 10.1)
    assert rates == sorted(set(rates))


def test_linear_ramp_grows_by_equal_differences_and_exponential_ramp_by_equal_ratios() -> None:
    linear = schedule("linear_ramp", base_lr=0.0, max_lr=1.0, stepsize=101)
    assert [linear(step) for step in range(101)] == pytest.approx([step / 100 for step in range(101)])
    exponential = schedule("exponential_ramp", base_lr=1e-5, max_lr=1.0, stepsize=51)
    assert [exponential(step) for step in range(51)] == pytest.approx([10 ** (-5 + step / 10) for step in range(51)])


@pytest.mark.parametrize("name", RAMPS)
def test_a_ramp_of_one_step_is_at_its_max(name: str) -> None:
    assert schedule(name, base_lr=0.1, max_lr=1.0, stepsize=1)(0) == 1.0


def test_an_exponential_ramp_over_the_whole_range_of_floats_does_not_overflow() -> None:
    assert schedule("exponential_ramp", base_lr=1e-300, max_lr=1e300, stepsize=3)(1) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("cosinus", {}, "policy: must be one of triangular, .*'cosinus'"),
        ("triangular", {"base_lr": -0.1}, "base_lr: .* at least 0, but got -0.1"),
        ("exponential_ramp", {"base_lr": 0.0}, "base_lr: .* above 0, but got 0.0"),
        ("linear_ramp", {"base_lr": -0.1}, "base_lr: .* at least 0, but got -0.1"),
        ("linear_ramp", {"base_lr": 0.0, "max_lr": 0.0}, "max_lr: .* above 0, but got 0.0"),
        ("fixed", {"max_lr": math.nan}, "max_lr: .* finite .*nan"),
        ("fixed", {"max_lr": math.inf}, "max_lr: .* finite .*inf"),
        ("fixed", {"max_lr": "0.1"}, "max_lr: .*'0.1'"),
        ("fixed", {"max_lr": None}, "max_lr: .*None"),
        ("triangular", {"base_lr": 0.2}, "base_lr: must be at most max_lr = 0.1, but got 0.2"),
        ("triangular", {"stepsize": 0}, "stepsize: .* at least 1, but got 0"),
        ("triangular", {"stepsize": 2.5}, "stepsize: .* whole number .*2.5"),
        ("triangular", {"stepsize": True}, "stepsize: .*True"),
        ("triangular", {"stepsize_down": 0}, "stepsize_down: .* at least 1, but got 0"),
        ("cosine", {"stepsize_down": 5}, "stepsize_down: must be left out: cosine takes none, but got 5"),
        ("triangular", {"gamma": 0.9}, "gamma: must be left out: triangular takes none, but got 0.9"),
        ("exp_range", {}, r"gamma: must be in \(0, 1\] for exp_range; .*None"),
        ("exp_range_amplitude", {"gamma": 0.0}, r"gamma: .* \(0, 1\], but got 0.0"),
        ("exp_range", {"gamma": 1.001}, r"gamma: .* \(0, 1\], but got 1.001"),
    ],
)
def test_a_broken_rule_is_named_with_its_value(name: str, change: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        schedule(name, **({"base_lr": 0.01, "max_lr": 0.1, "stepsize": 10} | change))

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import clr
from clr.errors import InvalidArgument
from clr.range_tests.bounds import RATIO, Bounds
from clr.range_tests.recorded import PAPER_RATIOS, SHORTEST, read_bounds
from clr.range_tests.signal import Array

SIZES = [40, 100, 1000]


def noise(n: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=n)


def paper(n: int, seed: int = 0, first: float | None = None) -> tuple[Array, Array]:
    """The paper's ramp on CIFAR-10: accuracy climbs from .31 to .58 between .0005 and .006, and is ragged beyond."""
    lr = np.linspace(0, 0.02, n + 1)[1:] if first is None else np.linspace(first, 0.02, n)
    climb = 0.31 + 0.27 * np.log(np.maximum(lr, 0.0005) / 0.0005) / math.log(12)
    accuracy = np.where(lr < 0.0005, 0.1 + 0.21 * lr / 0.0005, np.minimum(climb, 0.58))
    return lr, accuracy + np.where(lr > 0.006, 0.015, 0.006) * noise(n, seed)


def exponential(n: int, seed: int = 0) -> tuple[Array, Array]:
    """Rates from 1e-6 to 1, and a metric that climbs from .1 to .9 around 1e-3."""
    lr = np.geomspace(1e-6, 1, n)
    return lr, 0.1 + 0.8 / (1 + (1e-3 / lr) ** 2) + 0.01 * noise(n, seed)


def losses(lr: Array, seed: int = 0) -> Array:
    """A loss that falls from 2.3 around 1e-3, is lowest at about .02, and explodes beyond .1."""
    fall = 1.8 / (1 + (1e-3 / lr) ** 1.5)
    return 2.3 - fall + np.expm1(np.minimum(20 * lr, 700)) * 0.2 + 0.03 * noise(len(lr), seed)


def conclusive(bounds: Bounds) -> tuple[float, float]:
    """base_lr and max_lr of bounds that are sound in every respect."""
    assert bounds.base_lr is not None
    assert bounds.max_lr is not None
    assert bounds.interval is not None
    assert 0 < bounds.base_lr < bounds.max_lr
    for name, value in (("base_lr", bounds.base_lr), ("max_lr", bounds.max_lr)):
        low, high = bounds.interval[name]
        assert 0 < low <= value <= high
    assert bounds.confidence in ("low", "medium"), "no run proves a curve"
    assert bounds.reasons
    return bounds.base_lr, bounds.max_lr


def is_inconclusive(bounds: Bounds) -> bool:
    return (bounds.base_lr, bounds.max_lr, bounds.interval, bounds.confidence) == (None, None, None, "inconclusive")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", SIZES)
def test_the_papers_cifar10_curve_gives_the_papers_bounds(n: int, seed: int) -> None:
    lr, accuracy = paper(n, seed)
    base_lr, max_lr = conclusive(read_bounds(lr, np.ones(n), metric=accuracy))
    assert base_lr == pytest.approx(0.001, rel=0.65)
    assert max_lr == pytest.approx(0.006, rel=0.35)


@pytest.mark.parametrize("n", SIZES)
def test_a_ramp_whose_first_rates_are_0_is_read_without_them(n: int) -> None:
    lr, accuracy = paper(n, first=0.0)
    assert lr[0] == 0
    assert read_bounds(lr, losses(lr + 1e-9), metric=accuracy) == read_bounds(lr[1:], np.ones(n - 1), accuracy[1:])
    assert conclusive(read_bounds(lr, np.ones(n), metric=accuracy))[1] == pytest.approx(0.006, rel=0.35)
    by_loss = np.where(lr < 0.01, 2.3 - 150 * lr, 0.8 + 200 * (lr - 0.01)) + 0.01 * noise(n)
    assert conclusive(read_bounds(lr, by_loss))[1] == pytest.approx(0.01, rel=0.2)


CLIMBS: dict[str, Callable[[Array, Array], Array]] = {
    "plateau": lambda lr, up: up,
    "fall": lambda lr, up: np.where(lr > 0.1, 0.1, up),
    "decline": lambda lr, up: up - 0.2 * np.log10(np.maximum(lr / 0.03, 1)),
    "ragged": lambda lr, up: up + np.where(lr > 0.02, 0.05, 0) * noise(len(lr), 9),
    "NaN tail": lambda lr, up: np.where(lr > 0.1, math.nan, up),
    "spike": lambda lr, up: np.where(np.arange(len(lr)) == len(lr) // 4, 7.0, up),
    "taken at every other step": lambda lr, up: np.where(np.arange(len(lr)) % 2, math.nan, up),
}


@pytest.mark.parametrize("n", [100, 1000])
@pytest.mark.parametrize("shape", CLIMBS)
def test_a_metric_is_read_where_it_arrives_at_its_plateau_whatever_follows(shape: str, n: int) -> None:
    lr, up = exponential(n)
    base_lr, max_lr = conclusive(read_bounds(lr, losses(lr), metric=CLIMBS[shape](lr, up)))
    assert 0.0015 < max_lr < 0.01
    assert PAPER_RATIOS[0] <= max_lr / base_lr * 1.001
    assert max_lr / base_lr <= PAPER_RATIOS[1] * 1.001


FALLS: dict[str, Callable[[Array, Array], Array]] = {
    "explosion": lambda lr, loss: loss,
    "NaN tail": lambda lr, loss: np.where(lr > 0.1, math.nan, loss),
    "spike": lambda lr, loss: np.where(np.arange(len(lr)) == 2, 9.0, loss),
    "negative": lambda lr, loss: loss - 50,
    "plateau": lambda lr, loss: np.minimum(loss, 0.8),
    "huge": lambda lr, loss: np.where(lr > 0.3, 1e300, 1e3 * loss),
}


@pytest.mark.parametrize("n", [100, 1000])
@pytest.mark.parametrize("shape", FALLS)
def test_a_loss_is_read_at_its_smoothed_minimum(shape: str, n: int) -> None:
    lr = np.geomspace(1e-6, 1, n)
    base_lr, max_lr = conclusive(read_bounds(lr, FALLS[shape](lr, losses(lr))))
    assert 0.007 < max_lr < 0.06
    assert max_lr / base_lr == pytest.approx(RATIO)


@settings(max_examples=40, deadline=None)
@given(
    a=st.floats(1e-4, 1e4),
    b=st.floats(-100, 100),
    k=st.floats(1e-4, 1e4),
    n=st.sampled_from(SIZES),
    measured=st.booleans(),
)
def test_other_units_of_loss_metric_and_rate_give_the_same_bounds(
    a: float, b: float, k: float, n: int, measured: bool
) -> None:
    lr, up = exponential(n)
    loss = losses(lr)
    plain = read_bounds(lr, loss, up if measured else None)
    changed = read_bounds(k * lr, a * (loss + b), a * (up + b) if measured else None)
    assert conclusive(changed) == pytest.approx([k * value for value in conclusive(plain)])
    assert changed.confidence == plain.confidence


@pytest.mark.parametrize("n", SIZES)
def test_a_metric_that_is_minimised_reads_as_its_negative_that_is_maximised(n: int) -> None:
    lr, up = exponential(n)
    assert read_bounds(lr, losses(lr), -up, "minimize") == read_bounds(lr, losses(lr), up)
    assert is_inconclusive(read_bounds(lr, losses(lr), 1 - 0.5 * up, "maximize"))
    assert "never rose" in read_bounds(lr, losses(lr), -up).reasons[0]
    assert "never fell" in read_bounds(lr, losses(lr), up, "minimize").reasons[0]


def test_a_validation_loss_that_explodes_is_read_like_one_that_does_not() -> None:
    lr, up = exponential(200)
    exploded = np.where(lr > 0.1, 1e300, 1 - up)
    bounds = read_bounds(lr, losses(lr), exploded, "minimize")
    assert conclusive(bounds)[1] == pytest.approx(conclusive(read_bounds(lr, losses(lr), up))[1], rel=0.1)


def test_100_and_1000_samples_are_read_alike() -> None:
    few, many = (exponential(n) for n in (100, 1000))
    assert conclusive(read_bounds(few[0], few[1], few[1])) == pytest.approx(
        conclusive(read_bounds(many[0], many[1], many[1])), rel=0.3
    )
    assert conclusive(read_bounds(few[0], losses(few[0]))) == pytest.approx(
        conclusive(read_bounds(many[0], losses(many[0]))), rel=0.3
    )


@pytest.mark.parametrize("n", [SHORTEST, *SIZES])
@pytest.mark.parametrize("sign", [1, -1])
def test_flat_and_never_finite_curves_are_inconclusive(n: int, sign: float) -> None:
    lr = np.geomspace(1e-6, 1, n)
    for values in (np.full(n, sign * 2.3), np.zeros(n), np.full(n, math.nan), np.full(n, sign * math.inf)):
        assert is_inconclusive(read_bounds(lr, values))
        assert is_inconclusive(read_bounds(lr, losses(lr), values))


@pytest.mark.parametrize("n", [SHORTEST, *SIZES])
@pytest.mark.parametrize("ramp", [np.linspace, np.geomspace])
def test_noise_is_hardly_ever_taken_for_learning(ramp: Callable[..., Array], n: int) -> None:
    lr = ramp(1e-5, 0.1, n)
    noises = [0.5 + 0.02 * noise(n, seed) for seed in range(100)]
    assert sum(not is_inconclusive(read_bounds(lr, one)) for one in noises) <= 6
    assert sum(not is_inconclusive(read_bounds(lr, one, one)) for one in noises) <= 3


def test_a_metric_that_flickers_now_and_then_is_noise() -> None:
    lr = np.geomspace(1e-6, 1, 1000)
    flicker = 0.1 + 0.0002 * (np.random.default_rng(0).random(1000) < 0.01)
    assert is_inconclusive(read_bounds(lr, losses(lr), flicker))


def test_a_loss_that_only_rises_is_inconclusive() -> None:
    lr = np.geomspace(1e-6, 1, 200)
    bounds = read_bounds(lr, 2.3 + 30 * lr + 0.01 * noise(200))
    assert is_inconclusive(bounds)
    assert "the loss never fell by more than its noise" in bounds.reasons[0]


def test_a_metric_that_was_taken_too_seldom_says_how_often_it_was() -> None:
    lr, up = exponential(200)
    up[19:] = math.nan
    bounds = read_bounds(lr, losses(lr), up)
    assert is_inconclusive(bounds)
    assert "19 finite values, of 20 needed" in bounds.reasons[0]


def test_a_loss_that_was_not_recorded_at_every_step_is_no_divergence() -> None:
    lr, _ = exponential(400)
    whole, gaps = losses(lr), np.full(400, math.nan)
    gaps[::5] = whole[::5]
    once = whole.copy()
    once[[0, 200]] = math.nan
    expected = conclusive(read_bounds(lr, whole))[1]
    for loss in (gaps, once):
        assert conclusive(read_bounds(lr, loss))[1] == pytest.approx(expected, rel=0.3)


def test_a_linear_ramp_that_breaks_early_is_read() -> None:
    lr = np.linspace(0.01, 10, 1000)
    loss = 2.3 - 1.8 / (1 + (0.1 / lr) ** 3) + 0.02 * np.expm1(np.minimum(4 * lr, 8))  # all but 60 steps
    noisy = loss + 0.05 * noise(1000)
    assert conclusive(read_bounds(lr, noisy))[1] == pytest.approx(lr[np.argmin(loss)], rel=0.3)


def test_a_wild_first_value_of_the_metric_moves_nothing() -> None:
    lr, up = exponential(200)
    wild = -up.copy()
    wild[0] = 20
    expected = conclusive(read_bounds(lr, losses(lr), -up, "minimize"))
    assert conclusive(read_bounds(lr, losses(lr), wild, "minimize")) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_grows_with_the_noise_and_holds_what_is_read_without_it(seed: int) -> None:
    lr, up = exponential(200)
    expected = conclusive(read_bounds(lr, up, up))[1]
    widths = []
    for sd in (0.01, 0.1):
        noisy = up + sd * noise(200, seed)
        interval = read_bounds(lr, up, noisy).interval
        assert interval is not None
        low, high = interval["max_lr"]
        assert low <= expected <= high
        widths.append(high / low)
    assert widths[0] < widths[1]


def test_tensors_that_require_gradients_and_of_half_precision_are_read() -> None:
    lr, up = exponential(200)
    tensor = torch.tensor(up, requires_grad=True)
    assert read_bounds(lr, up, tensor) == read_bounds(lr, up, up)
    assert conclusive(read_bounds(torch.tensor(lr), tensor, tensor.bfloat16()))[1] < 0.1


def test_a_curve_that_ends_too_early_says_so() -> None:
    lr, up = exponential(200)
    early = lr < 0.001
    assert "near the curve's end" in read_bounds(lr[early], up[early], up[early]).reasons[1]
    assert "near the curve's end" in read_bounds(lr[early], losses(lr)[early]).reasons[1]
    assert len(read_bounds(lr, losses(lr)).reasons) == 1
    assert len(read_bounds(lr, losses(lr), np.where(lr > 0.1, 0.1, up)).reasons) == 1


def test_seeds_that_agree_give_their_mean_an_interval_and_more_confidence() -> None:
    lr = np.geomspace(1e-6, 1, 200)
    seeds = [exponential(200, seed)[1] for seed in range(3)]
    alone = [conclusive(read_bounds(lr, one, one))[1] for one in seeds]
    together = read_bounds(lr, seeds, seeds)
    assert conclusive(together)[1] == pytest.approx(math.prod(alone) ** (1 / 3))
    assert together.interval is not None
    low, high = together.interval["max_lr"]
    assert low < min(alone) <= max(alone) < high
    assert together.confidence == "medium"
    assert read_bounds(lr, seeds[0], seeds[0]).confidence == "low"


def test_seeds_that_are_the_same_have_an_interval_of_one_rate() -> None:
    lr, up = exponential(200)
    assert conclusive(read_bounds(lr, [up] * 3, [up] * 3)) == pytest.approx(conclusive(read_bounds(lr, up, up)))


def test_seeds_that_disagree_give_no_more_confidence_than_one() -> None:
    lr = np.geomspace(1e-6, 1, 200)
    up, late = exponential(200)[1], 0.1 + 0.8 / (1 + (1e-2 / lr) ** 2)
    assert read_bounds(lr, [up, late], [up, late]).confidence == "low"


def test_the_reading_is_that_of_the_seeds_that_learnt_if_they_are_most() -> None:
    lr = np.geomspace(1e-6, 1, 200)
    flat = 0.1 + 0.01 * noise(200, 7)
    seeds = [exponential(200, seed)[1] for seed in range(2)]
    assert read_bounds(lr, [*seeds, flat], [*seeds, flat]).max_lr == read_bounds(lr, seeds, seeds).max_lr
    assert is_inconclusive(read_bounds(lr, [seeds[0], flat], [seeds[0], flat]))


def test_seeds_may_have_rates_and_lengths_of_their_own() -> None:
    curves = [exponential(n, seed) for n, seed in ((150, 0), (400, 1), (90, 2))]
    rates, ups = [list(lr) for lr, _ in curves], [list(up) for _, up in curves]
    bounds = read_bounds(rates, ups, ups)
    alone = [conclusive(read_bounds(lr, up, up))[1] for lr, up in curves]
    assert bounds.interval is not None
    low, high = bounds.interval["max_lr"]
    assert low < min(alone) <= max(alone) < high


def test_seeds_that_diverged_at_different_rates_are_each_read_to_their_end() -> None:
    lr = np.geomspace(1e-6, 1, 300)
    whole = [losses(lr, seed) for seed in range(3)]
    cut = [np.where(lr > end, math.nan, loss) for end, loss in zip((0.1, 0.3, 2), whole, strict=True)]
    assert conclusive(read_bounds(lr, cut)) == pytest.approx(conclusive(read_bounds(lr, whole)), rel=0.05)


def test_missing_values_may_be_none_as_in_json() -> None:
    lr, up = exponential(100)
    sparse = [value if i % 2 else None for i, value in enumerate(up)]
    assert read_bounds(list(lr), [None] * 100, sparse).max_lr is not None  # type: ignore[arg-type]


def test_a_range_tests_own_ramp_can_be_read_from_its_rows() -> None:
    task = clr.load_task("digits")
    ramp = next(curve for curve in clr.range_test(task, epochs=20, seeds=1).curves)
    lr, loss, metric = ([row[name] for row in ramp.rows()] for name in ("lr", "loss", "metric"))
    assert 0.001 < conclusive(read_bounds(lr, loss))[1] < 1
    assert 0.001 < conclusive(read_bounds(lr, loss, metric))[1] < 1


LR, LOSS = exponential(100)
BAD: list[tuple[str, dict[str, Any]]] = [
    ("loss: must have one value for each rate", {"loss": LOSS[:99]}),
    ("loss: must have one value for each rate", {"loss": [LOSS, LOSS[:99]]}),
    ("loss: must have one value for each rate", {"lr": [LR, LR], "loss": [LOSS, LOSS, LOSS]}),
    ("loss: must have one value for each rate", {"loss": np.ones((2, 3, 100))}),
    ("loss: must be numbers", {"loss": 1.0}),
    ("loss: must be numbers", {"loss": ["a"] * 100}),
    ("metric: must have one value for each rate", {"metric": LOSS[:99]}),
    ("metric: must be numbers", {"metric": ["high"] * 100}),
    ("lr: must be numbers", {"lr": None}),
    ("lr: must be finite, at least 0 and never fall, also at value 3;", {"lr": [*LR[:3], math.nan, *LR[4:]]}),
    ("lr: must be finite, at least 0 and never fall, also at value 99;", {"lr": [*LR[:99], math.inf]}),
    ("a seed of its own, but got -1", {"lr": [-1, *LR[1:]]}),
    ("lr: must be finite, at least 0 and never fall, also at value 1;", {"lr": LR[::-1]}),
    ("give each rising ramp a seed of its own", {"lr": [*LR, *LR], "loss": [*LOSS, *LOSS]}),
    ("lr: must be at least 20 rates above 0 that rise", {"lr": LR[:19], "loss": LOSS[:19]}),
    ("lr: must be at least 20 rates above 0 that rise", {"lr": [0, *LR[:19]], "loss": LOSS[:20]}),
    ("lr: must be at least 20 rates above 0 that rise", {"lr": np.ones(100)}),
    ("record every step of the ramp, but got []", {"lr": [], "loss": []}),
    ('direction: must be "maximize" or "minimize", but got \'up\'', {"direction": "up"}),
]


@pytest.mark.parametrize(("message", "changes"), BAD)
def test_what_cannot_be_a_curve_is_refused_by_field_rule_and_value(message: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as error:
        read_bounds(**{"lr": LR, "loss": LOSS} | changes)
    assert message in str(error.value)
    assert len(str(error.value)) < 400


def test_bounds_are_plain_values() -> None:
    document = read_bounds(LR, LOSS, LOSS).to_dict()
    assert json.loads(json.dumps(document, allow_nan=False)) == json.loads(json.dumps(document))
    assert document.keys() == {"base_lr", "max_lr", "interval", "confidence", "reasons"}
    assert type(document["max_lr"]) is type(document["interval"]["max_lr"][0]) is float
    assert Bounds.inconclusive("flat", "short").to_dict() == {
        "base_lr": None,
        "max_lr": None,
        "interval": None,
        "confidence": "inconclusive",
        "reasons": ["flat", "short"],
    }

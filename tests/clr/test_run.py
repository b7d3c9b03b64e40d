import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clr.run import KEPT_STEPS, PIECES, Curve, Point, Run, fresh_seeds, record, value_of

RUN = Run(policy="exp_range", base_lr=0.01, max_lr=0.1, step_size_up=5, steps=20, seed=3, evaluate_every=10, gamma=0.9)


def test_a_run_survives_json() -> None:
    assert Run(**json.loads(json.dumps(RUN.to_dict()))) == RUN


def test_a_point_survives_json() -> None:
    point = Point(2, [0.1, 0.2], [1.5, -0.5], 0.75)
    assert Point.from_dict(json.loads(json.dumps(point.to_dict(), allow_nan=False))) == point


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_null_in_json_and_nan_on_return(bad: float) -> None:
    point = Point(2, [0.1, 0.2], [1.5, bad], None, diverged=True)
    document = json.loads(json.dumps(point.to_dict(), allow_nan=False))
    assert document["loss"] == [1.5, None]
    again = Point.from_dict(document)
    assert (again.loss[0], math.isnan(again.loss[1]), again.diverged) == (1.5, True, True)


def test_a_curve_joins_the_points_of_its_run() -> None:
    points = [Point(2, [0.1, 0.2], [3.0, 2.0], 0.5), Point(3, [0.3], [1.0], None), Point(4, [0.4], [0.5], 0.7)]
    curve = Curve.of(iter(points))
    assert curve == Curve([0.1, 0.2, 0.3, 0.4], [3.0, 2.0, 1.0, 0.5], [2, 4], [0.5, 0.7])
    assert points[0].lr == [0.1, 0.2], "joining leaves the points as they were"


def test_rows_are_the_steps_with_the_metric_where_it_was_taken() -> None:
    curve = Curve.of([Point(2, [0.1, 0.2], [3.0, 2.0], 0.5), Point(3, [0.3], [math.inf], None, diverged=True)])
    assert curve.rows() == [
        {"lr": 0.1, "loss": 3.0, "metric": None},
        {"lr": 0.2, "loss": 2.0, "metric": 0.5},
        {"lr": 0.3, "loss": None, "metric": None},
    ]


def test_a_run_is_judged_by_its_last_metric() -> None:
    assert Curve.of([Point(1, [0.1], [3.0], 0.9), Point(2, [0.1], [2.0], 0.5)]).value == 0.5


def test_a_run_without_metric_is_judged_by_the_mean_of_its_last_twentieth_of_losses() -> None:
    assert Curve(lr=[0.1] * 40, loss=[9.0] * 38 + [1.0, 2.0]).value == 1.5
    assert Curve(lr=[0.1] * 3, loss=[9.0, 8.0, 7.0]).value == 7.0


def test_a_run_that_diverged_or_never_began_has_no_value() -> None:
    assert Curve.of([Point(1, [0.1], [3.0], 0.9), Point(2, [0.1], [math.nan], None, diverged=True)]).value is None
    assert Curve.of([]).value is None


def test_stages_share_no_seeds() -> None:
    stages = ("range_test", "search", "probe", "confirm")
    seeds = [seed for base in range(20) for stage in stages for seed in fresh_seeds(base, stage, 20)]
    assert len(set(seeds)) == len(seeds) == 1600
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_seeds_are_the_same_for_the_same_seed_and_begin_alike_whatever_their_number() -> None:
    assert fresh_seeds(7, "confirm", 3) == fresh_seeds(7, "confirm", 3) == fresh_seeds(7, "confirm", 20)[:3]
    assert fresh_seeds(7, "confirm", 3) != fresh_seeds(8, "confirm", 3)


def drawn(steps: int, seed: int = 0) -> tuple[list[float], list[float]]:
    random = np.random.default_rng(seed)
    return [1e-3 + 1e-7 * step for step in range(steps)], [float(one) for one in 2 + random.normal(size=steps)]


def recorded(lr: list[float], loss: list[float], cuts: list[int], steps: int) -> list[Point]:
    points: list[Point] = []
    for start, end in zip([0, *cuts], [*cuts, len(loss)], strict=True):
        metric = 0.5 if end == steps else None
        record(points, Point(end, lr[start:end], loss[start:end], metric, not math.isfinite(loss[end - 1])), steps)
    return points


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 99_999), max_size=40, unique=True).map(sorted), st.integers(0, 3))
def test_a_long_run_keeps_first_last_and_extremes_whatever_it_was_recorded_by(cuts: list[int], seed: int) -> None:
    steps = 100_000
    lr, loss = drawn(steps, seed)
    points = recorded(lr, loss, cuts, steps)
    assert len(points) == PIECES
    shown = [pair for point in points for pair in zip(point.lr, point.loss, strict=True)]
    assert len(shown) <= KEPT_STEPS
    assert shown[0] == (lr[0], loss[0])
    assert shown[-1] == (lr[-1], loss[-1])
    assert {min(loss), max(loss)} <= {one for _, one in shown}
    assert shown == sorted(shown)  # by rate, so by step
    once = recorded(lr, loss, [], steps)
    assert [replace(point, mean=None) for point in points] == [replace(point, mean=None) for point in once]
    assert [point.mean for point in points] == pytest.approx([point.mean for point in once])
    assert len(json.dumps([point.to_dict() for point in points])) < 100_000
    assert len(Curve.of(points).loss) == steps


def test_a_short_run_is_recorded_step_by_step() -> None:
    lr, loss = drawn(KEPT_STEPS)
    points = recorded(lr, loss, [7, 1000], KEPT_STEPS)
    assert Curve.of(points) == Curve(lr, loss, [KEPT_STEPS], [0.5])


def test_a_long_run_that_diverges_keeps_the_step_at_which_it_did() -> None:
    lr, loss = drawn(50_000)
    loss[-1] = math.nan
    points = recorded(lr, loss, [20_000, 49_990], 100_000)
    assert points[-1].diverged
    assert math.isnan(points[-1].loss[-1])
    assert (points[-1].step, points[-1].lr[-1]) == (50_000, lr[-1])
    assert value_of(points) is None
    assert Curve.of(points).diverged


def test_a_long_run_without_a_metric_is_judged_by_the_mean_of_its_last_twentieth() -> None:
    lr, loss = drawn(100_000)
    points: list[Point] = []
    for end in range(10, 100_001, 10):
        record(points, Point(end, lr[end - 10 : end], loss[end - 10 : end], None), 100_000)
    assert value_of(points) == pytest.approx(sum(loss[-5000:]) / 5000)
    assert value_of(points) == pytest.approx(Curve.of(points).value)
    assert value_of([]) is None


@pytest.mark.parametrize("stride", [1, 3, 700])
def test_reports_of_some_steps_alone_stand_for_all_of_them(stride: int) -> None:
    steps = 7000
    points: list[Point] = []
    for step in range(stride, steps + 1, stride):
        record(points, Point(step, [0.1], [1.0 + step], None), steps)
    assert points[-1].step == steps // stride * stride
    assert len(points) <= PIECES
    assert [points[0].loss[0], points[-1].loss[-1]] == [1.0 + stride, 1.0 + steps // stride * stride]

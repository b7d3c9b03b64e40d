import json
import math

import pytest

from clr.run import Curve, Point, Run, fresh_seeds

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

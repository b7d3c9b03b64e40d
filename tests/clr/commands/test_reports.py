"""Lines of a points file as the points of a run."""

import json
from typing import Any

import pytest

from clr.commands.reports import Reports
from clr.errors import BrokenProgram
from clr.run import Curve, Point, Run

RUN = Run(policy="triangular", base_lr=0.01, max_lr=0.1, step_size_up=50, steps=100, seed=3, evaluate_every=100)


def points(*lines: dict[str, Any], run: Run = RUN) -> list[Point]:
    reports = Reports(run)
    found = [point for line in lines for point in reports.take(json.dumps(line).encode())]
    return [*found, *reports.due()]


def test_steps_may_be_counted_from_one_or_from_zero() -> None:
    from_one = points(*({"step": step + 1, "loss": step} for step in range(100)))
    from_zero = points(*({"step": step, "loss": step} for step in range(100)))
    assert from_one == from_zero
    (point,) = from_one
    assert (point.step, len(point.loss), point.lr[50]) == (100, 100, 0.1)


def test_a_loss_stands_for_the_steps_since_the_one_before() -> None:
    curve = Curve.of(points({"step": 10, "loss": 1}, {"step": 20, "loss": 2}, {"step": 100, "loss": 3}))
    assert curve.loss == [1] * 10 + [2] * 10 + [3] * 80


def test_few_reports_take_little_however_long_the_run_is() -> None:
    run = Run(policy="fixed", base_lr=0.1, max_lr=0.1, step_size_up=1, steps=10**9, seed=0, evaluate_every=1, explode=3)
    assert points({"step": 10**9, "loss": 1.5}, run=run) == [Point(10**9, [0.1], [1.5], None)]


def test_a_metric_may_come_with_its_step_or_after_it() -> None:
    together = points({"step": 50, "loss": 1, "metric": 0.5}, {"step": 100, "loss": 1, "metric": 0.6})
    later = points(
        {"step": 50, "loss": 1}, {"step": 50, "metric": 0.5}, {"step": 100, "loss": 1}, {"step": 100, "metric": 0.6}
    )
    assert together == later
    assert [(point.step, point.metric) for point in together] == [(50, 0.5), (100, 0.6)]


def test_a_metric_that_is_not_finite_is_a_divergence() -> None:
    point = points({"step": 50, "loss": 1, "metric": float("nan")}, {"step": 51, "loss": 1})[-1]
    assert (point.step, point.metric, point.diverged) == (50, None, True)


def test_a_rate_that_is_reported_is_the_runs_of_this_step_or_the_next() -> None:
    assert points({"step": 1, "loss": 1, "lr": 0.01}, {"step": 2, "loss": 1, "lr": 0.0136})
    with pytest.raises(BrokenProgram, match=r"line 1: lr must be the run's, 0\.01 at this step"):
        points({"step": 1, "loss": 1, "lr": 0.1})


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        ([{"step": 0, "metric": 1}], "must have its loss"),
        ([{"step": 1, "loss": 1, "metric": 1}, {"step": 1, "metric": 2}], "after 1 steps was told already"),
        ([{"step": 1, "loss": 1}, {"step": 0, "loss": 1}], "steps must rise"),
        ([{"step": 0, "loss": 1}, {"step": 100, "loss": 1}], "the run has 100 steps"),
        ([{"step": True, "loss": 1}], "step must be a whole number"),
        ([{"step": 1, "loss": 1, "metric": "high"}], "metric must be a number"),
    ],
)
def test_what_is_told_must_hold(lines: list[dict[str, Any]], rule: str) -> None:
    with pytest.raises(BrokenProgram, match=rule):
        points(*lines)

"""A run whose steps somebody else's trainer makes: its rates, and what is kept of its losses."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from clr.errors import InvalidArgument
from clr.integrations.recorder import Recorder
from clr.run import Run
from clr.schedules.cycles import rate_of

RUN = Run(policy="exponential_ramp", base_lr=1e-3, max_lr=1.0, step_size_up=12, steps=12, seed=0, evaluate_every=4)


def sgd(*rates: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": [nn.Parameter(torch.ones(1))], "lr": rate} for rate in rates])


def holder(optimizer: torch.optim.Optimizer) -> nn.Module:
    return nn.ParameterList(parameter for group in optimizer.param_groups for parameter in group["params"])


def recorded(losses: list[float | None], metric: Callable[[], float | None] | None = None, **changes: Any) -> Recorder:
    recorder, optimizer = Recorder(Run(**RUN.to_dict() | changes), metric), sgd(0.1)
    for loss in losses:
        if recorder.ended:
            break
        recorder.set_rates(optimizer, holder(optimizer))
        recorder.keep(loss)
    return recorder


def test_each_step_has_the_rate_of_its_run_and_groups_keep_their_proportions() -> None:
    recorder, optimizer = Recorder(RUN), sgd(0.01, 0.1, torch.tensor(0.05))
    held, rate = optimizer.param_groups[2]["lr"], rate_of(RUN)
    for step in range(RUN.steps):
        recorder.set_rates(optimizer, holder(optimizer))
        recorder.set_rates(optimizer, holder(optimizer))  # for each batch that is accumulated
        low, high, half = (float(group["lr"]) for group in optimizer.param_groups)
        assert (low, high, half) == pytest.approx((rate(step) / 10, rate(step), rate(step) / 2))
        recorder.keep(1.0)
    assert optimizer.param_groups[2]["lr"] is held
    assert recorder.curve.lr == [rate(step) for step in range(RUN.steps)]
    assert recorder.ended


def test_it_tells_what_the_steps_were_made_with() -> None:
    recorder = Recorder(RUN)
    assert recorder.optimizer is None
    network = nn.Linear(2, 1)
    recorder.set_rates(torch.optim.AdamW([network.weight], weight_decay=0.5), network)
    assert recorder.optimizer == {"name": "AdamW", "args": {"weight_decay": 0.5}, "untrained": 1}


def test_an_optimizer_of_another_network_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="optimizer: must hold a parameter of the model that requires a gradient"):
        Recorder(RUN).set_rates(sgd(0.1), nn.Linear(2, 1))


def test_the_metric_is_taken_where_the_run_asks_for_it_and_at_the_end() -> None:
    values = iter([0.5, 0.4, 0.3])
    curve = recorded([1.0] * 10, lambda: next(values), steps=10).curve
    assert (curve.steps, curve.metric, curve.diverged) == ([4, 8, 10], [0.5, 0.4, 0.3], False)
    assert recorded([1.0] * 12).curve.metric == []


def test_a_step_without_a_loss_has_its_neighbours() -> None:
    losses = [None, None, 3.0, None, None, 2.0, *[1.0] * 6]
    assert recorded(losses).curve.loss == [3.0, 3.0, 3.0, 3.0, 3.0, 2.0, *[1.0] * 6]


def test_a_run_without_any_loss_has_no_curve() -> None:
    recorder = recorded([None] * 12)
    assert recorder.curve.loss == []
    assert recorder.ended


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(bad: float) -> None:
    recorder = recorded([1.0, 1.0, bad, 1.0])
    assert (recorder.ended, recorder.curve.diverged, len(recorder.curve.loss)) == (True, True, 3)


def test_a_metric_that_is_not_finite_ends_the_run_as_diverged() -> None:
    recorder = recorded([1.0] * 12, lambda: math.nan)
    assert (recorder.curve.diverged, recorder.curve.metric, len(recorder.curve.loss)) == (True, [], 4)


def test_a_loss_that_explodes_ends_a_ramp_and_not_a_run_without_that_rule() -> None:
    losses: list[float | None] = [*(2.0 - step / 10 for step in range(9)), 50.0, 90.0, 90.0, 90.0, 90.0]
    ended = recorded(losses, steps=14, explode=3.0)
    assert (ended.curve.diverged, len(ended.curve.loss)) == (True, 12)
    assert not recorded(losses, steps=14).curve.diverged

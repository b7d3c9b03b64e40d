import math
from typing import Any

import pytest
import torch

from clr.range_tests.pace import pace


def way(name: str, steps: int, **args: Any) -> float:
    """How far the optimizer goes in that many steps of a rate of one, on a gradient that stays as it is."""
    parameter = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = getattr(torch.optim, name)([parameter], lr=1.0, **args)
    for _ in range(steps):
        parameter.grad = torch.full((1,), 1e-3, dtype=torch.float64)
        optimizer.step()
    return abs(parameter.item())


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("SGD", {}),
        ("Adam", {}),
        ("Adagrad", {}),
        ("RAdam", {}),
        ("RMSprop", {}),
        ("RMSprop", {"alpha": 0.9}),
        ("RAdam", {"betas": [0.9, 0.99]}),
        ("NAdam", {}),
    ],
)
@pytest.mark.parametrize("steps", [50, 300])
def test_a_longer_training_goes_on_at_the_pace_of_the_optimizer(name: str, args: dict[str, Any], steps: int) -> None:
    longer = 10 * steps
    measured = math.log(way(name, longer, **args) / longer / (way(name, steps, **args) / steps))
    told = {"name": name, "args": args}
    assert pace(told, longer) - pace(told, steps) == pytest.approx(measured, abs=0.15)


def test_an_optimizer_that_is_not_known_keeps_its_pace() -> None:
    assert pace(None, 100) == pace({}, 100) == pace({"name": "Lion"}, 100) == 0.0
    assert math.isfinite(pace({"name": "RAdam", "args": {"betas": (0.0, 0.0)}}, 1))

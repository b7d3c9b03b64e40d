"""Models that carry a state from batch to batch, which scoring leaves alone; and gradients clipped by value."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clr.run import Run
from clr.training.loop import curve_of
from clr.training.task import Task

X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
Y = X.argmax(1)


class Recurrent(nn.Module):
    """Its hidden state is that of the batch before: a tensor of the graph, detached at the next."""

    def __init__(self, held: str) -> None:
        super().__init__()
        self.cell, self.out, self.held = nn.GRUCell(4, 8), nn.Linear(8, 4), held
        start = torch.zeros(8, 8)
        self.state: Any = [start] if held == "list" else start
        if held == "buffer":
            del self.state
            self.register_buffer("state", start, persistent=False)

    def forward(self, x: Tensor) -> Any:
        before = self.state[0] if self.held == "list" else self.state
        after = self.cell(x, before.detach()[: len(x)] if len(x) <= 8 else torch.zeros(len(x), 8))
        if len(x) == 8:
            self.state = [after] if self.held == "list" else after.detach() if self.held == "buffer" else after
        return self.out(after)


def task(**more: Any) -> Task:
    fields: dict[str, Any] = {"train": (X, Y), "loss": F.cross_entropy, "batch_size": 8, "device": "cpu"}
    return Task(**fields | {"model": lambda: nn.Linear(4, 4)} | more)


def run(**changes: Any) -> Run:
    fields: dict[str, Any] = {"policy": "fixed", "base_lr": 0.1, "max_lr": 0.1, "step_size_up": 8, "steps": 16}
    return Run(**fields | {"seed": 0, "evaluate_every": 16} | changes)


@pytest.mark.parametrize("held", ["attribute", "list", "buffer"])
@pytest.mark.parametrize("size", [8, 40])
def test_scoring_leaves_the_state_that_training_goes_on_with(held: str, size: int) -> None:
    def losses(**more: Any) -> list[float]:
        return curve_of(task(model=lambda: Recurrent(held), val=(X[:size], Y[:size])), run(**more)).loss

    assert losses(evaluate_every=1) == losses(evaluate_every=16)


@pytest.mark.parametrize("held", ["attribute", "list", "buffer"])
def test_a_run_begins_without_the_state_of_the_one_before(held: str) -> None:
    one = Recurrent(held)
    mine = task(model=lambda: one)
    assert curve_of(mine, run()).loss == curve_of(mine, run()).loss
    kept = one.state[0] if held == "list" else one.state
    assert torch.equal(kept, torch.zeros(8, 8)), "the caller's own carries nothing"


@pytest.mark.parametrize("accumulate", [1, 2])
def test_no_gradient_is_larger_than_its_limit(accumulate: int) -> None:
    seen = []

    class Watched(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            grads = [one.grad.abs().max().item() for group in self.param_groups for one in group["params"]]
            seen.append(max(grads))
            return super().step(closure)

    def large(output: Tensor, target: Tensor) -> Tensor:
        return 1000 * F.cross_entropy(output, target)

    own = {"loss": large, "optimizer": lambda groups: Watched(groups, lr=1.0), "accumulate": accumulate}
    curve_of(task(**own, clip_value=0.25), run())
    assert seen == pytest.approx([0.25] * 16)
    seen.clear()
    curve_of(task(**own, clip_value=0.25, clip_norm=0.1), run())
    assert max(seen) <= 0.1

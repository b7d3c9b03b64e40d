"""The loss of the best constant output: what a network has learnt from its inputs shows below it alone."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from clr.training.first_step import WRONG
from clr.training.loop import ONE_STEP, RunUnderWay, device_of
from clr.training.random_states import OwnRandomStates
from clr.training.task import Task, model_loss

EXAMPLES, BATCHES = 1024, 64
"""That many are looked at, whichever is reached first, but two batches at least."""

LARGEST = 2**22
"""Numbers in the output of a batch above which it is not tried: a language model's take as long as its steps."""

ROUNDS = 25
"""Of the optimizer that finds the constant; most losses are convex in it."""


class Constant(NamedTuple):
    """A training loss from batch to batch: its mean and its standard deviation."""

    level: float
    sd: float


def best_constant(task: Task) -> Constant | None:
    """What the task's loss is where the output is the same for every example, whichever is best.

    It is found on every second batch, and judged on the others. None where there is no such thing: the model computes
    its own loss, its output is no tensor of real numbers, or one of another size in other batches.

    Args:
        task: as it is; of objects of the caller's own, ``make`` puts back what a pass changes.
    """
    if task.loss is model_loss:
        return None
    device = device_of(task, ONE_STEP)
    with OwnRandomStates(ONE_STEP.seed, device):
        try:
            seen = _seen(RunUnderWay(task, ONE_STEP, device))
            return _best(task, seen) if seen else None
        except WRONG:  # the first step of a run says what is wrong
            return None


def _seen(training: RunUnderWay) -> list[tuple[Tensor, Tensor]]:
    """Outputs and targets of some batches; none where outputs differ in what they are."""
    seen: list[tuple[Tensor, Tensor]] = []
    examples = 0
    while len(seen) < 2 or (examples < EXAMPLES and len(seen) < BATCHES):
        with torch.no_grad():
            output, target = training.task.forward(training.network, next(training.batches))
        if not isinstance(output, Tensor) or not output.is_floating_point() or not 0 < output.numel() <= LARGEST:
            return []
        if not output.ndim or output.shape[1:] != (seen or [(output, target)])[0][0].shape[1:]:
            return []
        seen.append((output.detach().float(), target))
        examples += len(output)
    return seen


def _best(task: Task, seen: Sequence[tuple[Tensor, Tensor]]) -> Constant | None:
    constant = torch.stack([output.mean(0) for output, _ in seen]).mean(0).requires_grad_()
    optimizer = torch.optim.LBFGS([constant], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def losses(batches: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        return torch.stack([task.loss(constant.expand_as(output), target) for output, target in batches])

    def closure() -> float:
        optimizer.zero_grad()
        loss = losses(seen[::2]).mean()
        loss.backward()
        return loss.item()

    optimizer.step(closure)
    with torch.no_grad():
        judged = losses(seen[1::2])
    level, sd = float(judged.mean()), float(judged.std()) if len(judged) > 1 else 0.0
    return Constant(level, sd) if math.isfinite(level) and math.isfinite(sd) else None

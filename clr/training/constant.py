"""The loss of the best constant output: what a network has learnt from its inputs shows below it alone."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clr.run import ConstantOutput
from clr.training.loop import ONE_STEP, RunUnderWay, device_of, evaluate
from clr.training.module_state import module_state
from clr.training.random_states import OwnRandomStates
from clr.training.task import Task, model_loss

EXAMPLES, BATCHES = 1024, 64
"""That many are looked at, whichever is reached first, but two batches at least; and as many to validate."""

LARGEST = 2**22
"""Numbers in the output of a batch above which it is not tried: a language model's take as long as its steps. Of four
times as many, no more batches are looked at."""

ROUNDS = 25
"""Of the optimizer that finds the constant; most losses are convex in it."""

Pairs = Sequence[tuple[Tensor, Any]]


def best_constant(task: Task) -> ConstantOutput | None:
    """What the task's loss is where the output is the same for every example, whichever is best.

    It is found on every second batch, and judged on the others. None where there is no such thing: the model computes
    its own loss, its output is no tensor of real numbers, or one of another size in other batches. Nor where several
    processes train one model, of which each sees other examples.

    Args:
        task: as it is; of objects of the caller's own, ``make`` puts back what a pass changes.
    """
    if task.loss is model_loss:
        return None
    device = device_of(task, ONE_STEP)
    with OwnRandomStates(ONE_STEP.seed, device):
        try:
            training = RunUnderWay(task, ONE_STEP, device)
            seen = _seen(training) if training.group is None else []
            if not seen:
                return None
            constant = _best(task, seen[::2])
            with torch.no_grad():
                judged = _losses(task, constant, seen[1::2])
            score = evaluate(task, _Constant(training.model, constant), device, EXAMPLES)
        except Exception:  # whatever the code of somebody else raises: the first step of a run says what is wrong
            return None
    found = ConstantOutput(float(judged.mean()), float(judged.std(correction=0)), score)
    return found if all(value is None or math.isfinite(value) for value in found) else None


@torch.no_grad()
def _seen(training: RunUnderWay) -> Pairs:
    """Outputs, in eval mode, and targets of some batches; none where outputs differ in what they are."""
    seen: list[tuple[Tensor, Any]] = []
    back = module_state(training.model)
    training.model.eval()
    try:
        examples, numbers = 0, 0
        while len(seen) < 2 or (examples < EXAMPLES and len(seen) < BATCHES and numbers < 4 * LARGEST):
            output, target = training.task.forward(training.model, next(training.batches))
            if not isinstance(output, Tensor) or not output.is_floating_point() or not 0 < output.numel() <= LARGEST:
                return []
            if not output.ndim or (seen and output.shape[1:] != seen[0][0].shape[1:]):
                return []
            seen.append((output.float(), target))
            examples, numbers = examples + len(output), numbers + output.numel()
    finally:
        back()
    return seen


def _best(task: Task, seen: Pairs) -> Tensor:
    constant = torch.stack([output.mean(0) for output, _ in seen]).mean(0).requires_grad_()
    optimizer = torch.optim.LBFGS([constant], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def closure() -> float:
        loss = _losses(task, constant, seen).mean()
        (constant.grad,) = torch.autograd.grad(loss, [constant])  # a loss may have parameters of its own
        return loss.item()

    optimizer.step(closure)
    return constant.detach()


def _losses(task: Task, constant: Tensor, seen: Pairs) -> Tensor:
    """One of each batch."""
    return torch.stack([task.loss(constant.expand_as(output), target) for output, target in seen])


class _Constant(nn.Module):
    """As many outputs as the network has, each of them the constant."""

    def __init__(self, network: nn.Module, constant: Tensor) -> None:
        super().__init__()
        self.network, self.constant = network, constant

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The constant, expanded."""
        return self.constant.expand_as(self.network(*args, **kwargs))

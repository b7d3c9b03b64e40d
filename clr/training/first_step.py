"""The first step of a run, at which a task shows whether it can be trained at all."""

import inspect
from contextlib import suppress
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from clr.errors import ClrError, InvalidArgument
from clr.training.data import Batch, Data, described, is_one_tensor, is_resident
from clr.training.task import Task, forward, model_loss

WRONG = (TypeError, ValueError, RuntimeError, AttributeError, LookupError)
"""What code raises that is given something of another structure than it takes. Anything else goes through."""

LONGEST = 300
"""Characters of somebody else's error that a message repeats."""

HOW = "give forward=lambda model, batch: (output, target)"


class FailedFirstStep(InvalidArgument, RuntimeError):
    """The caller's code fails on a batch; ``__cause__`` is its own error."""


def first_loss(task: Task, network: nn.Module, batch: Batch) -> Tensor:
    """The loss of a run's first batch.

    Raises:
        FailedFirstStep: there is none; the message shows the batch, what the model takes and what went wrong.
        InvalidArgument: it is no loss.
    """
    own_forward = task.forward is not forward
    if is_one_tensor(batch) and not own_forward and task.loss is not model_loss:
        rule = f"must say what the loss compares in a batch of {described(batch)}, which has no target: "
        where = "where the input is its own target, forward=lambda model, batch: "
        how = "(model(batch), batch)" if isinstance(batch, Tensor) else "(model(batch[0]), batch[0])"
        pair = "; input and target are a tuple, a list is one of batches" if isinstance(task.train, list) else ""
        raise InvalidArgument("forward", f"{rule}{where}{how}; a model that computes its own loss takes no loss={pair}")
    check_batch(task, "train", batch)
    try:
        output, target = task.forward(network, batch)
    except WRONG as error:
        fail(
            error,
            "forward",
            f"must make output and target of a batch of {described(batch)} with a model that takes "
            f"{_signature(network)}{'' if own_forward else f' ({HOW})'}",
        )
    try:
        loss = task.loss(output, target)
    except WRONG as error:
        compared = f"must compare the output, {described(output)}, with the target, {described(target)}"
        fail(error, "loss", f"{compared}{'' if own_forward else f' (or {HOW})'}")
    _check(loss)
    return loss


def check_gradients(optimizer: Optimizer) -> None:
    """After the first backward pass: at least one parameter has a gradient.

    Raises:
        InvalidArgument: none has.
    """
    if all(one.grad is None for group in optimizer.param_groups for one in group["params"]):
        rule = "must use the model that it is given, but no parameter that the optimizer holds got a gradient"
        raise InvalidArgument("forward", rule)


def _check(loss: Any) -> None:
    if not isinstance(loss, Tensor):
        raise InvalidArgument("loss", "must return a scalar tensor", loss)
    if loss.ndim:
        raise InvalidArgument("loss", "must return a scalar tensor, the mean over the batch", loss)
    if not loss.is_floating_point():
        raise InvalidArgument("loss", "must return a real number", loss)
    if not loss.requires_grad:
        raise InvalidArgument("loss", "must depend on a parameter that requires a gradient", loss)


def check_batch(task: Task, field: str, batch: Batch) -> None:
    """What ``train`` or ``val`` yields is a batch, as far as that can be seen.

    Raises:
        InvalidArgument: it looks like one example.
    """
    if task.forward is forward and _is_example(getattr(task, field), batch):
        rule = (
            f"must yield batches, but {described(batch)} looks like one example: give DataLoader({field}, batch_size=N)"
        )
        raise InvalidArgument(field, f"{rule}, or batch_size=None to take one at a time")


def _is_example(data: Data, batch: Batch) -> bool:
    """Whether what a plain iterable yields is one example of input and target, rather than a batch of them."""
    if isinstance(data, DataLoader) or is_resident(data) or not isinstance(batch, list | tuple) or len(batch) != 2:
        return False
    example, target = batch
    if isinstance(target, int | float):
        return True
    if not isinstance(example, Tensor) or not isinstance(target, Tensor):
        return False
    return not target.ndim or (example.ndim == target.ndim == 1 and len(example) != len(target))


def fail(error: Exception, field: str, rule: str) -> NoReturn:
    """Raise what the caller's own code raised as the error of a field, unless it is no error of that code.

    Raises:
        FailedFirstStep: with the rule that the field breaks, and the error as its cause.
    """
    if isinstance(error, ClrError | torch.OutOfMemoryError):
        raise error
    said = " ".join(str(error).split())[:LONGEST]
    raise FailedFirstStep(field, f"{rule}, but that failed with {type(error).__name__}: {said}") from error


def _signature(network: nn.Module) -> str:
    with suppress(ValueError, TypeError):
        return str(inspect.signature(getattr(network, "_orig_mod", network).forward))
    return "anything"

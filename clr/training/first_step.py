"""The first step of a run, at which a task shows whether it can be trained at all."""

import inspect
from contextlib import suppress
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from clr.errors import ClrError, InvalidArgument
from clr.training.data import Batch, described, is_one_tensor
from clr.training.task import Task, forward, model_loss

WRONG = (TypeError, ValueError, RuntimeError, AttributeError, LookupError)
"""What code raises that is given something of another structure than it takes. Anything else goes through."""

LONGEST = 300
"""Characters of somebody else's error that a message repeats."""

HOW = "give forward=lambda model, batch: (output, target)"


class FailedFirstStep(InvalidArgument, RuntimeError):
    """The caller's code fails on the first batch; ``__cause__`` is its own error."""


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
        raise InvalidArgument("forward", f"{rule}{where}{how}; a model that computes its own loss takes no loss=")
    try:
        output, target = task.forward(network, batch)
    except WRONG as error:
        _raise(
            error,
            "forward",
            f"must make output and target of a batch of {described(batch)} with a model that takes "
            f"{_signature(network)}{'' if own_forward else f' ({HOW})'}",
        )
    try:
        loss = task.loss(output, target)
    except WRONG as error:
        compared = f"must compare the output, {described(output)}, with the target, {described(target)}"
        _raise(error, "loss", f"{compared}{'' if own_forward else f' (or {HOW})'}")
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
    if not loss.requires_grad:
        raise InvalidArgument("loss", "must depend on a parameter that requires a gradient", loss)


def _raise(error: Exception, field: str, rule: str) -> NoReturn:
    if isinstance(error, ClrError | torch.OutOfMemoryError):
        raise error
    said = " ".join(str(error).split())[:LONGEST]
    raise FailedFirstStep(field, f"{rule}, but that failed with {type(error).__name__}: {said}") from error


def _signature(network: nn.Module) -> str:
    with suppress(ValueError, TypeError):
        return str(inspect.signature(getattr(network, "_orig_mod", network).forward))
    return "anything"

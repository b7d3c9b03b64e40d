"""A task: what is trained, on which data, and how it is scored."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from clr.errors import InvalidArgument
from clr.run import Direction
from clr.schedules.policies import is_number
from clr.training.data import Batch, Data, batches_per_epoch

Precision = Literal["fp32", "bf16", "fp16"]


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Share of examples whose largest output (over dim 1) is at the target class; a scalar in [0, 1]."""
    return (output.argmax(1) == target).float().mean()


def forward(model: nn.Module, batch: Batch) -> tuple[Any, Any]:
    """Output and target of a batch: ``(input, target)`` pairs, or a mapping given to the model as keywords."""
    if isinstance(batch, Mapping):
        return model(**batch), batch.get("labels")
    inputs, target = batch
    return model(inputs), target


def model_loss(output: Any, _target: Any) -> Tensor:
    """The loss that a model computed itself (``output.loss`` or ``output["loss"]``)."""
    loss: Tensor | None = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if loss is None:
        raise InvalidArgument("loss", "must be given, since the model's output holds none", output)
    return loss


def optimizer(name: str = "SGD", **args: Any) -> Callable[[Iterable[Any]], Optimizer]:
    """Maker of the torch optimizer ``name``: called with parameters or groups. SGD has momentum 0.9 by default.

    Raises:
        InvalidArgument: when torch has no such optimizer.
    """
    kind = getattr(torch.optim, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer):
        raise InvalidArgument("optimizer.name", "must be an optimizer of torch.optim", name)
    make: Callable[..., Optimizer] = kind
    if name == "SGD":
        args = {"momentum": 0.9} | args
    return partial(make, lr=1e-3, **args)  # the rate is set at every step by the policy


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a training run needs. The learning rate is not part of it.

    Args:
        model: makes a freshly initialised model; called once a run, under that run's seed.
        train: tuple or mapping of equally long tensors (kept on the device where they fit), a map-style ``Dataset``,
            or an iterable of batches with a length, such as a ``DataLoader``.
        loss: ``loss(output, target)`` -> scalar tensor, the mean over the batch. May be negative.
        val: as ``train``; None scores a run by its training loss alone.
        metric: ``"accuracy"``, ``"loss"``, or ``metric(output, target)`` -> mean over the batch's examples; batches
            are averaged by their number of examples. None: no metric, the validation loss (if any) is minimised.
        direction: whether a larger metric is better. Default: maximize. A loss is always minimised.
        optimizer: called with the parameter groups, returns a torch optimizer. See ``clr.training.task.optimizer``.
        groups: model -> parameter groups; a group's ``"lr_mult"`` multiplies the rate for that group.
        forward: ``forward(model, batch)`` -> (output, target), for batches of a structure of their own.
        batch_size: examples per batch (ignored where ``train`` yields batches itself).
        accumulate: batches per optimizer step, >= 1. Steps, and so the policy, count optimizer steps.
        clip_norm: largest gradient norm, > 0, or None.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (with a gradient scaler; an update that it skips is no step).
        device: torch device; None takes CUDA where there is one.
        compile: whether ``torch.compile`` makes the network, or with which of its backends.
        collate: for a ``Dataset``, as in ``DataLoader``.
        workers: loader processes for a ``Dataset``, >= 0.
    """

    model: Callable[[], nn.Module]
    train: Data
    loss: Callable[[Any, Any], Tensor] = model_loss
    val: Data | None = None
    metric: Literal["accuracy", "loss"] | Callable[[Any, Any], Any] | None = None
    direction: Direction | None = None
    optimizer: Callable[[Iterable[Any]], Optimizer] = optimizer()
    groups: Callable[[nn.Module], Iterable[Any]] = nn.Module.parameters
    forward: Callable[[nn.Module, Batch], tuple[Any, Any]] = forward
    batch_size: int = 64
    accumulate: int = 1
    clip_norm: float | None = None
    precision: Precision = "fp32"
    device: str | None = None
    compile: bool | str = False
    collate: Callable[[list[Any]], Batch] | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        for field, least in (("batch_size", 1), ("accumulate", 1), ("workers", 0)):
            value = getattr(self, field)
            whole = isinstance(value, Integral) and not isinstance(value, bool)
            _require(field, value, f"must be a whole number, at least {least}", whole and value >= least)
        positive = self.clip_norm is None or (is_number(self.clip_norm) and self.clip_norm > 0)
        _require("clip_norm", self.clip_norm, "must be a number above 0", positive)
        _require("loss", self.loss, "must be a function of output and target", callable(self.loss))
        known = self.metric in (None, "accuracy", "loss") or callable(self.metric)
        _require("metric", self.metric, 'must be "accuracy", "loss" or a function', known)
        known = self.precision in ("fp32", "bf16", "fp16")
        _require("precision", self.precision, 'must be "fp32", "bf16" or "fp16"', known)
        known = self.direction in (None, "maximize", "minimize")
        _require("direction", self.direction, 'must be "maximize" or "minimize"', known)
        _require("device", self.device, 'must be a torch device such as "cpu" or "cuda:0"', _is_device(self.device))
        backends = torch.compiler.list_backends(()) if isinstance(self.compile, str) else []
        known = isinstance(self.compile, bool) or self.compile in backends
        _require("compile", self.compile, f"must be true, false or one of {', '.join(backends)}", known)

    @property
    def iterations_per_epoch(self) -> int:
        """Optimizer steps in one pass over the training data."""
        return max(1, batches_per_epoch(self.train, self.batch_size) // self.accumulate)

    @property
    def score(self) -> "tuple[str, Direction, Callable[[Any, Any], Any]]":
        """Name, direction and function of what a run is judged by."""
        if self.metric in (None, "loss") or self.val is None:
            return "loss", "minimize", self.loss
        if self.metric == "accuracy":
            return "accuracy", self.direction or "maximize", accuracy
        assert callable(self.metric)
        return getattr(self.metric, "__name__", "metric"), self.direction or "maximize", self.metric


def _require(field: str, value: Any, rule: str, holds: bool) -> None:
    if not holds:
        raise InvalidArgument(field, rule, value)


def _is_device(name: str | None) -> bool:
    try:
        return name is None or bool(torch.device(name))
    except RuntimeError:
        return False

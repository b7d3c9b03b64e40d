"""A task: what is trained, on which data, and how it is scored."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from typing import Any, ClassVar, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from clr.errors import InvalidArgument
from clr.run import Direction, direction_of
from clr.schedules.policies import is_number
from clr.training.data import Batch, Data, batches_per_epoch, described, examples, is_dataset
from clr.training.network import check_weights, own_network, own_optimizer

Precision = Literal["fp32", "bf16", "fp16"]


def accuracy(output: Tensor, target: Tensor) -> Tensor:
    """Share of examples whose largest output (over dim 1) is at the target class; a scalar in [0, 1].

    Raises:
        InvalidArgument: the targets are no class numbers, one for each largest of several outputs.
    """
    rule = f'must be a function of your own: "accuracy" compares the largest over dim 1 of {described(output)}'
    if output.ndim < 2 or output.shape[1] < 2:
        raise InvalidArgument("metric", f"{rule}, which has no two to choose from")
    predicted = output.argmax(1)
    if target.is_floating_point() or target.shape != predicted.shape:
        raise InvalidArgument("metric", f"{rule} with class numbers, which {described(target)} are not")
    return (predicted == target).float().mean()


def forward(model: nn.Module, batch: Batch) -> tuple[Any, Any]:
    """Output and target of a batch.

    ``(input, target)`` is a pair, a mapping is given to the model as keywords, and one tensor, alone or in a list, is
    an input that has no target: its loss is the model's own.

    Raises:
        InvalidArgument: the batch is none of these.
    """
    if type(batch) in (list, tuple) and len(batch) == 2:  # nearly every batch, and the rest takes time to find out
        return model(batch[0]), batch[1]
    if isinstance(batch, Mapping):
        return model(**batch), batch.get("labels")
    if isinstance(batch, Tensor):
        return model(batch), None
    if isinstance(batch, Sequence) and not isinstance(batch, str) and len(batch) in (1, 2):
        return model(batch[0]), batch[1] if len(batch) == 2 else None
    raise InvalidArgument(
        "forward",
        f"must say how a batch of {described(batch)} is taken apart: "
        "give forward=lambda model, batch: (output, target)",
    )


def model_loss(output: Any, _target: Any) -> Tensor:
    """The loss that a model computed itself: ``output.loss``, ``output["loss"]``, or an output that is one number.

    Raises:
        InvalidArgument: there is none.
    """
    loss: Tensor | None = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if loss is None and isinstance(output, Tensor) and output.ndim == 0:
        loss = output
    if loss is None:
        rule = (
            "must be given, since the model's output holds none; for a model that takes input and target and returns "
            "(output, loss), give forward=lambda model, batch: (model(*batch)[1], None)"
        )
        raise InvalidArgument("loss", rule, output)
    return loss


def optimizer(name: str = "SGD", **args: Any) -> Callable[[Iterable[Any]], Optimizer]:
    """Maker of the torch optimizer ``name``: called with parameters or groups. SGD has momentum 0.9 by default.

    Args:
        name: of a class of ``torch.optim`` that steps without a closure.
        args: its arguments but for ``params`` and ``lr``, which is set at every step by the policy.

    Raises:
        InvalidArgument: torch has no such optimizer, or it does not take these arguments.
    """
    kind = getattr(torch.optim, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer):
        raise InvalidArgument("optimizer.name", "must be an optimizer of torch.optim", name)
    if kind is torch.optim.LBFGS:
        raise InvalidArgument("optimizer.name", "must be an optimizer that steps without a closure", name)
    known = [one for one in inspect.signature(kind).parameters if one not in ("params", "lr")]
    for argument in args:
        if argument not in known:
            raise InvalidArgument(f"optimizer.args.{argument}", f"must be one of {', '.join(known)}")
    if name == "SGD":
        args = {"momentum": 0.9} | args
    args = {key: tuple(value) if isinstance(value, list) else value for key, value in args.items()}
    make: Callable[..., Optimizer] = kind
    try:
        make([nn.Parameter(torch.zeros(1, 1))], lr=1e-3, **args)  # its values are checked by torch itself
    except (ValueError, TypeError, RuntimeError) as error:
        raise InvalidArgument("optimizer.args", f"must be what torch.optim.{name} takes; {error}", args) from error
    return partial(make, lr=1e-3, **args)


class _StepsOfAnEpoch:
    """What was given, else what one pass over the data takes."""

    def __get__(self, task: "Task | None", _kind: Any = None) -> Any:
        if task is None:
            return None
        given = vars(task).get("iterations_per_epoch")
        if given is not None:
            return given
        return max(1, batches_per_epoch(task.train, task.batch_size) // task.accumulate)

    def __set__(self, task: "Task", value: int | None) -> None:
        vars(task)["iterations_per_epoch"] = value


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a training run needs. The learning rate is not part of it.

    Args:
        model: makes a freshly initialised model; called once a run, under that run's seed, and once more before the
            first, to see whether it returns the same weights again. If it does (``lambda: net``, or a new head on
            ``net``), or is itself a network, every run trains a copy from these weights, which stay as they are:
            fine-tuning.
        train: tuple or mapping of equally long tensors (kept on the device where they fit), one tensor, a map-style
            ``Dataset``, or an iterable of batches with a length, such as a ``DataLoader``.
        loss: ``loss(output, target)`` -> scalar tensor, the mean over the batch. May be negative. Default: the model
            computes its own.
        val: as ``train``; None scores a run by its training loss alone.
        metric: of the validation data, without which it is not used and the reasons say so: ``"accuracy"``,
            ``"loss"``, or ``metric(output, target)`` -> mean over the batch's examples; batches are averaged by their
            number of examples. None: no metric, the validation loss (if any) is minimised.
        direction: whether a larger metric is better. Default: what a metric's ``higher_is_better`` says, as
            torchmetrics' do, else its name (see ``clr.run.direction_of``), else maximize. A loss is always minimised.
        optimizer: called with the parameter groups, returns a torch optimizer. See ``clr.training.task.optimizer``.
        groups: model -> parameter groups; a group's ``"lr_mult"`` multiplies the rate for that group. Without one,
            groups keep the proportions of their ``"lr"``, and the largest has the rate itself.
        forward: ``forward(model, batch)`` -> (output, target), for batches of a structure of their own.
        batch_size: examples per batch; that of ``train`` where it yields batches itself.
        accumulate: batches per optimizer step, >= 1. Steps, and so the policy, count optimizer steps.
        clip_norm: largest gradient norm, > 0, or None.
        clip_value: largest absolute value of a gradient, > 0, or None.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (with a gradient scaler; an update that it skips is no step).
        device: torch device; None takes CUDA where there is one.
        compile: whether ``torch.compile`` makes the network, or with which of its backends.
        collate: for a ``Dataset``, as in ``DataLoader``.
        workers: loader processes for a ``Dataset``, >= 0.
        iterations_per_epoch: optimizer steps that count as one epoch, >= 1. Default: one pass over ``train``; needed
            where that has no length or no end.
    """

    model: nn.Module | Callable[[], nn.Module]
    train: Data
    loss: Callable[[Any, Any], Tensor] = model_loss
    val: Data | None = None
    metric: Literal["accuracy", "loss"] | Callable[[Any, Any], Any] | None = None
    direction: Direction | None = None
    optimizer: Callable[[Iterable[Any]], Optimizer] = partial(torch.optim.SGD, lr=1e-3, momentum=0.9)
    groups: Callable[[nn.Module], Iterable[Any]] = nn.Module.parameters
    forward: Callable[[nn.Module, Batch], tuple[Any, Any]] = forward
    batch_size: int = 64
    accumulate: int = 1
    clip_norm: float | None = None
    clip_value: float | None = None
    precision: Precision = "fp32"
    device: str | None = None
    compile: bool | str = False
    collate: Callable[[list[Any]], Batch] | None = None
    workers: int = 0
    iterations_per_epoch: int = cast(int, _StepsOfAnEpoch())

    lends: ClassVar[bool] = False
    """Whether ``make`` returns the same objects at each call, put back to where they began."""

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("accumulate", 1), ("workers", 0), ("iterations_per_epoch", 1)):
            value = vars(self)[name]
            whole = isinstance(value, Integral) and not isinstance(value, bool)
            derived = name == "iterations_per_epoch" and value is None
            _require(name, value, f"must be a whole number, at least {least}", derived or (whole and value >= least))
        for name in ("clip_norm", "clip_value"):
            value = vars(self)[name]
            _require(name, value, "must be a number above 0", value is None or (is_number(value) and value > 0))
        _require("model", self.model, "must be a network, or a function that makes one", callable(self.model))
        for name, takes in _FUNCTIONS.items():
            value = vars(self)[name]
            _require(name, value, f"must be a function of {takes}", callable(value))
            made = f"must be a function of {takes}, but a class has to be made first: {name}={_name(value)}()"
            _require(name, value, made, not (isinstance(value, type) and issubclass(value, nn.Module)))
        _require("optimizer", self.optimizer, _MAKER, callable(self.optimizer))
        known = self.metric in (None, "accuracy", "loss") or callable(self.metric)
        _require("metric", self.metric, 'must be "accuracy", "loss" or a function', known)
        known = self.precision in ("fp32", "bf16", "fp16")
        _require("precision", self.precision, 'must be "fp32", "bf16" or "fp16"', known)
        known = self.direction in (None, "maximize", "minimize")
        _require("direction", self.direction, 'must be "maximize" or "minimize"', known)
        self._check_judging()
        self._check_batching()
        _require("device", self.device, 'must be a torch device such as "cpu" or "cuda:0"', _is_device(self.device))
        backends = torch.compiler.list_backends(()) if isinstance(self.compile, str) else []
        known = isinstance(self.compile, bool) or self.compile in backends
        _require("compile", self.compile, f"must be true, false or one of {', '.join(backends)}", known)

    def _check_judging(self) -> None:
        """The better way of what runs are judged by is known."""
        judged = self.metric in (None, "loss")
        rule = 'must be "minimize", or left out, where runs are judged by a loss'
        _require("direction", self.direction, rule, not judged or self.direction != "maximize")
        rule = 'must be "maximize", or left out, where runs are judged by their accuracy'
        _require("direction", self.direction, rule, self.metric != "accuracy" or self.direction != "minimize")

    def _check_batching(self) -> None:
        """Nothing is said of batches that are made elsewhere."""
        own = getattr(self.train, "batch_size", None)
        made = own is None or self.batch_size in (Task.batch_size, own) or examples(self.train) is not None
        _require("batch_size", self.batch_size, f"must be left out, or train's own, {own}", made)
        of = [is_dataset(self.train), is_dataset(self.val)]
        rule = "must be left out where {} no Dataset with a length"
        _require("collate", self.collate, rule.format("train and val are"), self.collate is None or any(of))
        _require("workers", self.workers, rule.format("train is"), self.workers == 0 or of[0])

    def changed(self, **changes: Any) -> Self:
        """The same task but for these fields; the length of an epoch follows them unless it was given."""
        return replace(self, **{"iterations_per_epoch": vars(self)["iterations_per_epoch"]} | changes)

    def make(self, device: torch.device) -> tuple[nn.Module, Optimizer]:
        """A network on ``device`` and its optimizer, for one run: they share nothing with the caller or another run.

        Raises:
            InvalidArgument: the model or the optimizer that the task makes is none, or they do not fit.
        """
        network, copies = own_network(self.model)
        check_weights(network)
        network.to(device)
        return network, own_optimizer(self.optimizer(self.groups(network)), network, copies)

    @property
    def trains_all_alike(self) -> bool:
        """Whether its optimizer is known to hold the whole network in one group: else it takes a network to know."""
        plain = isinstance(self.optimizer, partial | type) and self.groups is nn.Module.parameters
        return plain and type(self) is Task

    @property
    def remarks(self) -> list[str]:
        """What people should know of how its runs are judged."""
        if self.val is None and self.metric not in (None, "loss"):
            return ["there is no val to take the metric of: runs are judged by their training loss"]
        return []

    @property
    def score(self) -> "tuple[str, Direction, Callable[[Any, Any], Any]]":
        """Name, direction and function of what a run is judged by."""
        if self.metric in (None, "loss") or self.val is None:
            return "loss", "minimize", self.loss
        if self.metric == "accuracy":
            return "accuracy", "maximize", accuracy
        assert callable(self.metric)
        name, rises = _name(self.metric), getattr(self.metric, "higher_is_better", None)
        known: Direction = direction_of(name) if not isinstance(rises, bool) else "maximize" if rises else "minimize"
        return name, self.direction or known, self.metric


_FUNCTIONS = {"loss": "output and target", "forward": "model and batch", "groups": "the model"}

_MAKER = (
    "must be a function that makes one of parameter groups, such as "
    "lambda groups: torch.optim.AdamW(groups, weight_decay=0.1)"
)


def _require(field: str, value: Any, rule: str, holds: bool) -> None:
    if not holds:
        raise InvalidArgument(field, rule, value)


def _name(function: Any) -> str:
    """Of a function, of what a partial one calls, or of an object's class."""
    named = getattr(function, "func", function)
    name: str = getattr(named, "__name__", type(named).__name__)
    return "metric" if name == "<lambda>" else name


def _is_device(name: str | None) -> bool:
    try:
        return name is None or bool(torch.device(name))
    except RuntimeError:
        return False

"""A task made of the caller's own model, optimizer and loader, and their return as they were, bit for bit."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from clr.errors import InvalidArgument
from clr.training.data import Data, loader_generators
from clr.training.module_state import attributes, put, set_attributes
from clr.training.task import Task, model_loss

FIELDS = {field.name for field in fields(Task)} - {"model", "optimizer", "groups", "device"}
"""What a caller may say of a task besides its model and optimizer."""


@contextmanager
def borrowed(
    *,
    model: nn.Module,
    optimizer: Optimizer,
    train: Data,
    val: Data | None = None,
    loss: Callable[[Any, Any], Tensor] = model_loss,
    **more: Any,
) -> Iterator[Task]:
    """A task whose every run starts from ``model`` and ``optimizer`` as they are now, whatever it does to them.

    When the block ends, also by an exception or KeyboardInterrupt, parameters, gradients, buffers (persistent or
    not), plain attributes and train / eval mode of every module, optimizer state and groups, and the loaders'
    generators are what they were. The training loop itself leaves the global random states alone.

    Args:
        model, optimizer: the caller's own, on whatever device they are.
        train, val, loss: as in ``clr.Task``.
        more: further fields of ``clr.Task``, but for ``groups`` and ``device``: the optimizer has its groups, the
            model its device.

    Raises:
        InvalidArgument: a field is unknown, or the model cannot be trained by the optimizer.
    """
    _check(model, optimizer, more)
    modules = [one for one in (model, loss, more.get("metric")) if isinstance(one, nn.Module)]
    restore = [
        *map(_module_state, modules),
        _parameter_state([parameter for group in optimizer.param_groups for parameter in group["params"]]),
        _optimizer_state(optimizer),
        *map(_generator_state, (train, val)),
    ]

    def fresh() -> nn.Module:
        for back in restore:
            back()
        return model

    device = next((str(parameter.device) for parameter in model.parameters()), None)
    with ExitStack() as returned:  # every one, also where another fails
        for back in reversed(restore):
            returned.callback(back)
        yield Task(
            model=fresh,
            optimizer=lambda _groups: optimizer,
            train=train,
            val=val,
            loss=loss,
            device=device,
            **more,
        )


def _check(model: nn.Module, optimizer: Optimizer, given: Iterable[str]) -> None:
    if unknown := sorted(set(given) - FIELDS):
        raise InvalidArgument(unknown[0], f"must be one of model, optimizer, {', '.join(sorted(FIELDS))}")
    if not isinstance(model, nn.Module):
        raise InvalidArgument("model", "must be a torch module", model)
    if not isinstance(optimizer, Optimizer):
        raise InvalidArgument("optimizer", "must be a torch optimizer", optimizer)
    if isinstance(optimizer, torch.optim.LBFGS):
        raise InvalidArgument("optimizer", "must step without a closure", optimizer)
    if any(is_lazy(parameter) for parameter in model.parameters()):
        raise InvalidArgument("model", "must know the shapes of its parameters: give it a batch first", model)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(parameter) in held and parameter.requires_grad for parameter in model.parameters()):
        raise InvalidArgument("optimizer", "must hold a parameter of the model that requires a gradient", optimizer)


def _module_state(model: nn.Module) -> Callable[[], None]:
    parameters = _parameter_state(model.parameters())
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    plain = attributes(model)  # train or eval mode is among them
    own = [dict(vars(module)) for module in model.modules()]
    places: list[tuple[Any, dict[str, Any]]] = [
        (held, dict(held))
        for module in model.modules()
        for held in (module._modules, module._parameters, module._buffers)
    ]

    def back() -> None:
        for held, saved_places in places:  # a module may give a name to another tensor, or make a module as it goes
            held.clear()
            held.update(saved_places)
        parameters()
        for buffer, saved in buffers:
            put(buffer, saved)
        for module, values in zip(model.modules(), own, strict=True):
            for name in vars(module).keys() - values.keys():
                del vars(module)[name]
            vars(module).update(values)  # not the tensors that training put there
        set_attributes(model, plain)

    return back


def _parameter_state(parameters: Iterable[Tensor]) -> Callable[[], None]:
    saved = [
        (one, one.detach().clone(), None if one.grad is None else one.grad.detach().clone(), one.requires_grad)
        for one in parameters
    ]

    def back() -> None:
        for one, values, gradient, requires_grad in saved:
            put(one, values)
            one.requires_grad_(requires_grad)
            one.grad = None if gradient is None else gradient.clone()

    return back


def _optimizer_state(optimizer: Optimizer) -> Callable[[], None]:
    state = {parameter: deepcopy(values) for parameter, values in optimizer.state.items()}
    groups = [
        {key: deepcopy(value) for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]

    def back() -> None:
        optimizer.state.clear()
        optimizer.state.update({parameter: deepcopy(values) for parameter, values in state.items()})
        for group, saved in zip(optimizer.param_groups, groups, strict=True):
            fresh = {"params": group["params"]} | deepcopy(saved)
            group.clear()
            group.update(fresh)

    return back


def _generator_state(loader: Any) -> Callable[[], None]:
    states = [(generator, generator.get_state()) for generator in loader_generators(loader)]

    def back() -> None:
        for generator, state in states:
            generator.set_state(state)

    return back

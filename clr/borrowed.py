"""A task made of the caller's own model, optimizer and loader, and their return as they were, bit for bit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from clr.data import Data, loader_generators
from clr.module_state import attributes, set_attributes
from clr.task import Task, model_loss


@contextmanager
def borrowed(
    *,
    model: nn.Module,
    optimizer: Optimizer,
    train: Data,
    val: Data | None = None,
    loss: Callable[[Any, Any], Tensor] = model_loss,
    **fields: Any,
) -> Iterator[Task]:
    """A task whose every run starts from ``model`` and ``optimizer`` as they are now, whatever it does to them.

    When the block ends, also by an exception or KeyboardInterrupt, parameters, gradients, buffers (persistent or
    not), plain attributes and train / eval mode of every module, optimizer state and groups, and the loaders'
    generators are what they were. The training loop itself leaves the global random states alone.

    Args:
        model, optimizer: the caller's own, on whatever device they are.
        train, val, loss: as in ``clr.Task``.
        fields: further fields of ``clr.Task``.
    """
    restore = [_model_state(model), _optimizer_state(optimizer), *map(_generator_state, (train, val))]

    def fresh() -> nn.Module:
        for back in restore:
            back()
        return model

    device = next((str(parameter.device) for parameter in model.parameters()), None)
    try:
        yield Task(
            model=fresh,
            optimizer=lambda _groups: optimizer,
            train=train,
            val=val,
            loss=loss,
            device=device,
            **fields,
        )
    finally:
        for back in restore:
            back()


def _model_state(model: nn.Module) -> Callable[[], None]:
    tensors = [(tensor, tensor.detach().clone()) for tensor in (*model.parameters(), *model.buffers())]
    gradients = [(one, None if one.grad is None else one.grad.detach().clone()) for one in model.parameters()]
    plain = attributes(model)  # train or eval mode is among them
    own = [dict(vars(module)) for module in model.modules()]
    places = [(module._buffers, dict(module._buffers)) for module in model.modules()]

    @torch.no_grad()
    def back() -> None:
        for buffers, saved_buffers in places:  # a module may give a buffer's name to another tensor
            buffers.clear()
            buffers.update(saved_buffers)
        for tensor, saved in tensors:
            tensor.copy_(saved)
        for parameter, gradient in gradients:
            parameter.grad = None if gradient is None else gradient.clone()
        for module, values, names in zip(model.modules(), own, plain, strict=True):
            vars(module).update({name: values[name] for name in names})  # not the tensors that training put there
        set_attributes(model, plain)

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
            parameters = group["params"]
            group.clear()
            group.update({"params": parameters} | deepcopy(saved))

    return back


def _generator_state(loader: Any) -> Callable[[], None]:
    states = [(generator, generator.get_state()) for generator in loader_generators(loader)]

    def back() -> None:
        for generator, state in states:
            generator.set_state(state)

    return back

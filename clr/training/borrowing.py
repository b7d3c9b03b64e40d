"""A task made of the caller's own model, optimizer and loader, and their return as they were, bit for bit."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from clr.errors import InvalidArgument
from clr.training.data import Data, epoch_owners, loader_generators
from clr.training.module_state import module_state, parameter_state
from clr.training.network import check_weights, own_optimizer
from clr.training.random_states import random_states, set_random_states
from clr.training.task import Task, model_loss

FIELDS = {field.name for field in fields(Task)} - {"model", "optimizer", "device"}
"""What a caller may say of a task besides its model and optimizer."""


@dataclass(frozen=True, kw_only=True)
class _BorrowedTask(Task):
    """A task whose every run trains the same network and optimizer, put back to where they began."""

    lends: ClassVar[bool] = True

    def make(self, device: torch.device) -> tuple[nn.Module, Optimizer]:
        network = self.model()
        return network, self.optimizer(self.groups(network))


@contextmanager
def borrowed(
    *,
    model: nn.Module,
    optimizer: Optimizer,
    train: Data,
    val: Data | None = None,
    loss: Callable[[Any, Any], Tensor] = model_loss,
    groups: Callable[[nn.Module], Iterable[Any]] | None = None,
    **more: Any,
) -> Iterator[Task]:
    """A task whose every run starts from ``model`` and ``optimizer`` as they are now, whatever it does to them.

    When the block ends, also by an exception or KeyboardInterrupt, parameters, gradients, buffers (persistent or
    not), plain attributes and train / eval mode of every module, optimizer state and groups, and the loaders'
    generators are what they were, and so are the global random states, which the training loop leaves alone, but not
    the first import of some packages.

    Args:
        model, optimizer: the caller's own, on whatever device they are.
        train, val, loss: as in ``clr.Task``.
        groups: as there; None: the optimizer's own, whose rates keep their proportions. Other groups take everything
            but the rate from those of the optimizer's that hold their parameters.
        more: further fields of ``clr.Task``, but for ``device``, which is the model's.

    Raises:
        InvalidArgument: a field is unknown, or the model cannot be trained by the optimizer.
    """
    _check(model, optimizer, more)
    modules = [one for one in (model, loss, more.get("metric")) if isinstance(one, nn.Module)]
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    restore = [
        *map(module_state, modules),
        parameter_state([*held, *(parameter for module in modules for parameter in module.parameters())]),
        optimizer_state(optimizer),
        *map(generator_state, (train, val)),
    ]

    def fresh() -> nn.Module:
        for back in restore:
            back()
        return model

    def regrouped(given: Iterable[Any]) -> Optimizer:
        if groups is not None:
            optimizer.param_groups[:] = _regrouped(optimizer, given)
        return optimizer

    device = next((str(parameter.device) for parameter in model.parameters()), None)
    with ExitStack() as returned:  # every one, also where another fails
        returned.callback(set_random_states, random_states())
        for back in reversed(restore):
            returned.callback(back)
        yield _BorrowedTask(
            model=fresh,
            optimizer=regrouped,
            groups=groups or nn.Module.parameters,
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
    check_weights(model)
    own_optimizer(optimizer, model, {})


def _regrouped(optimizer: Optimizer, groups: Iterable[Any]) -> list[dict[str, Any]]:
    """Groups of the caller's own, with the settings that the optimizer has for their parameters, and one rate."""
    settings = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    given = list(groups)
    made = [dict(one) for one in given] if given and isinstance(given[0], dict) else [{"params": given}]
    regrouped = []
    for group in made:
        group["params"] = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        group["params"] = [one for one in group["params"] if id(one) in settings]
        if group["params"]:
            rest = {key: value for key, value in settings[id(group["params"][0])].items() if key != "lr_mult"}
            regrouped.append(rest | {"lr": optimizer.defaults["lr"]} | group)
    if not regrouped:
        raise InvalidArgument("groups", "must hold a parameter that the optimizer holds", given)
    return regrouped


def optimizer_state(optimizer: Optimizer) -> Callable[[], None]:
    """A function that puts back an optimizer's state and groups."""
    state = {parameter: deepcopy(values) for parameter, values in optimizer.state.items()}
    held = list(optimizer.param_groups)
    groups = [{key: deepcopy(value) for key, value in group.items() if key != "params"} for group in held]

    def back() -> None:
        optimizer.state.clear()
        optimizer.state.update({parameter: deepcopy(values) for parameter, values in state.items()})
        optimizer.param_groups[:] = held
        for group, saved in zip(held, groups, strict=True):
            fresh = {"params": group["params"]} | deepcopy(saved)
            group.clear()
            group.update(fresh)

    return back


def generator_state(loader: Any) -> Callable[[], None]:
    """A function that puts back the random generators of a loader and its sampler, and the epoch that they are at."""
    states = [(generator, generator.get_state()) for generator in loader_generators(loader)]
    epochs = [(owner, owner.epoch) for owner in epoch_owners(loader) if isinstance(getattr(owner, "epoch", None), int)]

    def back() -> None:
        for generator, state in states:
            generator.set_state(state)
        for owner, epoch in epochs:
            owner.set_epoch(epoch)

    return back

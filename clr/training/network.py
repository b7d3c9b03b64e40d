"""The network of one run: a fresh one, or a copy where the caller's weights are what training starts from."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from clr.errors import InvalidArgument
from clr.training.random_states import random_states, set_random_states

Copies = dict[int, Any]
"""What a network is a copy of: by ``id``, as in ``deepcopy``. Empty where it is none."""


_shared: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
"""Makers of networks, and whether they return the same weights again: found out once."""


def own_network(model: nn.Module | Callable[[], nn.Module]) -> tuple[nn.Module, Copies]:
    """A network that no other run trains, and what it is a copy of.

    Args:
        model: a network, or a function that makes one, perhaps the same one again, or one around the same weights.

    Raises:
        InvalidArgument: ``model`` makes no network, or one that is shared and cannot be copied.
    """
    network = model if isinstance(model, nn.Module) else _made(model)
    if network is not model and not _is_shared(network, model):
        return network, {}
    copies: Copies = {}
    try:
        copied = deepcopy(network, copies)
    except Exception as error:
        rule = f"must make a new network at each call, or one that deepcopy can copy; {type(error).__name__}: {error}"
        raise InvalidArgument("model", rule, network) from error
    for mine, yours in zip(copied.parameters(), network.parameters(), strict=True):
        vars(mine).update(vars(yours))  # marks such as "no weight decay", which are lost in a copy
    return copied, copies


def check_weights(network: nn.Module) -> None:
    """Every parameter has a shape and values.

    Raises:
        InvalidArgument: one has not.
    """
    if any(map(is_lazy, network.parameters())):
        raise InvalidArgument("model", "must know the shapes of its parameters: give it a batch first", network)
    if any(parameter.is_meta for parameter in network.parameters()):
        raise InvalidArgument("model", "must have weights, but lies on the meta device", network)


def own_optimizer(optimizer: Optimizer, network: nn.Module, copies: Copies) -> Optimizer:
    """The optimizer of ``network``, also where it was made of the weights that those are a copy of.

    Raises:
        InvalidArgument: it holds no parameter of the network that can be trained, or does not step by itself.
    """
    check_optimizer(optimizer)
    if not _holds(optimizer, network) and copies:
        optimizer = deepcopy(optimizer, copies)
    check_holds(optimizer, network)
    return optimizer


def check_optimizer(optimizer: Any) -> None:
    """It is one of torch's kind, which steps when it is told to.

    Raises:
        InvalidArgument: it is not.
    """
    if isinstance(optimizer, list | tuple | dict) and optimizer:
        raise InvalidArgument("optimizer", f"must be one optimizer; {SEVERAL}", optimizer)
    if not isinstance(optimizer, Optimizer):
        raise InvalidArgument("optimizer", "must be a torch optimizer", optimizer)
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise InvalidArgument("optimizer", "must step without a closure", optimizer)


SEVERAL = (
    "of a training with several, let the service or `clr tune` start your own program (a command job), or train it "
    "yourself and report (an external job)"
)


def check_holds(optimizer: Optimizer, network: nn.Module) -> None:
    """It trains this network, and no other.

    Raises:
        InvalidArgument: it holds no parameter of the network that can be trained.
    """
    if not _holds(optimizer, network):
        raise InvalidArgument("optimizer", "must hold a parameter of the model that requires a gradient", optimizer)


def untrained(optimizer: Optimizer, network: nn.Module) -> int:
    """How many parameters of the network require a gradient, but are in no group of the optimizer."""
    held = _held(optimizer)
    return sum(id(parameter) not in held for parameter in _trainable(network))


def _holds(optimizer: Optimizer, network: nn.Module) -> bool:
    held = _held(optimizer)
    return any(id(parameter) in held for parameter in _trainable(network))


def _held(optimizer: Optimizer) -> set[int]:
    return {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}


def _trainable(network: nn.Module) -> Iterator[nn.Parameter]:
    return (parameter for parameter in network.parameters() if parameter.requires_grad)


def _made(model: Callable[[], nn.Module]) -> nn.Module:
    signature = None
    with suppress(ValueError):  # there is none to look at
        signature = inspect.signature(model)
    try:
        if signature is not None:
            signature.bind()
    except TypeError as error:
        raise InvalidArgument("model", f"must be called without arguments; {error}", model) from None
    network = model()
    if not isinstance(network, nn.Module):
        raise InvalidArgument("model", "must make a torch module", network)
    return network


def _is_shared(network: nn.Module, model: Callable[[], nn.Module]) -> bool:
    """Whether another call returns weights or buffers of this network; the random states are left as they are."""
    with suppress(TypeError):  # of no weak reference
        if model in _shared:
            return _shared[model]
    states = random_states()
    try:
        shared = not _memory(network).isdisjoint(_memory(_made(model)))
    finally:
        set_random_states(states)
    with suppress(TypeError):
        _shared[model] = shared
    return shared


def _memory(network: nn.Module) -> set[int]:
    found = set()
    for tensor in (*network.parameters(), *network.buffers()):
        found.add(id(tensor))
        with suppress(RuntimeError, ValueError, NotImplementedError):  # of no storage, or of no shape yet
            found.add(tensor.untyped_storage().data_ptr() or id(tensor))
    return found

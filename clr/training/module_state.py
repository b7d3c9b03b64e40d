"""What a module holds beside its parameters and may change as it runs: buffers, counters, carried states."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from clr.training.processes import reshard

Attributes = list[dict[str, Any]]
"""For each module, in the order of ``modules()``, its own plain attributes."""

_ANY_MODULES = set(vars(nn.Module())) - {"training"}


def attributes(model: nn.Module) -> Attributes:
    """Copies of the plain attributes of every module: numbers, strings, tensors, and lists and mappings of these."""
    return [
        {name: _copy(value) for name, value in vars(module).items() if name not in _ANY_MODULES and _is_plain(value)}
        for module in model.modules()
    ]


def set_attributes(model: nn.Module, saved: Attributes) -> None:
    """Put ``attributes(model)`` back; a tensor that is still there takes its old values in place."""
    for module, values in zip(model.modules(), saved, strict=True):
        for name, value in values.items():
            vars(module)[name] = _put(vars(module).get(name), value)


def module_state(model: nn.Module) -> Callable[[], None]:
    """A function that puts back all that modules hold now, but for the values of parameters.

    These are buffers (persistent or not), plain attributes, train or eval mode, and which parameter, buffer, module or
    other attribute has which name.
    """
    reshard(model)
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    plain = attributes(model)  # train or eval mode is among them
    own = [dict(vars(module)) for module in model.modules()]
    places: list[tuple[Any, dict[str, Any]]] = [
        (held, dict(held))
        for module in model.modules()
        for held in (module._modules, module._parameters, module._buffers)
        if isinstance(held, dict)  # those of a script cannot change
    ]

    def back() -> None:
        reshard(model)
        for held, saved_places in places:  # a module may give a name to another tensor, or make a module as it goes
            held.clear()
            held.update(saved_places)
        for buffer, saved in buffers:
            put(buffer, saved)
        for module, values in zip(model.modules(), own, strict=True):
            for name in vars(module).keys() - values.keys():
                del vars(module)[name]
            vars(module).update(values)  # not the tensors that training put there
        set_attributes(model, plain)

    return back


def parameter_state(parameters: Iterable[Tensor]) -> Callable[[], None]:
    """A function that puts back the values of parameters, their gradients, and whether they have any."""
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


def _is_plain(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not isinstance(value, nn.Parameter) and not value.requires_grad
    if isinstance(value, list | tuple | dict):
        items = value.values() if isinstance(value, dict) else value
        return type(value) in (list, tuple, dict) and all(map(_is_plain, items))
    return value is None or isinstance(value, bool | int | float | str)


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else deepcopy(value)


def put(tensor: Tensor, saved: Tensor) -> None:
    """Give ``tensor`` the values of ``saved``, in place unless its shape or type is another now.

    It may be expanded, or have been made in inference mode.
    """
    if (tensor.shape, tensor.dtype) != (saved.shape, saved.dtype):
        tensor.data = saved.clone()
        return
    if tensor.layout is torch.strided:  # an expanded dimension is one element in memory
        once = tuple(slice(1) if stride == 0 else slice(None) for stride in tensor.stride())
        tensor, saved = tensor.detach()[once], saved[once]
    with torch.inference_mode() if tensor.is_inference() else torch.no_grad():
        tensor.copy_(saved)


def _put(now: Any, saved: Any) -> Any:
    if isinstance(saved, Tensor):
        if isinstance(now, Tensor) and (now.shape, now.dtype, now.requires_grad) == (saved.shape, saved.dtype, False):
            put(now, saved)
            return now
        return saved.clone()
    if isinstance(saved, list) and type(now) is list:  # others may hold the same list
        now[:] = deepcopy(saved)
        return now
    if isinstance(saved, dict) and type(now) is dict:
        new = deepcopy(saved)
        now.clear()
        now.update(new)
        return now
    return deepcopy(saved)

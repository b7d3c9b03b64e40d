"""What a module holds beside parameters and buffers and may change as it trains: counters, sums of a metric."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

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


def _is_plain(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not isinstance(value, nn.Parameter) and not value.requires_grad
    if isinstance(value, list | tuple | dict):
        items = value.values() if isinstance(value, dict) else value
        return type(value) in (list, tuple, dict) and all(map(_is_plain, items))
    return value is None or isinstance(value, bool | int | float | str)


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else deepcopy(value)


def _put(now: Any, saved: Any) -> Any:
    if not isinstance(saved, Tensor):
        return deepcopy(saved)
    if isinstance(now, Tensor) and (now.shape, now.dtype, now.requires_grad) == (saved.shape, saved.dtype, False):
        with torch.no_grad():
            return now.copy_(saved)
    return saved.clone()

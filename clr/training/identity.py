"""What tells one task from another, for runs that were saved: they must not be taken for those of a changed one."""

import hashlib
import json
from collections.abc import Mapping
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from clr.training.data import Data, examples
from clr.training.optimizers import described
from clr.training.random_states import OwnRandomStates
from clr.training.task import Task

FUNCTIONS = ("model", "loss", "metric", "forward", "groups", "optimizer", "collate")
SETTINGS = ("batch_size", "accumulate", "clip_norm", "clip_value", "precision", "iterations_per_epoch")


def digest_of(task: Task) -> str:
    """Of the network's layers and shapes, optimizer, settings, own functions' code, and the data, SHA-256 in hex.

    Initial weights do not count: a script makes them anew. Of data that are no tensors the number of examples counts.
    """
    cpu = torch.device("cpu")
    with OwnRandomStates(0, cpu):
        network, optimizer = task.make(cpu)
    about = {
        "network": [_module(module) for module in network.modules()],
        "parameters": [(list(one.shape), str(one.dtype), one.requires_grad) for one in network.parameters()],
        "optimizer": described(optimizer, network),
        "settings": [getattr(task, name) for name in SETTINGS],
        "functions": [_code(getattr(task, name)) for name in FUNCTIONS],
        "data": [_content(data) for data in (task.train, task.val)],
    }
    return hashlib.sha256(json.dumps(about).encode()).hexdigest()


def _module(module: nn.Module) -> list[Any]:
    """Its class and code, and its attributes that are plain values."""
    plain = {name: value for name, value in vars(module).items() if isinstance(value, bool | int | float | str | tuple)}
    return [type(module).__qualname__, _code(type(module).forward), repr(plain)]


def _code(function: Any) -> Any:
    """A function by its code, what is partly called by its arguments too, anything else by its name."""
    if function is None or isinstance(function, str):
        return function
    if isinstance(function, nn.Module):
        return [_module(module) for module in function.modules()]
    if hasattr(function, "func"):
        return [_code(function.func), repr(function.args), repr(function.keywords)]
    code = getattr(function, "__code__", None)
    return getattr(function, "__qualname__", type(function).__qualname__) if code is None else _instructions(code)


def _instructions(code: CodeType) -> list[Any]:
    constants = [_instructions(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts]
    return [code.co_code.hex(), list(code.co_names), constants]


def _content(data: Data) -> Any:
    if isinstance(data, Tensor):
        whole = data.detach().cpu().contiguous()
        content = whole.view(torch.uint8) if whole.ndim else whole
        return [str(data.dtype), list(data.shape), hashlib.sha256(content.numpy().tobytes()).hexdigest()]
    if isinstance(data, Mapping):
        return {str(name): _content(value) for name, value in data.items()}
    if isinstance(data, tuple):
        return [_content(value) for value in data]
    return None if data is None else [type(data).__qualname__, examples(data)]

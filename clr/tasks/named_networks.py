"""Networks for pictures by name: one of this project's own, and all that torchvision and timm have."""

from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from torch import nn

from clr.errors import InvalidArgument
from clr.tasks.networks import conv_net

Maker = Callable[[], nn.Module]


def network_maker(name: str, classes: int) -> Maker:
    """What makes the untrained network ``name`` with one output per class.

    Args:
        name: ``conv_net``, ``torchvision/NAME`` or ``timm/NAME``.
        classes: >= 1.

    Raises:
        InvalidArgument: there is no such network, or its package is not installed.
    """
    package, _, own_name = name.partition("/")
    if name == "conv_net":
        return lambda: conv_net(classes)
    if package not in _MAKERS or not own_name:
        raise InvalidArgument("args.network", "must be conv_net, torchvision/NAME or timm/NAME", name)
    try:
        module = import_module(_MAKERS[package])
    except (ImportError, RuntimeError) as error:  # a torchvision built for another torch raises RuntimeError
        raise InvalidArgument(
            "args.network",
            f"must be of a package that can be imported, as {package} cannot ({error}); install it where the workers "
            "run, or choose conv_net",
            name,
        ) from error
    return _torchvision(module, own_name, classes) if package == "torchvision" else _timm(module, own_name, classes)


_MAKERS = {"torchvision": "torchvision.models", "timm": "timm"}


def _torchvision(models: Any, name: str, classes: int) -> Maker:
    _require_known("torchvision", name, models.list_models(module=models))
    return lambda: models.get_model(name, weights=None, num_classes=classes)


def _timm(timm: Any, name: str, classes: int) -> Maker:
    _require_known("timm", name, timm.list_models())
    return lambda: timm.create_model(name, pretrained=False, num_classes=classes)


def _require_known(package: str, name: str, known: list[str]) -> None:
    if name not in known:
        near = ", ".join(get_close_matches(name, known, 3)) or ", ".join(known[:3])
        raise InvalidArgument(
            "args.network",
            f"must be one of the {len(known)} networks of {package} (such as {near})",
            f"{package}/{name}",
        )

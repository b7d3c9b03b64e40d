"""What an optimizer is, in plain values; and those that promise to need no schedule: schedule-free ones and Prodigy."""

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer

from clr.schedules.torch_scheduler import multipliers
from clr.training.network import untrained


def described(
    made: Optimizer, network: nn.Module | None = None, shares: Sequence[float] | None = None
) -> dict[str, Any]:
    """Name and arguments of an optimizer, but for the rate and those that are its class's own, in JSON values.

    Arguments that differ from group to group are listed in ``by_group``. ``untrained`` tells how many parameters of the
    network require a gradient but are in no group, where there are any.

    Args:
        made: the optimizer.
        network: what it trains, where that is at hand.
        shares: what the rate is multiplied by for each parameter group; None: those of its groups. They are told, as
            ``lr_mult``, unless all are 1.

    >>> import torch
    >>> weight, bias = torch.nn.Linear(2, 1).parameters()
    >>> described(torch.optim.SGD([{"params": [weight], "lr": 0.01}, {"params": [bias], "lr": 0.1}], momentum=0.9))
    {'name': 'SGD', 'args': {'momentum': 0.9}, 'lr_mult': [0.1, 1.0]}
    """
    usual = {name: parameter.default for name, parameter in inspect.signature(type(made)).parameters.items()}
    args: dict[str, Any] = {}
    by_group: dict[str, list[Any]] = {}
    for name in [name for name in made.defaults if name != "lr" and name in usual]:
        values = [_plain(group.get(name, made.defaults[name])) for group in made.param_groups]
        if None in values or all(value == _plain(usual[name]) for value in values):
            continue
        if all(value == values[0] for value in values):
            args[name] = values[0]
        else:
            by_group[name] = values
    each = list(multipliers(made.param_groups) if shares is None else shares)
    of_groups = {
        "lr_mult": [] if set(each) == {1.0} else each,
        "by_group": by_group,
        "untrained": 0 if network is None else untrained(made, network),
    }
    return {"name": type(made).__name__, "args": args} | {name: value for name, value in of_groups.items() if value}


def _plain(value: Any) -> Any:
    """The value as JSON has it; None where that has none."""
    value = list(value) if isinstance(value, tuple) else value
    return value if isinstance(value, bool | int | float | str | list) else None


def self_tuning(name: str, plain: Optimizer) -> Optimizer:
    """The optimizer ``name`` in place of ``plain``: the same parameters, weight decay, momentum or betas.

    Args:
        name: ``"schedule_free"`` (SGD's kind where ``plain`` has a momentum, AdamW's elsewhere) or ``"prodigy"``.
        plain: the task's own optimizer, not yet used.

    Source: Defazio et al., "The Road Less Scheduled", arXiv 2405.15682; Mishchenko and Defazio, "Prodigy", 2306.06101.
    """
    from prodigyopt import Prodigy
    from schedulefree import AdamWScheduleFree, SGDScheduleFree

    betas = {"betas": plain.defaults["betas"]} if "betas" in plain.defaults else {}
    made: Optimizer
    if name == "prodigy":
        made = Prodigy(_groups(plain), **betas)
    elif "momentum" in plain.defaults:
        made = SGDScheduleFree(
            _groups(plain, multipliers(plain.param_groups)), momentum=plain.defaults["momentum"] or 0.9
        )
    else:
        made = AdamWScheduleFree(_groups(plain, multipliers(plain.param_groups)), **betas)
    return made


def _groups(plain: Optimizer, shares: list[float] | None = None) -> list[dict[str, Any]]:
    """The parameter groups with what every optimizer understands. Prodigy wants one rate for all."""
    groups: list[dict[str, Any]] = [
        {name: group[name] for name in ("params", "weight_decay") if name in group} for group in plain.param_groups
    ]
    return groups if shares is None else [group | {"lr_mult": one} for group, one in zip(groups, shares, strict=True)]

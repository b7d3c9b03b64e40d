"""What an optimizer is, in plain values; and those that promise to need no schedule: schedule-free ones and Prodigy."""

import inspect
from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

from clr.schedules.torch_scheduler import multipliers


def described(made: Optimizer, shares: Sequence[float] | None = None) -> dict[str, Any]:
    """Name and arguments of an optimizer, but for the rate and those that are its class's own, in JSON values.

    Args:
        made: the optimizer.
        shares: what the rate is multiplied by for each parameter group; None: those of its groups. They are told, as
            ``lr_mult``, unless all are 1.

    >>> import torch
    >>> weight, bias = torch.nn.Linear(2, 1).parameters()
    >>> described(torch.optim.SGD([{"params": [weight], "lr": 0.01}, {"params": [bias], "lr": 0.1}], momentum=0.9))
    {'name': 'SGD', 'args': {'momentum': 0.9}, 'lr_mult': [0.1, 1.0]}
    """
    usual = {name: parameter.default for name, parameter in inspect.signature(type(made)).parameters.items()}
    args = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in made.defaults.items()
        if name != "lr" and name in usual and value != usual[name]
    }
    plain = {name: value for name, value in args.items() if isinstance(value, bool | int | float | str | list)}
    each = list(multipliers(made.param_groups) if shares is None else shares)
    return {"name": type(made).__name__, "args": plain} | ({} if set(each) == {1.0} else {"lr_mult": each})


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

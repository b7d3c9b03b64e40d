"""Optimizers that promise to need no schedule, for comparison: schedule-free ones and Prodigy."""

from typing import Any

from torch.optim import Optimizer

from clr.schedules.torch_scheduler import multipliers


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

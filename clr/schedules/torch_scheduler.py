"""The policies as a torch ``LRScheduler``, stepped once after every optimizer step."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from clr.errors import InvalidArgument
from clr.schedules.policies import is_number, schedule

Bound = float | list[float] | tuple[float, ...]
Groups = list[dict[str, Any]]


def scheduler(
    optimizer: Optimizer,
    policy: str = "triangular",
    *,
    base_lr: Bound,
    max_lr: Bound,
    stepsize: int,
    stepsize_down: int | None = None,
    gamma: float | None = None,
) -> "CyclicPolicyLR":
    """A torch scheduler: the rate of each group is policy(step) times the group's ``"lr_mult"`` (default 1).

    Equal to ``CyclicLR(cycle_momentum=False)`` where torch has the policy; ``exp_range`` is the paper's,
    torch's is ``exp_range_amplitude``. Call ``.step()`` after every optimizer step, not once an epoch.

    Args:
        optimizer: any torch optimizer; its rates are set at once, its momentum is never touched.
        policy: a name in ``clr.POLICIES``, or a ramp of the range test.
        base_lr, max_lr: bounds per step, 0 < base_lr <= max_lr; a list gives one per parameter group.
        stepsize: steps of the rising half of a cycle, >= 1.
        stepsize_down: steps of the falling half, >= 1; None: stepsize. For cyclic policies only.
        gamma: factor per step, in (0, 1]; for the policies that decay, and required there.

    Returns:
        A ``CyclicPolicyLR``, whose ``state_dict`` resumes every policy and loads under ``weights_only``.

    Raises:
        InvalidArgument: a rule above is broken.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], momentum=0.9)
    >>> cycle = scheduler(optimizer, base_lr=0.001, max_lr=0.006, stepsize=2)
    >>> for _ in range(2):
    ...     optimizer.step()
    ...     cycle.step()
    >>> cycle.get_last_lr(), optimizer.param_groups[0]["momentum"]
    ([0.006], 0.9)

    Source: Smith, arXiv 1506.01186, section 3.1.
    """
    return CyclicPolicyLR(
        optimizer,
        policy=policy,
        base_lr=base_lr,
        max_lr=max_lr,
        stepsize=stepsize,
        stepsize_down=stepsize_down,
        gamma=gamma,
    )


class CyclicPolicyLR(LRScheduler):
    """The scheduler that ``clr.scheduler`` makes.

    A rate is a function of the number of steps alone: neither the rates found in the optimizer nor an
    ``initial_lr`` that an earlier scheduler left there has a part in it.
    """

    def __init__(self, optimizer: Optimizer, **arguments: Any) -> None:
        if not isinstance(optimizer, Optimizer):
            raise InvalidArgument("optimizer", "must be a torch optimizer", optimizer)
        self.arguments = _checked(arguments, optimizer.param_groups)
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Rate of each group at the current step, its multiplier applied."""
        groups = self.optimizer.param_groups
        return [
            rate(self.last_epoch) * multiplier(group)
            for group, rate in zip(groups, _rates(self.arguments, groups), strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """All that decides the rates, in plain numbers, strings and lists of numbers."""
        return _plain(self.arguments) | {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where ``state_dict`` was taken, under its policy; the argument itself is left as it is.

        As with torch's schedulers, the optimizer's current rates belong to the optimizer's state: make the scheduler,
        then load both.

        Raises:
            InvalidArgument: ``state_dict`` is not the state of a ``CyclicPolicyLR``, or not for such groups.
        """
        if not isinstance(state_dict, Mapping) or set(state_dict) != {*_CASTS, "last_epoch"}:
            got = list(state_dict) if isinstance(state_dict, Mapping) else state_dict
            raise InvalidArgument("state_dict", f"must hold {', '.join(_CASTS)} and last_epoch", got)
        step = state_dict["last_epoch"]
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise InvalidArgument("last_epoch", "must be a whole number, at least 0", step)
        arguments = {name: state_dict[name] for name in _CASTS}
        self.arguments = _checked(arguments, self.optimizer.param_groups)
        self.last_epoch = step
        self._last_lr = self.get_lr()


def _floats(bound: Bound) -> float | list[float]:
    return [float(value) for value in bound] if isinstance(bound, list | tuple) else float(bound)


_CASTS: dict[str, Callable[[Any], Any]] = {
    "policy": str,
    "base_lr": _floats,
    "max_lr": _floats,
    "stepsize": int,
    "stepsize_down": int,
    "gamma": float,
}


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A copy without NumPy's scalars, which a state loaded under ``weights_only`` may not hold."""
    return {name: None if arguments[name] is None else cast(arguments[name]) for name, cast in _CASTS.items()}


def _checked(arguments: Mapping[str, Any], groups: Groups) -> dict[str, Any]:
    _rates(arguments, groups)
    for group in groups:
        multiplier(group)
    return _plain(arguments)


def _rates(arguments: Mapping[str, Any], groups: Groups) -> list[Callable[[int], float]]:
    """The checked policy of each group."""
    shared = {name: arguments[name] for name in ("stepsize", "stepsize_down", "gamma")}
    base_lrs = _per_group("base_lr", arguments["base_lr"], len(groups))
    max_lrs = _per_group("max_lr", arguments["max_lr"], len(groups))
    bounds = zip(base_lrs, max_lrs, strict=True)
    return [schedule(arguments["policy"], base_lr=low, max_lr=high, **shared) for low, high in bounds]


def _per_group(field: str, bound: Any, groups: int) -> list[Any]:
    if not isinstance(bound, list | tuple):
        return [bound] * groups
    if len(bound) != groups:
        raise InvalidArgument(field, f"must be one number or one per parameter group ({groups})", list(bound))
    return list(bound)


def multiplier(group: Mapping[str, Any]) -> float:
    """A parameter group's ``"lr_mult"``, by default 1.

    Raises:
        InvalidArgument: it is not a finite number, at least 0.
    """
    value = group.get("lr_mult", 1.0)
    if not is_number(value) or value < 0:
        raise InvalidArgument("lr_mult", "must be a finite number, at least 0", value)
    return float(value)

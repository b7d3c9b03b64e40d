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
    """A torch scheduler: the rate of each group is policy(step) times the group's multiplier.

    That is its ``"lr_mult"``. Where no group has one, the groups keep the proportions of the rates they have in
    ``optimizer``, and the largest has the policy's own.

    Equal to ``CyclicLR(cycle_momentum=False)`` where torch has the policy; ``exp_range`` is the paper's,
    torch's is ``exp_range_amplitude``. Call ``.step()`` after every optimizer step, not once an epoch. Resume by
    ``load_state_dict``; there is no ``last_epoch``. No momentum is cycled, and there is no ``scale_fn``.

    What torch accepts and this refuses: base_lr above max_lr, negative rates, two bounds of 0, and a stepsize that is
    no whole number, which never reaches its peak. What torch does otherwise: one bound for groups of different rates
    gives all the same rate there, and after another scheduler its first rate is that one's.

    Args:
        optimizer: any torch optimizer; its rates are set at once, its momentum is never touched.
        policy: a name in ``clr.POLICIES``, or a ramp of the range test.
        base_lr, max_lr: bounds per step, 0 <= base_lr <= max_lr, max_lr > 0; a list gives one per parameter group, and
            then the groups' own rates count for nothing.
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

    A rate is a function of the number of steps and the groups' proportions at the start: neither the rates found in the
    optimizer later nor an ``initial_lr`` that an earlier scheduler left there has a part in it.
    """

    def __init__(self, optimizer: Optimizer, **arguments: Any) -> None:
        if not isinstance(optimizer, Optimizer):
            raise InvalidArgument("optimizer", "must be a torch optimizer", optimizer)
        groups = optimizer.param_groups
        self.arguments = _checked(arguments, groups)
        each = any(isinstance(arguments[name], list | tuple) for name in ("base_lr", "max_lr"))
        self.multipliers = [multiplier(group) for group in groups] if each else multipliers(groups)
        for group, rate in zip(groups, self._rates_at(0, groups), strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate  # a scheduler that follows starts from it, as after torch's CyclicLR
        super().__init__(optimizer)
        self.base_lrs = self._rates_at(0, groups)

    def get_lr(self) -> list[float | Tensor]:
        """Rate of each group at the current step, its multiplier applied."""
        return [*self._rates_at(self.last_epoch, self.optimizer.param_groups)]

    def _rates_at(self, step: int, groups: Groups) -> list[float | Tensor]:
        """A scheduler that waits for its turn in a ``SequentialLR`` is at a step below 0."""
        later = [1.0] * (len(groups) - len(self.multipliers))  # of groups that were added
        shares = [multiplier(*each) for each in zip(groups, [*self.multipliers, *later], strict=True)]
        rates = _rates(self.arguments, groups)
        return [rate(max(0, step)) * share for rate, share in zip(rates, shares, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """All that decides the rates, in plain numbers, strings and lists of numbers."""
        counts = {name: getattr(self, name) for name in _COUNTS}
        return _plain(self.arguments) | counts | {"multipliers": list(self.multipliers)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where ``state_dict`` was taken, under its policy; the argument itself is left as it is.

        As with torch's schedulers, the optimizer's current rates belong to the optimizer's state: make the scheduler,
        then load both.

        Raises:
            InvalidArgument: ``state_dict`` is not the state of a ``CyclicPolicyLR``, or not for such groups.
        """
        known = (*_CASTS, *_COUNTS, "multipliers")
        if not isinstance(state_dict, Mapping) or set(state_dict) != set(known):
            got = list(state_dict) if isinstance(state_dict, Mapping) else state_dict
            raise InvalidArgument("state_dict", f"must hold {', '.join(known)}", got)
        for name in _COUNTS:
            count = state_dict[name]
            if isinstance(count, bool) or not isinstance(count, int):
                raise InvalidArgument(name, "must be a whole number", count)
        groups, shares = self.optimizer.param_groups, state_dict["multipliers"]
        if not isinstance(shares, list) or len(shares) > len(groups):
            raise InvalidArgument("multipliers", f"must be one per parameter group ({len(groups)})", shares)
        self.multipliers = [multiplier({"lr_mult": share}) for share in shares]
        self.arguments = _checked({name: state_dict[name] for name in _CASTS}, groups)
        vars(self).update({name: state_dict[name] for name in _COUNTS})
        self.base_lrs = self._rates_at(0, groups)
        self._last_lr = self.get_lr()


_COUNTS = ("last_epoch", "_step_count")


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


def multiplier(group: Mapping[str, Any], default: float = 1.0) -> float:
    """A parameter group's ``"lr_mult"``.

    Raises:
        InvalidArgument: it is not a finite number, at least 0.
    """
    value = group.get("lr_mult", default)
    if not is_number(value) or value < 0:
        raise InvalidArgument("lr_mult", "must be a finite number, at least 0", value)
    return float(value)


def multipliers(groups: Groups) -> list[float]:
    """What a rate is multiplied by for each group: its ``"lr_mult"``, else the groups' proportions, 1 for the largest.

    Where all rates are 0, as while a warm-up begins, those that the earlier scheduler started from tell.

    Raises:
        InvalidArgument: a multiplier is not a finite number, at least 0.

    >>> multipliers([{"lr": 0.001}, {"lr": 0.01}]), multipliers([{"lr": 0.001}, {"lr": 0.01, "lr_mult": 2}])
    ([0.1, 1.0], [1.0, 2.0])
    """
    rates: list[list[Any]] = [[group.get(name) for group in groups] for name in ("lr", "initial_lr")]
    known = [each for each in rates if all(map(is_number, each)) and min(each) >= 0 < max(each)]
    if any("lr_mult" in group for group in groups) or not known:
        return [multiplier(group) for group in groups]
    largest = max(known[0])
    return [float(f"{float(rate / largest):.12g}") for rate in known[0]]

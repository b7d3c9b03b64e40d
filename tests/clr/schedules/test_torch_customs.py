"""What torch's own tests ask of a scheduler, beside its rates: asked of ours, and where it can be, of ``CyclicLR``."""

import copy
import gc
import pickle
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    PolynomialLR,
    StepLR,
)
from torch.optim.swa_utils import SWALR

from clr.errors import InvalidArgument
from clr.schedules.torch_scheduler import CyclicPolicyLR, scheduler

MODES: dict[str, Any] = {"triangular": "triangular", "triangular2": "triangular2", "exp_range_amplitude": "exp_range"}
BOUNDS: dict[str, Any] = {"base_lr": 0.1, "max_lr": 0.5, "stepsize": 4}


def sgd(lr: Any = 0.5, momentum: float = 0.0) -> Optimizer:
    return torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=lr, momentum=momentum)


def ours(optimizer: Optimizer, policy: str = "triangular", **changes: Any) -> CyclicPolicyLR:
    gamma = {"gamma": 0.9} if policy.startswith("exp") else {}
    return scheduler(optimizer, policy, **BOUNDS | gamma | changes)


def torchs(optimizer: Optimizer, policy: str = "triangular", **changes: Any) -> CyclicLR:
    given = BOUNDS | changes
    return CyclicLR(
        optimizer,
        given["base_lr"],
        given["max_lr"],
        step_size_up=given["stepsize"],
        mode=MODES[policy],
        gamma=0.9 if policy.startswith("exp") else 1.0,
        cycle_momentum=False,
    )


def rates(optimizer: Optimizer, cycle: LRScheduler, steps: int) -> list[float]:
    seen = []
    for _ in range(steps):
        seen.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        cycle.step()
    return seen


@contextmanager
def heard() -> Iterator[list[str]]:
    """What is warned of."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    said += [str(one.message) for one in caught]


def test_it_warns_as_torchs_do_when_it_is_stepped_before_the_optimizer() -> None:
    said: list[list[str]] = []
    for make in (ours, torchs):
        optimizer = sgd()
        cycle = make(optimizer)
        with heard() as early:
            cycle.step()
        with heard() as late:
            rates(sgd_ := sgd(), make(sgd_), 5)
        said += [early, late]
    assert said[:2] == said[2:]
    assert "before `optimizer.step()`" in said[0][0]
    assert said[1] == []


@pytest.mark.filterwarnings("ignore:.*epoch parameter in `scheduler.step")
@pytest.mark.parametrize("policy", MODES)
@pytest.mark.parametrize("step", [0, 1, 4, 5, 13])
def test_it_goes_to_any_step_that_it_is_told(policy: str, step: int) -> None:
    seen = []
    for make in (ours, torchs):
        optimizer = sgd()
        cycle = make(optimizer, policy)
        optimizer.step()
        cycle.step(step)
        seen.append(rates(optimizer, cycle, 9))
    assert seen[0] == pytest.approx(seen[1])
    closed = sgd()
    assert seen[0] == pytest.approx(rates(closed, ours(closed, policy), step + 9)[step:]), "as if stepped there"


@pytest.mark.parametrize(
    "follow",
    [
        lambda optimizer: SWALR(optimizer, swa_lr=0.05, anneal_epochs=4),
        lambda optimizer: ExponentialLR(optimizer, 0.9),
        lambda optimizer: PolynomialLR(optimizer, 8),
        lambda optimizer: CosineAnnealingLR(optimizer, 8),
        lambda optimizer: LinearLR(optimizer),
        lambda optimizer: StepLR(optimizer, 3),
        lambda optimizer: OneCycleLR(optimizer, 1.0, total_steps=12),
    ],
    ids=["swa", "exponential", "polynomial", "cosine", "linear", "step", "one_cycle"],
)
def test_any_scheduler_that_follows_it_does_as_after_torchs(follow: Callable[[Optimizer], LRScheduler]) -> None:
    seen = []
    for make in (ours, torchs):
        optimizer = sgd(momentum=0.9)
        rates(optimizer, make(optimizer), 6)
        seen.append(rates(optimizer, follow(optimizer), 8))
    assert seen[0] == pytest.approx(seen[1])


def test_it_is_freed_when_nobody_holds_it() -> None:
    optimizer = sgd()
    cycle = ours(optimizer)
    rates(optimizer, cycle, 2)
    gone = weakref.ref(cycle)
    gc.disable()
    try:
        del cycle
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_goes_on_where_it_stood(copied: Callable[[Any], Any]) -> None:
    optimizer = sgd()
    cycle = ours(optimizer)
    rates(optimizer, cycle, 3)
    twin = copied(cycle)
    assert rates(twin.optimizer, twin, 9) == rates(optimizer, cycle, 9)


def test_a_rate_that_it_told_is_not_changed_by_the_next_step() -> None:
    optimizer = sgd(torch.tensor(0.5))
    cycle = ours(optimizer)
    (told,), first = cycle.get_last_lr(), float(optimizer.param_groups[0]["initial_lr"])
    before = float(told)
    rates(optimizer, cycle, 2)
    assert float(told) == before != float(cycle.get_last_lr()[0])
    assert float(optimizer.param_groups[0]["initial_lr"]) == first


def test_what_somebody_else_sets_lasts_until_the_next_step() -> None:
    seen = []
    for make in (ours, torchs):
        optimizer = sgd()
        cycle = make(optimizer)
        optimizer.param_groups[0]["lr"] = 9.0
        seen.append(rates(optimizer, cycle, 4))
    assert seen[0] == pytest.approx(seen[1])
    assert seen[0][0] == 9.0


@pytest.mark.parametrize(
    "change",
    [
        {"base_lr": 0},
        {"base_lr": 0.5},
        {"stepsize": 1},
        {"stepsize": 4.0},
        {"base_lr": torch.tensor(0.1), "max_lr": torch.tensor(0.5)},
        {"base_lr": (0.1,), "max_lr": 0.5},
    ],
)
def test_it_takes_what_torch_takes(change: dict[str, Any]) -> None:
    plain = {name: float(value) if isinstance(value, torch.Tensor) else value for name, value in change.items()}
    mine, theirs = sgd(), sgd()
    assert rates(mine, ours(mine, **change), 12) == pytest.approx(rates(theirs, torchs(theirs, **plain), 12))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"base_lr": 0.6}, "base_lr: must be at most max_lr"),
        ({"stepsize": 2.5}, "stepsize: must be a whole number"),
        ({"base_lr": 0, "max_lr": 0}, "max_lr: must be a finite number above 0"),
        ({"base_lr": -0.5, "max_lr": -0.1}, "base_lr: must be a finite number at least 0"),
    ],
)
def test_it_refuses_on_purpose_what_torch_takes_and_nobody_means(change: dict[str, Any], says: str) -> None:
    torchs(sgd(), **change)
    with pytest.raises(InvalidArgument, match=says):
        ours(sgd(), **change)


def test_its_first_rate_is_its_own_where_an_earlier_scheduler_left_an_initial_rate() -> None:
    seen = []
    for make in (ours, torchs):
        optimizer = sgd()
        ExponentialLR(optimizer, 0.9)
        seen.append(rates(optimizer, make(optimizer), 3))
    assert seen[0] == pytest.approx([0.1, 0.2, 0.3])
    assert seen[1][0] == 0.5, "torch's takes its first step at the earlier scheduler's"

import copy
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
    StepLR,
)

from clr.errors import InvalidArgument
from clr.schedules.policies import DECAYING, POLICIES, schedule
from clr.schedules.torch_scheduler import multipliers, scheduler

ARGUMENTS: dict[str, Any] = {"base_lr": 0.001, "max_lr": 0.006, "stepsize": 7}


def sgd(*groups: dict[str, Any], lr: float = 0.1) -> Optimizer:
    parameters = [{"params": [torch.nn.Parameter(torch.ones(2))], **group} for group in groups or ({},)]
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def arguments_of(policy: str) -> dict[str, Any]:
    return ARGUMENTS | ({"gamma": 0.99} if policy in DECAYING else {})


def advance(cycle: LRScheduler, steps: int) -> list[list[float]]:
    """The rates of all groups at each step."""
    rates = []
    for _ in range(steps):
        rates.append([float(group["lr"]) for group in cycle.optimizer.param_groups])
        cycle.optimizer.step()
        cycle.step()
    return rates


def saved_and_loaded(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_sets_the_rates_of_its_function(policy: str) -> None:
    rate = schedule(policy, **arguments_of(policy))
    rates = advance(scheduler(sgd(), policy, **arguments_of(policy)), 40)
    assert rates == [[rate(step)] for step in range(40)]


@pytest.mark.parametrize("down", [None, 3])
@pytest.mark.parametrize(
    ("policy", "mode"),
    [("triangular", "triangular"), ("triangular2", "triangular2"), ("exp_range_amplitude", "exp_range")],
)
def test_it_equals_torchs_cyclic_lr_step_for_step(policy: str, mode: Any, down: int | None) -> None:
    gamma = arguments_of(policy).get("gamma", 1.0)
    torchs = CyclicLR(
        sgd({}, {}),
        [0.001, 0.01],
        [0.006, 0.02],
        7,
        step_size_down=down,
        mode=mode,
        gamma=gamma,
        cycle_momentum=False,
    )
    ours = scheduler(
        sgd({}, {}),
        policy,
        **arguments_of(policy) | {"base_lr": [0.001, 0.01], "max_lr": [0.006, 0.02], "stepsize_down": down},
    )
    for ours_now, torchs_now in zip(advance(ours, 60), advance(torchs, 60), strict=True):
        assert ours_now == pytest.approx(torchs_now, rel=1e-12)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_resumed_schedule_equals_the_uninterrupted_one(policy: str) -> None:
    whole = advance(scheduler(sgd(), policy, **arguments_of(policy)), 40)
    first = scheduler(sgd(), policy, **arguments_of(policy))
    advance(first, 17)
    state = saved_and_loaded({"optimizer": first.optimizer.state_dict(), "schedule": first.state_dict()})
    resumed = scheduler(sgd(), policy, **arguments_of(policy))
    resumed.optimizer.load_state_dict(state["optimizer"])
    resumed.load_state_dict(state["schedule"])
    assert resumed.get_last_lr() == first.get_last_lr()
    assert advance(resumed, 23) == whole[17:]


def test_a_state_brings_its_own_policy_and_bounds() -> None:
    hann = scheduler(sgd(), "hann", base_lr=0.1, max_lr=0.9, stepsize=5, stepsize_down=9)
    advance(hann, 4)
    other = scheduler(sgd(), "exp_range", **arguments_of("exp_range"))
    other.load_state_dict(hann.state_dict())
    other.optimizer.step()
    other.step()
    hann.optimizer.step()
    hann.step()
    assert other.get_last_lr() == hann.get_last_lr()
    assert advance(other, 20) == advance(hann, 20)


def test_loading_leaves_the_state_it_is_given_as_it_was() -> None:
    state = scheduler(sgd({}, {}), **ARGUMENTS | {"base_lr": [0.001, 0.002]}).state_dict()
    before = copy.deepcopy(state)
    cycle = scheduler(sgd({}, {}), **ARGUMENTS)
    cycle.load_state_dict(state)
    advance(cycle, 5)
    assert state == before


def test_a_state_shares_nothing_with_its_scheduler() -> None:
    cycle = scheduler(sgd({}, {}), **ARGUMENTS | {"base_lr": [0.001, 0.002]})
    loaded = cycle.state_dict()
    cycle.load_state_dict(loaded)
    loaded["base_lr"].append(0.003)
    cycle.state_dict()["base_lr"].append(0.003)
    assert cycle.state_dict()["base_lr"] == [0.001, 0.002]


def test_a_state_made_from_numpy_scalars_holds_plain_values_and_loads_as_weights_only() -> None:
    cycle = scheduler(
        sgd(),
        "exp_range",
        base_lr=np.float64(0.001),
        max_lr=np.float32(0.5),
        stepsize=np.int64(7),
        gamma=np.float64(0.9),
    )
    assert {type(value) for value in cycle.state_dict().values()} == {str, float, int, list, type(None)}
    assert saved_and_loaded(cycle.state_dict()) == cycle.state_dict()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"policy": "square"}, "policy: must be one of"),
        ({"last_epoch": 1.5}, "last_epoch: must be a whole number, but got 1.5"),
        ({"multipliers": [1.0, 1.0]}, r"multipliers: must be one per parameter group \(1\)"),
        ({"max_lr": 0.0001}, "base_lr: must be at most max_lr"),
        ({"base_lr": [0.001, 0.002]}, r"base_lr: .* one per parameter group \(1\)"),
        ({"extra": 1}, "state_dict: must hold policy, "),
    ],
)
def test_a_state_that_is_not_one_is_refused_and_changes_nothing(change: dict[str, Any], says: str) -> None:
    cycle = scheduler(sgd(), **ARGUMENTS)
    advance(cycle, 3)
    before = cycle.state_dict()
    with pytest.raises(InvalidArgument, match=says):
        cycle.load_state_dict(before | change)
    assert cycle.state_dict() == before


def test_a_groups_multiplier_multiplies_its_rate() -> None:
    cycle = scheduler(sgd({}, {"lr_mult": 2.0}, {"lr_mult": 0}), **ARGUMENTS)
    rate = schedule("triangular", **ARGUMENTS)
    assert advance(cycle, 30) == [[rate(step), 2 * rate(step), 0.0] for step in range(30)]


def test_a_group_added_later_joins_the_cycle() -> None:
    cycle = scheduler(sgd(), **ARGUMENTS)
    advance(cycle, 3)
    cycle.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))], "lr_mult": 0.5})
    cycle.optimizer.step()
    cycle.step()
    rate = schedule("triangular", **ARGUMENTS)(4)
    assert cycle.get_last_lr() == [rate, 0.5 * rate]


MAKERS: list[Callable[[Any], Optimizer]] = [
    lambda params: torch.optim.SGD(params),
    lambda params: torch.optim.AdamW(params),
    lambda params: torch.optim.Adagrad(params),
    lambda params: torch.optim.Rprop(params),
]


@pytest.mark.parametrize("make", MAKERS)
def test_no_optimizer_setting_but_the_rate_changes(make: Callable[[Any], Optimizer]) -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = make([parameter])

    def settings() -> dict[str, Any]:
        group = optimizer.param_groups[0]
        return {key: value for key, value in group.items() if key not in ("params", "lr", "initial_lr")}

    before = copy.deepcopy(settings())
    cycle = scheduler(optimizer, **ARGUMENTS)
    for _ in range(12):
        parameter.grad = torch.ones(2)
        optimizer.step()
        cycle.step()
    assert settings() == before


def test_an_initial_lr_left_by_an_earlier_scheduler_does_not_matter() -> None:
    optimizer = sgd(lr=0.5)
    advance(CosineAnnealingLR(optimizer, 10), 5)
    assert optimizer.param_groups[0]["initial_lr"] == 0.5
    rate = schedule("triangular", **ARGUMENTS)
    assert advance(scheduler(optimizer, **ARGUMENTS), 20) == [[rate(step)] for step in range(20)]


def test_a_rate_held_in_a_tensor_is_set_in_place() -> None:
    rate = torch.tensor(0.1)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))], lr=rate)
    advance(scheduler(optimizer, **ARGUMENTS), 7)
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(0.006)


def test_it_takes_its_turn_in_torchs_sequential_lr() -> None:
    optimizer = sgd()
    warm = scheduler(optimizer, "linear_ramp", base_lr=0.0, max_lr=0.001, stepsize=5)
    rates = advance(SequentialLR(optimizer, [warm, scheduler(optimizer, **ARGUMENTS)], milestones=[5]), 12)
    ramp = schedule("linear_ramp", base_lr=0.0, max_lr=0.001, stepsize=5)
    cycle = schedule("triangular", **ARGUMENTS)
    assert rates == [[ramp(step)] for step in range(5)] + [[cycle(step)] for step in range(7)]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"policy": "square"}, "policy: must be one of"),
        ({"base_lr": 0.01}, "base_lr: must be at most max_lr"),
        ({"max_lr": [0.01, 0.02]}, r"max_lr: .* one per parameter group \(1\), but got \[0.01, 0.02\]"),
        ({"base_lr": [-0.001]}, "base_lr: .* at least 0, but got -0.001"),
        ({"stepsize": 2.5}, "stepsize: .* whole number"),
        ({"stepsize_down": 0}, "stepsize_down: .* at least 1"),
        ({"gamma": 0.9}, "gamma: must be left out: triangular takes none"),
    ],
)
def test_a_broken_rule_is_named_and_the_optimizer_left_alone(change: dict[str, Any], says: str) -> None:
    optimizer = sgd()
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(InvalidArgument, match=says):
        scheduler(optimizer, **ARGUMENTS | change)
    assert optimizer.state_dict() == before


@pytest.mark.parametrize("value", [-1.0, float("nan"), "2"])
def test_a_bad_multiplier_is_refused(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="lr_mult: must be a finite number, at least 0, but got"):
        scheduler(sgd({"lr_mult": value}), **ARGUMENTS)


def test_it_is_a_torch_scheduler() -> None:
    assert isinstance(scheduler(sgd(), **ARGUMENTS), LRScheduler)


def both(groups: int = 2, lr: float = 0.1) -> tuple[Optimizer, Optimizer]:
    return sgd(*({} for _ in range(groups)), lr=lr), sgd(*({} for _ in range(groups)), lr=lr)


def torchs(optimizer: Optimizer) -> CyclicLR:
    return CyclicLR(optimizer, 0.001, 0.006, 7, cycle_momentum=False)


COMPOSED: dict[str, Callable[[Optimizer, Callable[[Optimizer], LRScheduler]], LRScheduler]] = {
    "after a warm-up": lambda one, cycle: SequentialLR(one, [LinearLR(one, 0.1, total_iters=5), cycle(one)], [5]),
    "before a descent": lambda one, cycle: SequentialLR(one, [cycle(one), CosineAnnealingLR(one, 9)], [6]),
    "between two": lambda one, cycle: SequentialLR(one, [ConstantLR(one), cycle(one), StepLR(one, 3)], [4, 12]),
    "chained": lambda one, cycle: ChainedScheduler([cycle(one)], one),
}


@pytest.mark.filterwarnings("ignore:.*epoch parameter in `scheduler.step")
@pytest.mark.parametrize("name", COMPOSED)
def test_composed_with_torchs_schedulers_it_is_like_torchs_own(name: str) -> None:
    ours, theirs = both()
    mine = COMPOSED[name](ours, lambda one: scheduler(one, **ARGUMENTS))
    for now, then in zip(advance(mine, 30), advance(COMPOSED[name](theirs, torchs), 30), strict=True):
        assert now == pytest.approx(then, rel=1e-12)


@pytest.mark.filterwarnings("ignore:.*epoch parameter in `scheduler.step")
@pytest.mark.parametrize("steps", [0, 2, 4, 9, 14])
@pytest.mark.parametrize("name", [one for one in COMPOSED if one != "chained"])
def test_a_composition_resumes_from_anywhere_also_while_the_cycle_waits_for_its_turn(name: str, steps: int) -> None:
    def made() -> LRScheduler:
        return COMPOSED[name](sgd({}, {}), lambda one: scheduler(one, **ARGUMENTS))

    whole = advance(made(), 30)
    first = made()
    advance(first, steps)
    state = saved_and_loaded({"optimizer": first.optimizer.state_dict(), "schedule": first.state_dict()})
    resumed = made()
    resumed.optimizer.load_state_dict(state["optimizer"])
    resumed.load_state_dict(state["schedule"])
    assert advance(resumed, 30 - steps) == whole[steps:]


@pytest.mark.parametrize("follower", [lambda one: ExponentialLR(one, 0.9), lambda one: CosineAnnealingLR(one, 9)])
def test_a_scheduler_that_follows_starts_where_it_does_after_torchs(follower: Callable[[Optimizer], Any]) -> None:
    ours, theirs = both()
    advance(scheduler(ours, **ARGUMENTS), 5)
    advance(torchs(theirs), 5)
    assert [group["initial_lr"] for group in ours.param_groups] == [0.001, 0.001]
    for now, then in zip(advance(follower(ours), 5), advance(follower(theirs), 5), strict=True):
        assert now == pytest.approx(then, rel=1e-12)


def test_all_that_a_scheduler_holds_is_in_its_state() -> None:
    first, second = scheduler(sgd(lr=0.3), **ARGUMENTS), scheduler(sgd(), "hann", **ARGUMENTS | {"max_lr": 1.0})
    advance(first, 10)
    second.load_state_dict(first.state_dict())
    assert {key: value for key, value in vars(second).items() if key != "optimizer"} == {
        key: value for key, value in vars(first).items() if key != "optimizer"
    }


def test_groups_keep_the_proportions_of_their_own_rates() -> None:
    rates = advance(scheduler(sgd({"lr": 0.003}, {"lr": 0.03}), base_lr=0.01, max_lr=0.1, stepsize=2), 3)
    assert np.array(rates) == pytest.approx(np.array([[0.001, 0.01], [0.0055, 0.055], [0.01, 0.1]]))


def test_proportions_are_in_the_state_and_survive_a_resume_from_equal_rates() -> None:
    first = scheduler(sgd({"lr": 0.003}, {"lr": 0.03}), **ARGUMENTS)
    whole = advance(scheduler(sgd({"lr": 0.003}, {"lr": 0.03}), **ARGUMENTS), 20)
    advance(first, 9)
    resumed = scheduler(sgd({}, {}), **ARGUMENTS)
    resumed.optimizer.load_state_dict(first.optimizer.state_dict())
    resumed.load_state_dict(saved_and_loaded(first.state_dict()))
    assert advance(resumed, 11) == whole[9:]


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([{"lr": 0.1}, {"lr": 0.1}], [1.0, 1.0]),
        ([{"lr": 0.0003}, {"lr": 0.003}, {"lr": 0.0}], [0.1, 1.0, 0.0]),
        ([{"lr": 0.0, "initial_lr": 0.01}, {"lr": 0.0, "initial_lr": 0.04}], [0.25, 1.0]),
        ([{"lr": 0.0}, {"lr": 0.0}], [1.0, 1.0]),
        ([{"lr": None}, {"lr": 0.1}], [1.0, 1.0]),
        ([{"lr": torch.tensor(0.5)}, {"lr": torch.tensor(1.0)}], [0.5, 1.0]),
        ([{"lr": 0.1, "lr_mult": 3}, {"lr": 0.01}], [3.0, 1.0]),
    ],
)
def test_a_multiplier_is_the_groups_own_or_its_share_of_the_largest_rate(groups: Any, expected: list[float]) -> None:
    assert multipliers(groups) == expected


def test_bounds_for_each_group_are_kept_to_whatever_their_rates_were() -> None:
    cycle = scheduler(sgd({"lr": 0.003}, {"lr": 0.03}), base_lr=[0.1, 0.2], max_lr=[0.5, 0.6], stepsize=1)
    assert advance(cycle, 2) == [[0.1, 0.2], [0.5, 0.6]]


def test_a_cycle_may_begin_at_zero_as_torchs_may() -> None:
    ours = scheduler(sgd(), base_lr=0, max_lr=0.1, stepsize=4)
    theirs = CyclicLR(sgd(), 0, 0.1, 4, cycle_momentum=False)
    assert np.array(advance(ours, 20)) == pytest.approx(np.array(advance(theirs, 20)))


def test_a_group_that_is_added_later_has_the_rate_itself() -> None:
    cycle = scheduler(sgd({"lr": 0.01}, {"lr": 0.1}), base_lr=0.1, max_lr=0.3, stepsize=2)
    advance(cycle, 2)
    cycle.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    assert cycle.get_lr() == pytest.approx([0.03, 0.3, 0.3])


def test_rates_held_in_tensors_are_set_in_place() -> None:
    held = torch.tensor(0.1)
    cycle = scheduler(torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=held), **ARGUMENTS)
    assert cycle.optimizer.param_groups[0]["lr"] is held
    assert held == pytest.approx(0.001)

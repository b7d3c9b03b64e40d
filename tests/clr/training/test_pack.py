"""Runs in a pack against the same runs alone; on a GPU too, where there is one."""

import itertools
import logging
import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from clr.run import Point, Run
from clr.schedules.policies import CYCLIC, DECAYING, POLICIES
from clr.training.borrowing import borrowed
from clr.training.loop import on_device, train
from clr.training.pack import train_together
from clr.training.packing import Packing, packing
from clr.training.task import Task, optimizer

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]

PIXELS = torch.randn(96, 3, 8, 8, generator=torch.Generator().manual_seed(0))
KINDS = torch.randint(0, 3, (96,), generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(0, 7, (96, 6), generator=torch.Generator().manual_seed(2))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Linear(16, 3))


def convolution() -> nn.Module:
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def normalised() -> nn.Module:
    layers = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(4, 3))


class Tied(nn.Module):
    """A transformer block between an embedding and a head of the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(7, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, norm_first=True)
        self.head = nn.Linear(8, 7, bias=False)
        self.head.weight = self.token.weight

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], device=tokens.device)
        made: Tensor = self.head(self.block(self.token(tokens), src_mask=mask, is_causal=True))
        return made


class Unused(nn.Module):
    """A network with a parameter that gets no gradient, and so no decay."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = mlp(), nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.used(x)
        return made


def make(device: str, **changes: Any) -> Task:
    fields: dict[str, Any] = {"model": mlp, "train": (PIXELS, KINDS), "val": (PIXELS[:40], KINDS[:40])}
    fields |= {"loss": F.cross_entropy, "metric": "accuracy", "batch_size": 8, "device": device}
    return on_device(Task(**fields | changes))


def a_run(**changes: Any) -> Run:
    fields: dict[str, Any] = {"policy": "triangular", "base_lr": 0.01, "max_lr": 0.1, "step_size_up": 10, "steps": 24}
    return Run(**fields | {"seed": 0, "evaluate_every": 8} | changes)


RUNS = (
    a_run(),
    a_run(max_lr=0.2, evaluate_every=5, val_limit=10),
    a_run(seed=3, policy="exponential_ramp", base_lr=1e-4, step_size_up=24, evaluate_every=1, explode=3.0),
)


def together(task: Task, runs: Sequence[Run], stop: Callable[[int, Point], bool] | None = None) -> list[list[Point]]:
    points: list[list[Point]] = [[] for _ in runs]
    made = train_together(task, runs)
    sent = None
    while True:
        try:
            at, point = made.send(sent)
        except StopIteration:
            return points
        points[at].append(point)
        sent = stop is not None and stop(at, point)


def assert_alike(packed: Sequence[Point], alone: Sequence[Point], device: str) -> None:
    """To the bit on a CPU; a GPU adds in another order each time."""
    if device == "cpu":
        assert list(map(str, packed)) == list(map(str, alone))  # of which NaN equals itself
        return
    assert [point.step for point in packed] == [point.step for point in alone]
    assert [point.lr for point in packed] == [point.lr for point in alone]
    assert [point.diverged for point in packed] == [point.diverged for point in alone]
    for one, other in zip(packed, alone, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=2e-3, abs=1e-4, nan_ok=True)
        assert one.metric == pytest.approx(other.metric, abs=0.06)


def assert_as_alone(task: Task, runs: Sequence[Run], device: str) -> None:
    for packed, run in zip(together(task, runs), runs, strict=True):
        assert_alike(packed, list(train(task, run)), device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("model", [mlp, convolution, normalised, Unused])
def test_networks_of_every_kind_train_as_alone(model: Callable[[], nn.Module], device: str) -> None:
    assert_as_alone(make(device, model=model, optimizer=optimizer("SGD", weight_decay=0.01)), RUNS, device)


@pytest.mark.parametrize("device", DEVICES)
def test_a_transformer_block_with_tied_weights_trains_as_alone(device: str) -> None:
    def loss(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output.flatten(0, 1), target.flatten())

    data = (TOKENS, TOKENS.roll(-1, 1))
    task = make(device, model=Tied, train=data, val=data, loss=loss, metric=None, optimizer=optimizer("AdamW"))
    assert_as_alone(task, [a_run(max_lr=0.01 * k, base_lr=1e-3) for k in (1, 2)], device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("SGD", {"momentum": 0.0}),
        ("SGD", {"nesterov": True, "weight_decay": 0.1}),
        ("Adam", {"amsgrad": True}),
        ("AdamW", {"weight_decay": 0.1}),
        ("RMSprop", {"momentum": 0.5}),
        ("Adagrad", {"lr_decay": 0.1}),
        ("NAdam", {}),
        ("RAdam", {}),
        ("Adamax", {}),
        ("Adadelta", {}),
        ("ASGD", {}),
        ("Rprop", {}),
    ],
)
def test_optimizers_of_every_kind_step_as_alone(name: str, args: dict[str, Any], device: str) -> None:
    runs = [replace(run, base_lr=run.base_lr / 10, max_lr=run.max_lr / 10) for run in RUNS]
    assert_as_alone(make(device, optimizer=optimizer(name, **args)), runs, device)


@pytest.mark.parametrize("device", DEVICES)
def test_schedules_of_every_kind_share_a_pack(device: str) -> None:
    pytest.importorskip("schedulefree")
    gamma, down = {"gamma": 0.95}, {"step_size_down": 5}
    runs = [
        a_run(policy=policy, **(gamma if policy in DECAYING else {}), **(down if policy in CYCLIC else {}))
        for policy in POLICIES
    ]
    runs += [a_run(policy="fixed", patience=1, evaluate_every=2), a_run(policy="fixed", optimizer="schedule_free")]
    assert_as_alone(make(device), runs, device)


@pytest.mark.parametrize("device", DEVICES)
def test_groups_clipping_and_accumulated_batches_are_each_runs_own(device: str) -> None:
    def groups(model: Any) -> list[dict[str, Any]]:
        return [{"params": model[1].parameters()}, {"params": model[3].parameters(), "lr_mult": 3.0}]

    for changes in ({"clip_norm": 0.5}, {"clip_value": 0.01}, {"accumulate": 3}):
        assert_as_alone(make(device, groups=groups, **changes), RUNS, device)


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_that_diverges_ends_alone_and_the_others_go_on(device: str) -> None:
    task = make(device, loss=lambda output, target: ((output[:, 0] - target) ** 2).mean(), metric=None)
    runs = [a_run(max_lr=0.02), a_run(policy="fixed", max_lr=1e4), a_run(policy="fixed", max_lr=3.0, explode=1.0)]
    packed = together(task, runs)
    assert [points[-1].diverged for points in packed] == [False, True, True]
    assert packed[1][-1].step < 24
    assert not math.isfinite(packed[1][-1].loss[-1])
    for points, run in zip(packed, runs, strict=True):
        assert points[-1].step == list(train(task, run))[-1].step
    assert_alike(packed[0], list(train(task, runs[0])), device)


@pytest.mark.parametrize("device", DEVICES)
def test_runs_of_other_lengths_and_a_run_that_is_stopped_leave_the_rest_as_they_are(device: str) -> None:
    task, runs = make(device), [a_run(), a_run(steps=40), a_run(steps=7, seed=2)]
    packed = together(task, runs, lambda at, point: at == 0 and point.step == 16)
    assert [points[-1].step for points in packed] == [16, 40, 7]
    for points, run in zip(packed, runs, strict=True):
        assert_alike(points, list(train(task, run))[: len(points)], device)


@pytest.mark.parametrize("device", DEVICES)
def test_the_callers_own_network_is_copied_for_each_run_and_left_as_it_was(device: str) -> None:
    torch.manual_seed(0)
    model = normalised().to(device)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    places = [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())]
    own = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    with borrowed(model=model, optimizer=own, train=(PIXELS, KINDS), loss=F.cross_entropy, batch_size=8) as task:
        assert_as_alone(on_device(task), RUNS[:2], device)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())] == places
    assert (own.param_groups[0]["lr"], len(own.state)) == (0.3, 0)


@pytest.mark.parametrize("device", DEVICES)
def test_the_random_states_of_the_caller_are_untouched(device: str) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state(), random.getstate()
    together(make(device), RUNS)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_runs_tell_how_they_stand_by_the_clock() -> None:
    made = list(train_together(make("cpu"), [a_run(evaluate_every=24), a_run()], tell_every_s=0.0))
    assert {point.step for at, point in made if at == 0} == set(range(1, 25))
    assert [point.metric is None for at, point in made if at == 0] == [True] * 23 + [False]


class Counting(nn.Module):
    """A network that counts its calls where no tensor sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.calls = mlp(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        made: Tensor = self.network(x)
        return made


class Replacing(nn.Module):
    """A network whose buffer is another tensor after each step."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.network = mlp()
        self.register_buffer("seen", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.network(x)
        self.seen = self.seen + made.detach().mean(0)
        return made


def hooked() -> nn.Module:
    made = mlp()
    made.register_forward_hook(lambda module, args, output: None)
    return made


def drawing() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 3))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("model", "why"),
    [
        (Counting, "changes what"),
        (Replacing, "changes what|ends elsewhere"),  # on a GPU it is found out by where its tensor ends
        (hooked, "hooks"),
        (drawing, "random numbers"),
    ],
)
def test_what_cannot_be_replayed_is_trained_alone(
    model: Callable[[], nn.Module], why: str, device: str, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with caplog.at_level(logging.INFO, "clr.training.packing"):
        packed = Packing(make(device, model=model), math.inf)
        assert not packed.pays
        assert list(packed(RUNS)) == []
    assert re.search(why, caplog.text)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_pack_that_ends_elsewhere_than_runs_alone_is_not_used(caplog: pytest.LogCaptureFixture) -> None:
    factors = itertools.count(1)  # as an optimizer does whose count is recorded

    class Drifting(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            self.param_groups[0]["lr"] *= next(factors)
            return super().step(closure)

    with caplog.at_level(logging.INFO, "clr.training.packing"):
        assert not Packing(make("cpu", optimizer=lambda given: Drifting(given, lr=1.0)), math.inf).pays
    assert "ends elsewhere than alone" in caplog.text


def test_there_are_no_packs_without_a_gpu_nor_of_data_that_do_not_lie_there() -> None:
    assert packing(make("cpu"), math.inf) is None
    assert packing(make("cpu", train=TensorDataset(PIXELS, KINDS)), math.inf) is None


def test_a_pack_that_breaks_leaves_its_runs_to_be_trained_alone(caplog: pytest.LogCaptureFixture) -> None:
    calls = itertools.count(1)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        if next(calls) > 30:
            raise RuntimeError("broken")
        return F.cross_entropy(output, target)

    packed = Packing(make("cpu", loss=loss, val=None), math.inf)
    vars(packed)["pays"] = True
    assert {at for at, _ in packed(RUNS)} == {0, 1, 2}
    assert not packed.pays
    assert "broken" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["SGD", "AdamW", "RMSprop", "Adagrad"])
def test_small_networks_are_packed_on_a_gpu(name: str) -> None:
    packed = packing(make("cuda", model=convolution, optimizer=optimizer(name)), math.inf)
    assert packed is not None
    assert packed.pays

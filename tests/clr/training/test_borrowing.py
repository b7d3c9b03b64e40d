import random
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CyclicLR
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

import clr
from clr.run import Run
from clr.training.borrowing import borrowed
from clr.training.loop import curve_of

X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
Y = (X @ torch.randn(4, 3, generator=torch.Generator().manual_seed(1))).argmax(1)
RUN = Run(policy="triangular", base_lr=0.01, max_lr=0.1, step_size_up=10, steps=20, seed=0, evaluate_every=5)

MakeOptimizer = Callable[[nn.Module], Optimizer]


class Net(nn.Module):
    """Parameters, one of them frozen, buffers of all kinds and plain attributes, changed in place and replaced."""

    average: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 3))
        self.scale = nn.Parameter(torch.ones(3), requires_grad=False)
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.register_buffer("average", torch.zeros(4))
        self.calls, self.total, self.sizes = 0, torch.zeros(()), [torch.zeros(())]

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        self.calls += 1
        self.total = self.total + len(x)
        self.sizes[0] += len(x)
        self.average = 0.9 * self.average + 0.1 * x.mean(0)
        output: Tensor = self.body(x - self.average) * self.scale
        return output


def sgd(model: nn.Module) -> Optimizer:
    weights = [one for one in model.parameters() if one.requires_grad]
    groups = [
        {"params": weights[:2], "lr": 0.05, "lr_mult": 0.1, "name": "first"},
        {"params": weights[2:], "lr": 0.1, "note": {"kept": [1, 2]}},
    ]
    return SGD(groups, momentum=0.9, nesterov=True)


def adamw(model: nn.Module) -> Optimizer:
    return AdamW(model.parameters(), lr=0.01, weight_decay=0.1, amsgrad=True)


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(X, Y), **{"batch_size": 8, "shuffle": True} | options)


def seeded(seed: int = 3) -> DataLoader[Any]:
    return loader(generator=torch.Generator().manual_seed(seed))


class Mine:
    """A caller's own training, which may be anywhere in its course."""

    def __init__(self, optimizer: MakeOptimizer = sgd, train: Any = None) -> None:
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(7)
        self.model = Net()
        self.optimizer = optimizer(self.model)
        self.train = seeded() if train is None else train
        self.scheduler: CyclicLR | None = None

    def steps(self, count: int) -> list[float]:
        """The losses of so many steps; the last gradients stay."""
        self.model.train()
        losses = []
        for x, y in islice(self.train, count):
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            if self.scheduler is not None:
                self.scheduler.step()
            losses.append(loss.item())
        return losses

    def test(self, **changes: Any) -> Any:
        """A range test of it that takes 96 steps at most."""
        own: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer, "train": self.train}
        return clr.range_test(**own | {"loss": F.cross_entropy} | changes, epochs=12, seeds=1)

    def state(self) -> Any:
        """All that the test must leave alone, as values that compare bit for bit."""
        weights = list(self.model.parameters())
        return plain(
            {
                "model": [*weights, *self.model.buffers()],
                "which": [id(one) for one in (*weights, *self.model.buffers())],
                "names": [list(module._buffers) for module in self.model.modules()],
                "gradients": [one.grad for one in weights],
                "modes": [module.training for module in self.model.modules()],
                "attributes": [self.model.calls, self.model.total, self.model.sizes],
                "frozen": [one.requires_grad for one in weights],
                "optimizer": [self.optimizer.state.get(one) for one in weights],
                "groups": [group | {"params": [*map(id, group["params"])]} for group in self.optimizer.param_groups],
                "keys": [list(group) for group in self.optimizer.param_groups],
                "scheduler": self.scheduler and self.scheduler.state_dict(),
                "loader": getattr(self.train, "generator", None) and self.train.generator.get_state(),
                "random": [random.getstate(), np.random.get_state(), torch.get_rng_state()],
            }
        )


def plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return str(value.dtype), tuple(value.shape), value.detach().numpy().tobytes()
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def failing_after(calls: int, error: BaseException) -> Callable[[Tensor, Tensor], Tensor]:
    left = iter(range(calls))

    def loss(output: Tensor, target: Tensor) -> Tensor:
        if next(left, None) is None:
            raise error
        return F.cross_entropy(output, target)

    return loss


@pytest.fixture(params=[sgd, adamw])
def mine(request: pytest.FixtureRequest) -> Mine:
    """In mid-course: buffers, moments and gradients are no longer what they began as, and a part is in eval mode."""
    mine = Mine(request.param)
    mine.steps(3)
    mine.model.body[1].eval()
    return mine


def test_everything_is_as_it_was_after_a_range_test(mine: Mine) -> None:
    before = mine.state()
    tested = mine.test(val=(X, Y), metric="accuracy")
    assert tested.cost_steps > 70
    assert mine.state() == before


def test_the_first_range_test_of_a_process_leaves_the_random_states_alone_too() -> None:
    program = "from tests.clr.training.test_borrowing import Mine as M; m = M(); s = m.state(); m.test(); "
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-c", program + "assert m.state() == s"]
    subprocess.run(command, check=True, cwd=root, timeout=60)


@pytest.mark.parametrize("calls", [0, 1, 30])
@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_everything_is_as_it_was_after_an_error_or_an_interrupt(mine: Mine, calls: int, error: BaseException) -> None:
    before = mine.state()
    with pytest.raises(type(error)):
        mine.test(loss=failing_after(calls, error))
    assert mine.state() == before


def test_everything_is_as_it_was_after_a_loss_that_is_never_finite(mine: Mine) -> None:
    before = mine.state()
    assert mine.test(loss=lambda output, target: output.sum() * float("nan")).bounds.max_lr is None
    assert mine.state() == before


def test_an_untouched_model_and_optimizer_stay_untouched() -> None:
    mine = Mine()
    before = mine.state()
    mine.test()
    assert mine.state() == before
    assert all(one.grad is None for one in mine.model.parameters())
    assert len(mine.optimizer.state) == 0


@pytest.mark.parametrize("train", [None, loader(), (X, Y)], ids=["own generator", "global generator", "tensors"])
def test_a_training_goes_on_as_if_it_had_never_been_tested(train: Any) -> None:
    def losses(tested: bool) -> list[float]:
        mine = Mine(train=seeded() if train is None else train)
        batches = mine.train
        if train is not None and not isinstance(train, DataLoader):
            mine.train = list(zip(X.split(8), Y.split(8), strict=True))
        mine.scheduler = CyclicLR(mine.optimizer, 0.01, 0.2, step_size_up=2, cycle_momentum=False)
        first = mine.steps(3)
        if tested:
            mine.test(train=batches)
        return first + mine.steps(5)

    assert losses(tested=True) == losses(tested=False)


def test_a_scheduler_attached_before_is_left_alone_with_its_rates() -> None:
    mine = Mine()
    mine.scheduler = CyclicLR(mine.optimizer, 0.01, 0.2, step_size_up=2, cycle_momentum=True)
    mine.steps(3)
    before = mine.state()
    assert before["groups"][0]["initial_lr"] == 0.01
    mine.test()
    assert mine.state() == before


def test_a_scheduler_attached_afterwards_starts_from_the_callers_rates() -> None:
    mine = Mine()
    mine.test()
    assert [group["lr"] for group in mine.optimizer.param_groups] == [0.05, 0.1]
    assert not any("initial_lr" in group for group in mine.optimizer.param_groups)
    scheduler = torch.optim.lr_scheduler.ConstantLR(mine.optimizer, factor=0.5)
    assert scheduler.base_lrs == [0.05, 0.1]


def test_every_run_starts_from_the_same_model_optimizer_and_loader(mine: Mine) -> None:
    with borrowed(model=mine.model, optimizer=mine.optimizer, train=mine.train, loss=F.cross_entropy) as task:
        before = mine.state()
        first = curve_of(task, RUN)
        assert mine.state()["model"] != before["model"]
        assert mine.state()["optimizer"] != before["optimizer"]
        assert mine.model.average is mine.model.get_buffer("average")
        assert curve_of(task, RUN) == first
        assert task.model() is mine.model
        assert mine.state() == before, "the loader's generator too"


def test_the_seed_of_a_run_is_all_that_its_order_of_data_depends_on() -> None:
    curves = []
    for seed in (3, 4):
        mine = Mine(train=seeded(seed))
        with borrowed(model=mine.model, optimizer=mine.optimizer, train=mine.train, loss=F.cross_entropy) as task:
            curves.append(curve_of(task, RUN))
    assert curves[0] == curves[1]


def test_a_loader_without_a_generator_gives_the_same_run_whatever_the_global_state() -> None:
    mine = Mine(train=loader())
    with borrowed(model=mine.model, optimizer=mine.optimizer, train=mine.train, loss=F.cross_entropy) as task:
        first = curve_of(task, RUN)
        torch.manual_seed(99)
        assert curve_of(task, RUN) == first


def test_the_generators_of_a_sampler_and_of_the_validation_loader_are_put_back() -> None:
    order, val = torch.Generator().manual_seed(1), seeded(2)
    sampler = RandomSampler(X, generator=order)
    mine = Mine(train=loader(shuffle=False, sampler=sampler))
    before = order.get_state().tolist(), val.generator.get_state().tolist()
    mine.test(val=val, metric="accuracy")
    assert (order.get_state().tolist(), val.generator.get_state().tolist()) == before


def test_groups_keep_the_share_of_the_rate_that_their_multiplier_says() -> None:
    mine = Mine()
    rates = []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        rates.append([group["lr"] for group in mine.optimizer.param_groups])
        return F.cross_entropy(output, target)

    mine.test(loss=loss)
    assert len(rates) > 70
    assert all(low == pytest.approx(0.1 * high) for low, high in rates[-70:]), "the first are of no run"


class Counting(SGD):
    """Keeps its count of steps in its groups, as optimizers without a schedule of their own do."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["taken"] = group.get("taken", 0) + 1
        return super().step(closure)


@pytest.mark.parametrize("steps", [0, 3])
def test_what_an_optimizer_counts_in_its_groups_is_put_back(steps: int) -> None:
    mine = Mine(lambda model: Counting(model.parameters(), lr=0.1))
    mine.steps(steps)
    before = mine.state()
    mine.test()
    assert mine.state() == before
    assert ("taken" in mine.optimizer.param_groups[0]) == (steps > 0)


class Chatty(nn.Module):
    """Takes its batch as keywords, and computes the loss itself, as language models of some libraries do."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor, labels: Tensor) -> SimpleNamespace:
        logits = self.head(x)
        return SimpleNamespace(loss=F.cross_entropy(logits, labels), logits=logits)


def test_a_model_that_computes_its_loss_from_batches_of_keywords_is_tested_and_put_back() -> None:
    model = Chatty()
    optimizer = AdamW(model.parameters())
    weights = model.head.weight.detach().clone()
    batches = [{"x": x, "labels": y} for x, y in zip(X.split(8), Y.split(8), strict=True)]
    tested = clr.range_test(model=model, optimizer=optimizer, train=batches, val=batches, epochs=60)
    assert tested.bounds.max_lr is not None
    assert torch.equal(model.head.weight, weights)
    assert not optimizer.state
    assert tested.curves[0].metric, "the validation loss"


def test_the_generator_of_a_batch_sampler_is_put_back() -> None:
    order = torch.Generator().manual_seed(3)
    batches = BatchSampler(RandomSampler(X, generator=order), batch_size=16, drop_last=True)
    before = order.get_state().tolist()
    Mine(train=DataLoader(TensorDataset(X, Y), batch_sampler=batches)).test()
    assert order.get_state().tolist() == before

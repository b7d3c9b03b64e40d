"""A range test on models, optimizers and losses that hold more than most do."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import LBFGS, SGD
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, TensorDataset

import clr
from clr.errors import InvalidArgument
from clr.range_tests.plan import RangeTest

X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
Y = (X.sum(1) > 0).long()
BATCHES = list(zip(X.split(8), Y.split(8), strict=True))


def sgd(*owners: nn.Module) -> SGD:
    return SGD([one for owner in owners for one in owner.parameters()], lr=0.1, momentum=0.9)


def run_test(model: nn.Module, optimizer: Any = None, **changes: Any) -> RangeTest:
    """A range test of 96 steps."""
    own = {"model": model, "optimizer": optimizer or sgd(model), "train": BATCHES, "loss": F.cross_entropy}
    return clr.range_test(**own | changes, epochs=12, seeds=1)


class Temperature(nn.Module):
    """A loss with a parameter, and with a buffer that counts."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        self.calls += 1
        return F.cross_entropy(output * self.scale, target)


def test_a_loss_with_parameters_is_put_back() -> None:
    model, loss = nn.Linear(4, 2), Temperature()
    optimizer = sgd(model, loss)
    first = run_test(model, optimizer, loss=loss)
    assert (loss.scale.item(), loss.scale.grad, loss.calls.item(), len(optimizer.state)) == (1.0, None, 0.0, 0)
    assert run_test(model, optimizer, loss=loss).curves == first.curves


def test_a_metric_that_is_a_module_is_put_back() -> None:
    metric = Temperature()
    run_test(nn.Linear(4, 2), val=(X, Y), metric=metric)
    assert metric.calls == 0


class Late(nn.Module):
    """Builds a layer and an attribute on first use."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "late"):
            self.late, self.seen = nn.Identity(), 0
        self.seen += len(x)
        output: Tensor = self.late(self.body(x))
        return output


@pytest.mark.parametrize("calls", [10, 1000], ids=["interrupted", "whole"])
def test_what_a_model_builds_as_it_goes_is_taken_away_again(calls: int) -> None:
    model, left = Late(), iter(range(calls))
    optimizer = sgd(model)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return F.cross_entropy(output, target)

    if calls < 96:
        with pytest.raises(KeyboardInterrupt):
            run_test(model, optimizer, loss=loss)
    else:
        assert run_test(model, optimizer, loss=loss).cost_steps > 80
    assert not hasattr(model, "late")
    assert not hasattr(model, "seen")
    assert (optimizer.param_groups[0]["lr"], len(optimizer.state)) == (0.1, 0)


class Resizing(nn.Module):
    """Gives its buffer another size in place."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 2)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.resize_(5)
        output: Tensor = self.body(x)
        return output


def test_a_tensor_of_another_size_is_put_back() -> None:
    model = Resizing()
    seen = model.seen
    run_test(model)
    assert model.seen is seen
    assert seen.tolist() == [0.0]


class Stubborn:
    """Can be copied so many times."""

    def __init__(self, copies: int) -> None:
        self.copies = copies

    def __deepcopy__(self, _memo: Any) -> "Stubborn":
        self.copies -= 1
        if self.copies < 0:
            raise ValueError("stubborn")
        return self


def test_what_cannot_be_put_back_does_not_keep_the_rest_from_it() -> None:
    model, order = nn.Linear(4, 2), torch.Generator().manual_seed(3)
    weight, state = model.weight.detach().clone(), order.get_state()
    optimizer = sgd(model)
    optimizer.param_groups[0]["note"] = Stubborn(2)
    train = DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True, generator=order)
    with pytest.raises(ValueError, match="stubborn"):
        run_test(model, optimizer, train=train)
    assert torch.equal(model.weight, weight)
    assert torch.equal(order.get_state(), state)


class Cached(nn.Module):
    """Holds tensors that cannot be written as others are, and a list that another module holds too."""

    wide: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 2)
        self.register_buffer("wide", torch.zeros(1, 4).expand(8, 4))
        with torch.inference_mode():
            self.cache = torch.ones(4)
        self.history: list[int] = [1]
        self.counts = {"calls": 0}

    def forward(self, x: Tensor) -> Tensor:
        self.history.append(len(x))
        self.counts["calls"] += 1
        output: Tensor = self.body((x + self.wide) * self.cache.clone())
        return output


def test_expanded_and_inference_tensors_and_shared_lists_are_put_back() -> None:
    model = Cached()
    history, counts, cache = model.history, model.counts, model.cache
    assert run_test(model).cost_steps > 80
    assert model.history is history
    assert model.counts is counts
    assert model.cache is cache
    assert (history, counts, cache.tolist()) == ([1], {"calls": 0}, 4 * [1.0])


class Thawing(nn.Module):
    """Unfreezes its body after some batches."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        self.body.requires_grad_(True)
        output: Tensor = self.head(self.body(x))
        return output


def test_what_a_model_unfreezes_is_frozen_again() -> None:
    model = Thawing()
    run_test(model)
    assert not model.body.weight.requires_grad


def test_a_layer_in_eval_mode_stays_in_it_while_the_model_trains() -> None:
    modes = []
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[0].eval()
    model[0].register_forward_hook(lambda layer, _inputs, _output: modes.append(layer.training))
    run_test(model, val=(X, Y), metric="accuracy")
    assert set(modes) == {False}


def test_gradients_that_the_optimizer_does_not_hold_are_not_clipped_with_its_own() -> None:
    def found(frozen: bool) -> RangeTest:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
        model[0].requires_grad_(not frozen)
        return run_test(model, sgd(model[2]), clip_norm=1.0)

    assert found(frozen=False).curves == found(frozen=True).curves


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(zip(X, Y, strict=True))


MODEL = nn.Linear(4, 2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": nn.Linear}, r"model: must be a torch module, but got torch\..*Linear"),
        ({"model": nn.LazyLinear(2)}, "model: must know the shapes"),
        ({"optimizer": SGD}, r"optimizer: must be a torch optimizer, but got torch\..*SGD"),
        ({"optimizer": sgd(nn.Linear(4, 2))}, "optimizer: must hold a parameter of the model"),
        ({"optimizer": LBFGS(MODEL.parameters())}, "optimizer: must step without a closure, but got a torch.*LBFGS"),
        ({"optimizer": SGD([{"params": MODEL.parameters(), "lr_mult": -1.0}])}, "lr_mult: must be a finite .* -1.0"),
        ({"groups": lambda model: nn.Linear(4, 2).parameters()}, "groups: must hold a parameter that the optimizer"),
        ({"loss": 3}, "loss: must be a function of output and target, but got 3"),
        ({"loss": lambda output, target: 1.0}, r"loss: must return a scalar tensor, but got 1\.0"),
        ({"loss": lambda output, target: output.sum().detach()}, "loss: must depend on a parameter"),
        (
            {"loss": nn.CrossEntropyLoss(reduction="none")},
            r"loss: .*mean over the batch, but .* shape \[8\]",
        ),
        (
            {"val": BATCHES, "metric": lambda output, target: output[:, 0]},
            r"metric: must return one .* shape \[8\]",
        ),
        ({"val": BATCHES, "metric": lambda output, target: None}, "metric: must return one number, .* got None"),
        ({"metric": 3}, "metric: must be .* but got 3"),
        ({"train": DataLoader(Stream(), batch_size=8)}, "train: must have a length"),
        ({"train": (X.numpy(), Y.numpy())}, "train: must hold tensors, not arrays"),
        ({"seed": -1}, "seed: input should be .* equal to 0, but got -1"),
        ({"seed": "3"}, "seed: input should be a valid integer, but got '3'"),
        ({"seeds": 0}, "seeds: input should be greater than or equal to 1, but got 0"),
        ({"epochs": "20"}, "epochs: input should be a valid number, but got '20'"),
    ],
)
def test_a_mistake_is_named_with_its_rule_and_value(changes: dict[str, Any], says: str) -> None:
    own = {"model": MODEL, "train": BATCHES, "loss": F.cross_entropy, "epochs": 12, "seeds": 1} | changes
    own.setdefault("optimizer", SGD(MODEL.parameters(), lr=0.1))
    with pytest.raises(InvalidArgument, match=says):
        clr.range_test(**own)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_a_script_of_a_model_is_tested_and_left_as_it_was() -> None:
    model = torch.jit.script(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    own: dict[str, Any] = {"model": model, "optimizer": SGD(model.parameters(), lr=0.1), "train": BATCHES}
    assert clr.range_test(**own, loss=F.cross_entropy, epochs=12, seeds=1).cost_steps
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_what_fails_on_validation_data_is_an_error_of_theirs() -> None:
    class Detector(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            output = super().forward(x)
            return {"loss": output.square().mean()} if self.training else {"boxes": output}

    model = Detector(4, 2)
    own: dict[str, Any] = {"model": model, "optimizer": SGD(model.parameters(), lr=0.1), "train": BATCHES, "epochs": 12}
    with pytest.raises(InvalidArgument, match=r"^val: must be None where the model has no loss in eval mode"):
        clr.range_test(**own, val=BATCHES)
    plain: dict[str, Any] = own | {
        "model": MODEL,
        "optimizer": SGD(MODEL.parameters(), lr=0.1),
        "loss": F.cross_entropy,
    }
    with pytest.raises(InvalidArgument, match=r"^val: must have batches that the model takes .*float32\[8, 3\]"):
        clr.range_test(**plain, val=[(X[:8, :3], Y[:8])])
    with pytest.raises(InvalidArgument, match=r"^metric: must score the output, .* but that failed with TypeError"):
        clr.range_test(**plain, val=BATCHES, metric=lambda output: output)


def test_the_epoch_that_a_sampler_is_at_is_put_back() -> None:
    data = TensorDataset(X, Y)
    sampler = DistributedSampler(data, num_replicas=2, rank=0)
    sampler.set_epoch(5)
    train = DataLoader(data, batch_size=8, sampler=sampler)
    clr.range_test(
        model=MODEL, optimizer=SGD(MODEL.parameters(), lr=0.1), train=train, loss=F.cross_entropy, epochs=20, seeds=1
    )
    assert sampler.epoch == 5


def test_a_plain_model_needs_a_loss() -> None:
    with pytest.raises(
        InvalidArgument, match=r"loss: must be given, .* holds none; .* give forward=.*, but got a Tensor"
    ):
        clr.range_test(model=MODEL, optimizer=sgd(MODEL), train=BATCHES, epochs=12)


@pytest.mark.parametrize("call", [clr.range_test, clr.recommend])
def test_a_name_is_no_task(call: Callable[[Any], Any]) -> None:
    with pytest.raises(InvalidArgument, match=r"task: must be a clr\.Task, .* but got 'digits'"):
        call("digits")

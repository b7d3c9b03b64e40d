"""The network of a run, and its optimizer: fresh ones, or copies of the caller's."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clr.errors import InvalidArgument
from clr.training.network import own_network, own_optimizer
from clr.training.random_states import random_states
from clr.training.task import Task

NET = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def fresh() -> nn.Module:
    return nn.Linear(4, 2)


@pytest.mark.parametrize(
    "model",
    [
        NET,
        lambda: NET,
        lambda: nn.Sequential(NET, nn.Linear(2, 3)),
        lambda: nn.Sequential(NET[0], nn.Linear(8, 3)),
        lambda: nn.ModuleList([NET[1]]),  # shares buffers too
    ],
    ids=["itself", "returned", "with a new head", "a part of it", "its batch norm"],
)
def test_what_shares_the_callers_weights_is_copied_for_each_run(model: Any) -> None:
    before = deepcopy(NET.state_dict())
    made = [own_network(model) for _ in range(2)]
    for network, copies in made:
        assert copies
        for tensor in (*network.parameters(), *network.buffers()):
            assert all(tensor is not own for own in (*NET.parameters(), *NET.buffers()))
            tensor.data = tensor.data + 1
    assert all(torch.equal(NET.state_dict()[name], value) for name, value in before.items())
    assert made[0][0] is not made[1][0]


def test_a_network_that_is_made_anew_is_the_one_that_was_made_under_the_seed_of_the_run() -> None:
    torch.manual_seed(3)
    expected = fresh()
    torch.manual_seed(3)
    network, copies = own_network(fresh)
    assert copies == {}
    assert all(map(torch.equal, network.parameters(), expected.parameters()))


def test_finding_out_draws_no_random_number_and_is_done_once() -> None:
    made = []

    def counted() -> nn.Module:
        made.append(1)
        return nn.Linear(4, 2)

    own_network(counted)
    assert len(made) == 2, "one for the run, one to compare with"
    torch.manual_seed(0)
    nn.Linear(4, 2)
    after_one = random_states()[2]
    torch.manual_seed(0)
    own_network(counted)
    assert torch.equal(random_states()[2], after_one)
    assert len(made) == 3


def test_marks_of_parameters_are_there_in_the_copy() -> None:
    net = nn.Linear(4, 2)
    net.bias.no_decay = True  # type: ignore[attr-defined]
    network, _ = own_network(net)
    assert network.bias.no_decay is True  # type: ignore[union-attr]


def test_an_optimizer_of_the_callers_weights_follows_the_copy() -> None:
    given = torch.optim.SGD([{"params": NET[0].parameters(), "lr": 0.1}, {"params": NET[3].parameters()}], lr=0.01)
    network, copies = own_network(NET)
    mine = own_optimizer(given, network, copies)
    held = [parameter for group in mine.param_groups for parameter in group["params"]]
    own = {id(parameter) for parameter in network.parameters()}
    assert all(id(parameter) in own for parameter in held)
    assert [group["lr"] for group in mine.param_groups] == [0.1, 0.01]
    made = torch.optim.SGD(network.parameters(), lr=1.0)
    assert own_optimizer(made, network, copies) is made


def test_an_optimizer_of_something_else_is_refused() -> None:
    elsewhere = torch.optim.SGD(fresh().parameters(), lr=1.0)
    network, copies = own_network(NET)
    with pytest.raises(InvalidArgument, match="optimizer: must hold a parameter of the model that requires a gradient"):
        own_optimizer(elsewhere, network, copies)
    frozen = fresh().requires_grad_(False)
    with pytest.raises(InvalidArgument, match="requires a gradient"):
        own_optimizer(torch.optim.SGD(frozen.parameters(), lr=1.0), frozen, {})


class Uncopied(nn.Linear):
    def __deepcopy__(self, memo: Any) -> Any:
        raise RuntimeError("holds a lock")


def needs(width: int) -> nn.Module:
    return nn.Linear(4, width)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Uncopied(4, 2), "one that deepcopy can copy; RuntimeError: holds a lock"),
        (needs, "must be called without arguments; missing a required argument: 'width'"),
        (lambda: "net", "must make a torch module, but got 'net'"),
    ],
)
def test_what_makes_no_network_is_refused(model: Callable[[], Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^model: .*{says}"):
        own_network(model)


def test_parameters_without_a_storage_or_a_shape_are_told_apart_too() -> None:
    lazy = nn.LazyLinear(2)
    network, copies = own_network(lambda: lazy)
    assert network is not lazy
    assert copies
    own, _ = own_network(lambda: nn.LazyLinear(2))
    assert isinstance(own, nn.LazyLinear)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (lambda: nn.LazyLinear(2), "must know the shapes of its parameters"),
        (lambda: nn.Linear(4, 2, device="meta"), "must have weights, but lies on the meta device"),
    ],
)
def test_a_task_whose_network_has_no_weights_yet_is_refused(model: Callable[[], nn.Module], says: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^model: {says}"):
        Task(model=model, train=(torch.zeros(4, 4), torch.zeros(4))).make(torch.device("cpu"))


class Closed(torch.optim.SGD):
    def step(self, closure: Callable[[], float]) -> None:  # type: ignore[override]
        """As sharpness-aware minimisation does: two passes a step."""


def test_several_optimizers_and_one_that_wants_a_closure_are_refused_with_what_to_do() -> None:
    net = fresh()
    with pytest.raises(InvalidArgument, match=r"^optimizer: must be one optimizer; .*a command job"):
        own_optimizer([torch.optim.SGD(net.parameters())] * 2, net, {})  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"^optimizer: must step without a closure"):
        own_optimizer(Closed(net.parameters()), net, {})


def test_tied_weights_stay_tied_in_the_copy() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.out = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
            self.out.weight = self.embed.weight

        def forward(self, x: Tensor) -> Any:
            return self.out(self.embed(x))

    network, _ = own_network(Tied())
    assert network.out.weight is network.embed.weight  # type: ignore[union-attr]

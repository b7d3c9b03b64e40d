import math
from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from clr.training.borrowing import borrowed
from clr.training.constant import best_constant
from clr.training.task import Task


def rows(count: int = 2000) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(0)
    x = torch.randn(count, 4, generator=made)
    return x, 50 + 3 * x[:, 0] + torch.randn(count, generator=made)


def regression(**changes: Any) -> Task:
    given: dict[str, Any] = {
        "model": lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1), nn.Flatten(0)),
        "train": rows(),
        "loss": F.mse_loss,
        "batch_size": 32,
        "device": "cpu",
    }
    return Task(**(given | changes))


def test_the_best_constant_of_a_squared_error_loses_the_variance() -> None:
    found = best_constant(regression())
    assert found is not None
    assert found.loss == pytest.approx(rows()[1].var().item(), rel=0.15)
    assert 0 < found.sd < found.loss


def test_its_score_is_that_of_the_same_output_on_validation_data() -> None:
    x, y = rows(400)
    found = best_constant(regression(val=(x, y + 10)))
    assert found is not None
    assert found.score == pytest.approx(found.loss + 100, rel=0.1)
    assert best_constant(regression()) == found._replace(score=None)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_unit_of_the_target_does_not_matter(scale: float) -> None:
    x, y = rows()
    known = best_constant(regression())
    found = best_constant(regression(train=(x, scale * y)))
    assert known is not None
    assert found is not None
    assert found.loss == pytest.approx(scale**2 * known.loss, rel=0.02)


def test_the_best_constant_of_a_cross_entropy_loses_the_entropy_of_the_classes() -> None:
    made = torch.Generator().manual_seed(1)
    labels = (torch.rand(2000, generator=made) < 0.1).long()
    found = best_constant(regression(model=lambda: nn.Linear(4, 2), train=(rows()[0], labels), loss=F.cross_entropy))
    share = labels.float().mean().item()
    assert found is not None
    assert found.loss == pytest.approx(-share * math.log(share) - (1 - share) * math.log(1 - share), rel=0.15)


def test_what_has_no_constant_output_has_none() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 1)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return F.mse_loss(self.inner(x)[:, 0], y)

    assert best_constant(Task(model=Own, train=rows(), batch_size=32)) is None
    two = regression(
        loss=lambda output, target: F.mse_loss(output[0], target),
        forward=lambda model, batch: ((model(batch[0]), 0), batch[1]),
    )
    assert best_constant(two) is None
    assert best_constant(regression(loss=lambda output, target: output.no_such_thing())) is None, (
        "a run says what fails"
    )
    sizes = iter(range(2, 1000))
    grows = regression(forward=lambda model, batch: (model(batch[0])[:, None].expand(-1, next(sizes)), batch[1]))
    assert best_constant(grows) is None


def test_objects_of_the_callers_own_are_as_they_were() -> None:
    network = regression().model()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    x, y = rows()
    loader = DataLoader(TensorDataset(x, y), 32, shuffle=True, generator=torch.Generator().manual_seed(3))
    before, states = deepcopy(network.state_dict()), (torch.get_rng_state(), loader.generator.get_state())
    with borrowed(model=network, optimizer=optimizer, train=loader, loss=F.mse_loss) as task:
        assert best_constant(task) is not None
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(states[0], torch.get_rng_state())
    assert torch.equal(states[1], loader.generator.get_state())
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())

"""What tells one task from another."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from clr.training.identity import digest_of
from clr.training.task import Task, optimizer

X, Y = torch.ones(20, 3), torch.zeros(20, dtype=torch.long)


def digest(**changes: Any) -> str:
    return digest_of(Task(**{"model": lambda: nn.Linear(3, 2), "train": (X, Y), "loss": F.cross_entropy} | changes))


def test_the_same_task_made_again_is_the_same_and_no_random_number_is_drawn() -> None:
    before = torch.get_rng_state()
    assert digest() == digest(train=(X.clone(), Y.clone()))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": lambda: nn.Linear(3, 4)},
        {"model": lambda: nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))},
        {"train": (X + 1, Y)},
        {"train": {"input": X, "labels": Y}},
        {"train": TensorDataset(X, Y)},
        {"val": (X, Y)},
        {"loss": lambda output, target: F.cross_entropy(output, target, label_smoothing=0.1)},
        {"loss": nn.CrossEntropyLoss(label_smoothing=0.1)},
        {"optimizer": optimizer("SGD", momentum=0.5)},
        {"optimizer": lambda groups: torch.optim.AdamW(groups, weight_decay=0.2)},
        {"clip_norm": 1.0},
    ],
)
def test_another_task_is_another(changes: dict[str, Any]) -> None:
    assert digest(**changes) != digest()


def test_losses_that_differ_in_a_setting_are_told_apart() -> None:
    assert digest(loss=nn.CrossEntropyLoss()) != digest(loss=nn.CrossEntropyLoss(label_smoothing=0.1))


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def test_a_network_of_other_code_is_another() -> None:
    def named_alike() -> nn.Module:
        made = Doubled(3, 2)
        type(made).__qualname__ = "Linear"
        return made

    assert digest(model=named_alike) != digest()


def test_functions_that_differ_within_are_told_apart() -> None:
    first = digest(loss=lambda output, target: sum(value * 2 for value in F.cross_entropy(output, target)))
    assert first != digest(loss=lambda output, target: sum(value * 3 for value in F.cross_entropy(output, target)))

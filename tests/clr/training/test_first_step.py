"""The first step of a run: what a task is told that cannot be trained."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from clr.errors import InvalidArgument
from clr.training.first_step import FailedFirstStep, check_gradients, first_loss
from clr.training.task import Task, model_loss

X, Y = torch.randn(12, 4), torch.randint(0, 3, (12,))


class WithTarget(nn.Module):
    """As many language models are: ``(output, loss)``, and no loss without a target."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor, target: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        output = self.layer(x)
        return output, None if target is None else F.cross_entropy(output, target)


def of(batch: Any, model: nn.Module | None = None, **more: Any) -> Tensor:
    """The first loss of a task of these parts."""
    network = nn.Linear(4, 3) if model is None else model
    task = Task(**{"model": lambda: network, "train": (X, Y), "loss": F.cross_entropy} | more)
    return first_loss(task, network, batch)


def test_a_batch_that_fits_has_the_loss_of_its_task() -> None:
    model = nn.Linear(4, 3)
    assert of((X, Y), model).equal(F.cross_entropy(model(X), Y))


def test_a_model_that_returns_its_loss_beside_its_output_is_told_how_it_is_taken() -> None:
    with pytest.raises(InvalidArgument, match=r"^loss: must be given.*give forward=lambda model, batch: \(model\(\*"):
        of((X, Y), WithTarget(), loss=model_loss)
    with pytest.raises(FailedFirstStep, match=r"the output, \(float32\[12, 3\], None\), with the target, int64\[12\]"):
        of((X, Y), WithTarget())
    own = {"forward": lambda model, batch: (model(*batch)[1], None), "loss": model_loss}
    assert of((X, Y), WithTarget(), **own).requires_grad


@pytest.mark.parametrize("batch", [X, [X], (X,)])
def test_one_tensor_is_no_pair(batch: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^forward: must say what the loss compares .*float32\[12, 4\].*model\("):
        of(batch)


def test_a_batch_of_another_structure_is_shown_with_what_the_model_takes() -> None:
    for batch in ((X, Y, Y), {"pixels": X, "label": Y}):
        with pytest.raises(InvalidArgument, match=r"^forward: .*float32\[12, 4\].*forward=lambda model, batch"):
            of(batch)


@pytest.mark.parametrize("pairs", [list(zip(X, Y, strict=True)), [(x, 2) for x in X], [(x, x[:1]) for x in X]])
def test_examples_in_the_place_of_batches_are_found_out_unless_each_is_meant_to_be_one(pairs: list[Any]) -> None:
    with pytest.raises(InvalidArgument, match=r"^train: must yield batches.* DataLoader\(train, batch_size"):
        of(pairs[0], train=pairs)
    assert of((X[0], Y[0]), train=DataLoader(pairs, batch_size=None)).requires_grad  # type: ignore[arg-type]
    assert of((X[0], Y[0]), train=pairs, forward=lambda model, batch: (model(batch[0]), batch[1])).requires_grad


def test_an_error_of_the_model_is_the_cause_and_no_tensor_is_printed() -> None:
    with pytest.raises(FailedFirstStep, match=r"float32\[12, 3\].*RuntimeError: mat1 and mat2") as failed:
        of((X[:, :3], Y))
    assert isinstance(failed.value.__cause__, RuntimeError)
    assert "tensor(" not in str(failed.value)


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        (lambda output, target: 1.0, "must return a scalar tensor, but got 1.0"),
        (lambda output, target: F.cross_entropy(output, target, reduction="none"), "the mean over the batch"),
        (lambda output, target: F.cross_entropy(output, target).detach(), "must depend on a parameter"),
        (lambda output, target: (output * 1j).sum(), "must return a real number"),
    ],
)
def test_what_is_no_loss_is_refused(loss: Any, says: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^loss: .*{says}"):
        of((X, Y), loss=loss)


def test_a_forward_that_uses_another_model_is_found_out_by_its_gradients() -> None:
    mine, other = nn.Linear(4, 3), nn.Linear(4, 3)
    optimizer = torch.optim.SGD(mine.parameters())
    of((X, Y), mine, forward=lambda model, batch: (other(batch[0]), batch[1])).backward()
    with pytest.raises(InvalidArgument, match="forward: must use the model that it is given"):
        check_gradients(optimizer)
    of((X, Y), mine).backward()
    check_gradients(optimizer)

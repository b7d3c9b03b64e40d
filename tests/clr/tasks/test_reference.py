"""What a job trains, told in plain values."""

import json
import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from clr.errors import InvalidArgument
from clr.run import Run
from clr.tasks.reference import inspect_task, load, points
from clr.training.task import Task, optimizer
from clr.tuning.recommendation import reasons_of_groups

DIGITS: dict[str, Any] = {"task": "digits", "args": {}, "optimizer": None, "batch_size": None, "reach": None}
X, Y = torch.randn(96, 4), torch.randint(0, 2, (96,))


def task(**more: Any) -> Task:
    return Task(**{"model": lambda: nn.Linear(4, 2), "train": (X, Y), "loss": F.cross_entropy} | more)


def used(**more: Any) -> dict[str, Any]:
    found = inspect_task(task(**more))["trained_with"]
    assert json.loads(json.dumps(found)) == found
    return dict(found)


def test_a_task_is_told_with_its_own_optimizer_and_batch_size_unless_the_job_names_others() -> None:
    own = load(DIGITS)
    assert (own.batch_size, inspect_task(own)["trained_with"]["optimizer"]["name"]) == (64, "SGD")
    other = load(DIGITS | {"optimizer": {"name": "AdamW", "args": {"weight_decay": 0.1}}, "batch_size": 100})
    about = inspect_task(other)
    assert about["iterations_per_epoch"] == 11
    told = {"name": "AdamW", "args": {"weight_decay": 0.1}}
    assert about["trained_with"].keys() == {"optimizer", "batch_size", "constant"}
    assert (about["trained_with"]["optimizer"], about["trained_with"]["batch_size"]) == (told, 100)
    constant = about["trained_with"]["constant"]
    assert constant["loss"] == pytest.approx(math.log(10), rel=0.02)
    assert constant["score"] == pytest.approx(0.1, abs=0.05)


def test_the_same_job_has_the_same_task() -> None:
    assert load(DIGITS) is load(dict(reversed(DIGITS.items())))


def batches(hidden: int = 4) -> Task:
    """Data that come as batches."""
    return task(train=DataLoader(TensorDataset(X, Y), batch_size=8))


def test_the_batch_size_of_data_that_are_batches_is_theirs() -> None:
    assert used(train=DataLoader(TensorDataset(X, Y), batch_size=8))["batch_size"] == 8
    assert used(train=[(X, Y)])["batch_size"] is None
    with pytest.raises(InvalidArgument, match=r"batch_size: must be null for a task whose data are batches already"):
        load(DIGITS | {"task": f"{__name__}:batches", "batch_size": 4, "reach": None})


def groups(model: nn.Module) -> Iterable[Any]:
    return [{"params": [model.weight], "lr_mult": 0.1}, {"params": [model.bias]}]


def test_an_optimizer_is_told_by_what_is_not_its_classes_own_and_its_groups() -> None:
    assert used()["optimizer"] == {"name": "SGD", "args": {"momentum": 0.9}}
    made = optimizer("Adam", betas=(0.5, 0.9), amsgrad=True)
    assert used(optimizer=made)["optimizer"] == {"name": "Adam", "args": {"betas": [0.5, 0.9], "amsgrad": True}}
    assert used(groups=groups)["optimizer"]["lr_mult"] == [0.1, 1.0]


def no_decay_of_bias(model: nn.Module) -> Iterable[Any]:
    return [{"params": [model.weight], "weight_decay": 0.1}, {"params": [model.bias]}]


def test_what_differs_from_group_to_group_and_what_is_in_none_are_told() -> None:
    assert used(groups=no_decay_of_bias)["optimizer"] == {
        "name": "SGD",
        "args": {"momentum": 0.9},
        "by_group": {"weight_decay": [0.1, 0.0]},
    }
    told = used(groups=lambda model: [model.bias])["optimizer"]
    assert told == {"name": "SGD", "args": {"momentum": 0.9}, "untrained": 1}
    assert reasons_of_groups(told) == ["1 parameter of the model is in no group of the optimizer, and stayed as before"]


def test_an_optimizer_that_looks_at_its_parameters_is_made_of_the_network() -> None:
    def by_shape(given: Iterable[Any]) -> torch.optim.Optimizer:
        matrices = [one for one in given if one.shape == (2, 4)]
        return torch.optim.Adagrad([{"params": matrices}], lr=matrices[0].numel())

    assert used(optimizer=by_shape)["optimizer"]["name"] == "Adagrad"


def test_the_points_of_a_run_are_json_and_none_is_from_a_checkpoint_where_there_is_none() -> None:
    run = Run(policy="fixed", base_lr=0.1, max_lr=0.1, step_size_up=2, steps=4, seed=0, evaluate_every=2)
    told = list(points(task(device="cpu"), run.to_dict(), 1, None))
    assert [(kept, point["step"], len(point["loss"])) for kept, point in told] == [(False, 2, 2), (False, 4, 2)]
    assert json.loads(json.dumps(told))

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from clr.errors import InvalidArgument
from clr.training.task import Task, accuracy, forward, model_loss, optimizer

X, Y = torch.zeros(20, 3), torch.zeros(20, dtype=torch.long)


def make(**changes: Any) -> Task:
    return Task(**({"model": lambda: nn.Linear(3, 2), "train": (X, Y), "loss": F.cross_entropy} | changes))


def test_accuracy_is_the_share_of_rows_whose_largest_output_is_at_the_target() -> None:
    output = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]])
    assert accuracy(output, torch.tensor([1, 0, 0, 0])).item() == 0.75


@pytest.mark.parametrize(
    ("output", "target"),
    [
        (torch.zeros(4, 1), torch.zeros(4, 1)),  # one output, as of a binary cross entropy
        (torch.zeros(4, 3), torch.zeros(4, 3)),
        (torch.zeros(4, 3), torch.zeros(4, 1, dtype=torch.long)),
    ],
)
def test_targets_that_are_no_class_numbers_have_no_accuracy(output: Tensor, target: Tensor) -> None:
    with pytest.raises(InvalidArgument, match=r"^metric: must be a function of your own"):
        accuracy(output, target)


def test_forward_gives_pairs_to_the_model_as_input_and_target() -> None:
    model = nn.Linear(3, 2)
    output, target = forward(model, [X, Y])
    assert torch.equal(output, model(X))
    assert target is Y


def test_forward_gives_a_mapping_to_the_model_as_keywords() -> None:
    class Model(nn.Module):
        def forward(self, ids: Any, labels: Any) -> dict[str, Any]:
            return {"loss": ids.sum(), "seen": labels}

    output, target = forward(Model(), {"ids": X, "labels": Y})
    assert output["seen"] is target is Y
    assert model_loss(output, target).item() == 0


def test_a_models_own_loss_is_read_from_an_attribute_or_a_key() -> None:
    assert model_loss(SimpleNamespace(loss=torch.tensor(2.0)), None).item() == 2
    assert model_loss({"loss": torch.tensor(3.0)}, None).item() == 3


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adagrad"])
def test_every_optimizer_of_the_spec_is_made_by_its_name(name: str) -> None:
    made = optimizer(name, weight_decay=0.25)(nn.Linear(2, 2).parameters())
    assert type(made) is getattr(torch.optim, name)
    assert made.param_groups[0]["weight_decay"] == 0.25


def test_sgd_has_momentum_unless_told_otherwise() -> None:
    def momentum(**args: float) -> float:
        value: float = optimizer("SGD", **args)(nn.Linear(2, 2).parameters()).param_groups[0]["momentum"]
        return value

    assert (momentum(), momentum(momentum=0.0)) == (0.9, 0.0)


@pytest.mark.parametrize("name", ["Sgd", "lr_scheduler", "Optimizer", "__doc__", ""])
def test_a_name_that_is_no_optimizer_of_torchs_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"optimizer.name: .*but got {name!r}"):
        optimizer(name)


def test_a_group_keeps_its_own_settings_and_multiplier() -> None:
    model = nn.Linear(2, 2)
    groups = [
        {"params": [model.weight], "weight_decay": 0.5},
        {"params": [model.bias], "lr_mult": 2.0},
    ]
    made = optimizer("SGD", weight_decay=0.1)(groups).param_groups
    assert [group["weight_decay"] for group in made] == [0.5, 0.1]
    assert [group.get("lr_mult") for group in made] == [None, 2.0]


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "iterations"), [(4, 1, 5), (6, 1, 3), (4, 2, 2), (4, 99, 1), (99, 1, 1)]
)
def test_iterations_count_optimizer_steps(batch_size: int, accumulate: int, iterations: int) -> None:
    assert make(batch_size=batch_size, accumulate=accumulate).iterations_per_epoch == iterations


class Endless:
    """Batches without end, and so without a length."""

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield X, Y


def test_the_length_of_an_epoch_may_be_given_and_is_kept_through_changes() -> None:
    assert make(iterations_per_epoch=7, batch_size=4, accumulate=2).iterations_per_epoch == 7
    given = make(train=Endless(), iterations_per_epoch=7)
    assert given.changed(accumulate=3).iterations_per_epoch == 7
    derived = make(batch_size=4)
    assert (derived.iterations_per_epoch, derived.changed(batch_size=2).iterations_per_epoch) == (5, 10)
    assert replace(derived, batch_size=2).iterations_per_epoch == 5, "what was read counts as given"


def test_data_without_a_length_or_an_end_ask_for_it() -> None:
    with pytest.raises(InvalidArgument, match=r"train: must have a length.*give iterations_per_epoch="):
        make(train=Endless()).iterations_per_epoch  # noqa: B018
    endless = RandomSampler(TensorDataset(X, Y), replacement=True, num_samples=10**12)
    with pytest.raises(InvalidArgument, match="an epoch of at most 100,000,000 batches; give iterations_per_epoch="):
        make(train=DataLoader(TensorDataset(X, Y), sampler=endless)).iterations_per_epoch  # noqa: B018


def custom(_output: Any, _target: Any) -> float:
    return 0.0


@pytest.mark.parametrize(
    ("changes", "name", "direction", "function"),
    [
        ({}, "loss", "minimize", F.cross_entropy),
        ({"metric": "loss"}, "loss", "minimize", F.cross_entropy),
        ({"metric": "accuracy"}, "accuracy", "maximize", accuracy),
        ({"metric": custom}, "custom", "maximize", custom),
        ({"metric": custom, "direction": "minimize"}, "custom", "minimize", custom),
    ],
)
def test_a_run_is_scored_by_the_metric_in_its_direction(
    changes: dict[str, Any], name: str, direction: str, function: Any
) -> None:
    assert make(val=(X, Y), **changes).score == (name, direction, function)


class Distance:
    higher_is_better = False

    def __call__(self, _output: Any, _target: Any) -> float:
        return 0.0


@pytest.mark.parametrize(
    ("metric", "name", "direction"),
    [
        (F.l1_loss, "l1_loss", "minimize"),
        (partial(F.mse_loss, reduction="mean"), "mse_loss", "minimize"),
        (lambda _output, _target: 0.0, "metric", "maximize"),
        (Distance(), "Distance", "minimize"),
    ],
)
def test_whether_a_larger_metric_is_better_is_told_by_itself_or_by_its_name(
    metric: Any, name: str, direction: str
) -> None:
    assert make(val=(X, Y), metric=metric).score == (name, direction, metric)
    assert make(val=(X, Y), metric=metric, direction="maximize").score == (name, "maximize", metric)


LOADER = DataLoader(TensorDataset(X, Y), batch_size=4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"val": (X, Y), "metric": "accuracy", "direction": "minimize"}, 'direction: must be "maximize", or left out'),
        ({"train": LOADER, "batch_size": 8}, "batch_size: must be left out, or train's own, 4, but got 8"),
        ({"collate": list}, "collate: must be left out where train and val are no Dataset with a length"),
        ({"train": LOADER, "workers": 1}, "workers: must be left out where train is no Dataset with a length, .* 1"),
    ],
)
def test_what_would_not_be_used_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        make(**changes)


def test_without_validation_data_a_run_is_scored_by_its_loss_whatever_the_metric() -> None:
    bare = make(metric="accuracy", val=None)
    assert bare.score == ("loss", "minimize", F.cross_entropy)
    assert bare.remarks == ["there is no val to take the metric of: runs are judged by their training loss"]
    assert (make(metric="loss").remarks, make(metric="accuracy", val=(X, Y)).remarks) == ([], [])


def test_a_batch_size_that_is_the_loaders_own_says_nothing_new() -> None:
    assert make(train=LOADER, batch_size=4).iterations_per_epoch == len(LOADER)


def test_one_output_has_no_accuracy() -> None:
    with pytest.raises(
        InvalidArgument, match=r'metric: .* "accuracy" .* float32.8, 1., which has no two to choose from'
    ):
        accuracy(torch.zeros(8, 1), torch.zeros(8, dtype=torch.long))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch_size": 0}, "batch_size: must be a whole number, at least 1, but got 0"),
        ({"iterations_per_epoch": 0}, "iterations_per_epoch: must be a whole number, at least 1, but got 0"),
        ({"iterations_per_epoch": 2.5}, "iterations_per_epoch: must be a whole number, at least 1, but got 2.5"),
        ({"clip_value": 0}, "clip_value: must be a number above 0, but got 0"),
        ({"clip_value": True}, "clip_value: must be a number above 0, but got True"),
        ({"accumulate": -1}, "accumulate: must be a whole number, at least 1, but got -1"),
        ({"clip_norm": 0.0}, "clip_norm: must be a number above 0, but got 0.0"),
        ({"clip_norm": float("nan")}, "clip_norm: must be a number above 0, but got nan"),
        ({"accumulate": "2"}, "accumulate: must be a whole number, at least 1, but got '2'"),
        ({"batch_size": 1.5}, "batch_size: must be a whole number, at least 1, but got 1.5"),
        ({"clip_norm": "1"}, "clip_norm: must be a number above 0, but got '1'"),
        ({"metric": "f1"}, "metric: must be .*'f1'"),
        ({"direction": "maximize"}, 'direction: must be "minimize", or left out, where runs are judged by a loss'),
        ({"direction": "up"}, "direction: must be .*'up'"),
        ({"workers": -1}, "workers: must be a whole number, at least 0, but got -1"),
        ({"device": "gpu"}, "device: must be a torch device .*'gpu'"),
        ({"compile": "gcc"}, "compile: must be true, false or one of .*inductor.*'gcc'"),
        ({"precision": "fp8"}, "precision: must be .*'fp8'"),
    ],
)
def test_a_broken_rule_is_named_with_its_value(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        make(**changes)

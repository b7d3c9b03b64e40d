"""A run that is broken off and goes on from its checkpoint is the run that was never broken off."""

import logging
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from clr.run import Point, Run
from clr.training.checkpoint import Checkpoint
from clr.training.loop import train
from clr.training.task import Task, optimizer

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = (X @ torch.randn(4, 3, generator=torch.Generator().manual_seed(1))).argmax(1)
RUN = Run(
    policy="triangular", base_lr=0.01, max_lr=0.1, step_size_up=20, steps=80, seed=5, evaluate_every=20, explode=9.0
)


class Restless(nn.Module):
    """Changes all that a module can hold: parameters, buffers of both kinds, a counter, a tensor, a list."""

    average: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))
        self.register_buffer("average", torch.zeros(4), persistent=False)
        self.calls, self.total, self.sizes = 0, torch.zeros(()), [0]

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.total = self.total + x.mean().detach()
        self.sizes = [self.sizes[0] + len(x)]
        self.average = 0.9 * self.average + 0.1 * x.mean(0)
        output: Tensor = self.body(x - self.average) * (1 + 0.001 * self.calls + self.total * 0.01)
        return output + 0.0001 * self.sizes[0]


class Noisy(Dataset[Any]):
    """Augments its examples with the global random numbers."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return X[index] + 0.1 * torch.randn(4), Y[index]


def make(**changes: Any) -> Task:
    fields: dict[str, Any] = {"model": Restless, "train": (X, Y), "val": (X, Y), "metric": "accuracy"}
    return Task(**fields | {"loss": F.cross_entropy, "batch_size": 8, "device": "cpu"} | changes)


def checkpoint(folder: Path, **changes: Any) -> Checkpoint:
    return Checkpoint(**{"path": folder / "runs" / "run.pt", "of": {"task": "any"}, "every_s": 0.0} | changes)


class Broken(Exception):
    pass


def broken_off(task: Task, folder: Path, steps: int) -> list[Point]:
    """The points of a run whose process is lost in the course of a step; its checkpoint stays."""
    left = iter(range(steps))

    def dying(model: nn.Module, batch: Any) -> Any:
        if model.training and next(left, None) is None:
            raise Broken
        return task.forward(model, batch)

    points = []
    with pytest.raises(Broken):
        points.extend(train(Task(**vars(task) | {"forward": dying}), RUN, checkpoint(folder)))
    return points


FORMS: dict[str, dict[str, Any]] = {
    "tensors": {},
    "dataset": {"train": Noisy()},
    "loader": {"train": DataLoader(TensorDataset(X, Y), batch_size=8, shuffle=True)},
    "accumulated and clipped": {"accumulate": 3, "clip_norm": 0.1},
    "fp16": {"precision": "fp16"},
    **{name: {"optimizer": optimizer(name)} for name in ("Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adagrad")},
}


@pytest.mark.parametrize(("form", "steps"), [*((form, 47) for form in FORMS), ("tensors", 17), ("loader", 79)])
def test_a_run_that_goes_on_from_its_checkpoint_is_bit_for_bit_the_run_that_never_stopped(
    form: str, steps: int, tmp_path: Path
) -> None:
    task = make(**FORMS[form])
    whole = list(train(task, RUN))
    broken_off(task, tmp_path, steps * task.accumulate)
    again = checkpoint(tmp_path)
    torch.manual_seed(99)
    assert list(train(task, RUN, again)) == whole
    assert again.restored == steps // 20
    assert not again.path.exists(), "removed when the run has ended"


def test_a_run_that_goes_on_trains_only_what_is_left(tmp_path: Path) -> None:
    task, taken = make(), iter(range(1000))
    broken_off(task, tmp_path, 70)

    def counting(model: nn.Module, batch: Any) -> Any:
        next(taken) if model.training else None
        return task.forward(model, batch)

    list(train(make(forward=counting), RUN, checkpoint(tmp_path)))
    assert next(taken) == 80 - 60


def test_a_file_lies_there_at_any_moment_once_it_is_due_and_not_before(tmp_path: Path) -> None:
    seldom, often = checkpoint(tmp_path, path=tmp_path / "seldom", every_s=3600.0), checkpoint(tmp_path)
    for kept in (seldom, often):
        points = train(make(), RUN, kept)
        list(islice(points, 3))
        points.close()  # type: ignore[attr-defined]
    assert not seldom.path.exists()
    assert often.path.exists()
    assert [path.name for path in often.path.parent.iterdir()] == ["run.pt"], "nothing half written stays"


@pytest.mark.parametrize("change", ["run", "task", "content", "empty", "model"])
def test_a_file_of_another_run_or_a_damaged_one_is_left_aside(
    change: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken_off(make(), tmp_path, 50)
    file, task, run = checkpoint(tmp_path), make(), RUN
    if change == "run":
        run = Run(**RUN.to_dict() | {"seed": 6})
    if change == "task":
        file.of = {"task": "other"}
    if change == "model":
        task = make(model=lambda: nn.Linear(4, 3))
    if change in ("content", "empty"):
        file.path.write_bytes(b"" if change == "empty" else file.path.read_bytes()[:-1000])
    with caplog.at_level(logging.WARNING):
        assert list(train(task, run, file)) == list(train(task, run))
    assert file.restored == 0
    assert ("its run starts over" in caplog.text) == (change in ("content", "empty"))


def test_a_file_is_read_without_running_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (tmp_path / "ran").touch, ()

    file = checkpoint(tmp_path)
    file.path.parent.mkdir()
    torch.save({"identity": "", "state": Evil()}, file.path)
    assert file.load(RUN.to_dict(), torch.device("cpu")) is None
    assert not (tmp_path / "ran").exists()


def test_a_folder_that_cannot_be_written_costs_the_checkpoint_and_not_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        assert list(train(make(), RUN, checkpoint(tmp_path))) == list(train(make(), RUN))
    assert "no checkpoint could be written" in caplog.text


class Stream:
    """Batches whose place cannot be found again."""

    def __len__(self) -> int:
        return 7

    def __iter__(self) -> Any:
        return iter([(X[:8], Y[:8])] * 7)


@pytest.mark.parametrize("train_data", [Stream(), DataLoader(TensorDataset(X, Y), batch_sampler=[[0, 1], [2, 3]])])
def test_data_whose_place_cannot_be_found_again_has_no_checkpoint(train_data: Any, tmp_path: Path) -> None:
    task = make(train=train_data)
    broken_off(task, tmp_path, 50)
    assert not (tmp_path / "runs").exists()

"""Tasks that go wrong, each in its own way, and one that lets a test hold it."""

import os
import time
from pathlib import Path

import torch
from torch import nn

import clr


def _points(count: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 8, generator=generator)
    return x, (x.sum(1) > 0).long()


def _task(model: type[nn.Module] | None = None, **more: object) -> clr.Task:
    x, y = _points()
    make = model or (lambda: nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)))
    return clr.Task(model=make, train=(x, y), val=(x, y), loss=nn.functional.cross_entropy, metric="accuracy", **more)


class _NaN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.sum() * self.weight * float("nan")).expand(len(x), 2)


def nan_from_the_start() -> clr.Task:
    """The loss is NaN at every step."""
    return _task(_NaN)


def raises() -> clr.Task:
    """The loss raises."""
    x, y = _points()

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        raise ValueError("the labels are out of range")

    return clr.Task(model=lambda: nn.Linear(8, 2), train=(x, y), loss=loss)


def leaves_gradients_off() -> clr.Task:
    """As a run does that is interrupted where torch turns them on again."""
    x, y = _points()

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        torch.set_grad_enabled(False)
        return nn.functional.cross_entropy(output, target)

    return clr.Task(model=lambda: nn.Linear(8, 2), train=(x, y), loss=loss)


def does_not_load(folder: str) -> clr.Task:
    """The data are not there."""
    raise FileNotFoundError(f"no data in {folder}")


def tells_its_environment() -> clr.Task:
    """Raises with the variables of the process that trains, as python and as the kernel have them."""
    raise ValueError(f"{dict(os.environ)} {Path('/proc/self/environ').read_bytes()!r}")


class _Slow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        return self.layer(x)


def slow() -> clr.Task:
    """Each step takes 20 ms."""
    return _task(_Slow)


class _Dying(nn.Module):
    marker = ""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return self.layer(x)
        try:
            os.close(os.open(self.marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return self.layer(x)
        os._exit(1)


def dies_once(folder: str) -> clr.Task:
    """The first process that trains it ends without a word."""
    _Dying.marker = str(Path(folder) / "died")
    return _task(_Dying)


class _Counting(nn.Module):
    """Writes a byte into a file at each training step; the process ends when there are ``last`` of them."""

    folder = ""
    last = 0
    pause_s = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            with (Path(self.folder) / "steps").open("ab") as file:
                file.write(b"x")
                steps = file.tell()
            if steps == self.last:
                os._exit(1)
            time.sleep(self.pause_s)
        return self.layers(x)


def counts(folder: str, last: int = 0, pause_s: float = 0.0) -> clr.Task:
    """Counts its steps over all processes; the one that takes the step ``last`` ends without a word."""
    _Counting.folder, _Counting.last, _Counting.pause_s = folder, last, pause_s
    return _task(_Counting)


def dies_always() -> clr.Task:
    """Every process that trains it ends without a word."""

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        os._exit(1)

    x, y = _points()
    return clr.Task(model=lambda: nn.Linear(8, 2), train=(x, y), loss=loss)


def loads_slowly() -> clr.Task:
    """Its data take long to read."""
    time.sleep(600)
    return _task()

"""The paper's headline: as good in 25,000 iterations with the recommended policy as in 70,000 with the fixed schedule.

    python -m benchmarks.headline --device cuda --jobs 3 --out headline.json

CIFAR-10 under Caffe's ``cifar10_full``, batch 100. Fixed is that network's own solver: 0.001 for 60,000 iterations,
0.0001 for 5,000, 0.00001 for 5,000. Recommended is what a range test alone finds for 50 epochs with default settings,
as it is proposed and as one cycle. On a GPU an iteration is captured once as a CUDA graph; the range test runs in the
product's own loop.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import lru_cache
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor

import clr
from benchmarks.cases import CASES, Place
from benchmarks.command import Command
from benchmarks.farm import Farm
from benchmarks.table import markdown
from clr.range_tests.bounds import Bounds
from clr.schedules.cycles import Candidate, TrainingLength
from clr.schedules.policies import schedule
from clr.training.task import Task

CASE = CASES["cifar_long"]
BUDGET = TrainingLength(50, 500)
FIXED = [(0.001, 60_000), (0.0001, 5_000), (0.00001, 5_000)]
SEEDS = (1, 2, 3)
TEST_SEED = 101
MOMENTUM = 0.9


class Captured:
    """SGD on a task held as tensors, one iteration of it captured as a CUDA graph where there is a GPU."""

    def __init__(self, task: Task, batch: int = 100) -> None:
        (self.images, self.labels), (self.val_images, self.val_labels) = task.train, task.val  # type: ignore[misc]
        self.task, self.device = task, self.images.device
        self.model = task.model().to(self.device)
        groups = list(task.groups(self.model))
        self.params: list[Tensor] = [p for group in groups for p in group["params"]]
        self.decays = [group["weight_decay"] for group in groups for _ in group["params"]]
        self.multipliers = [group["lr_mult"] for group in groups for _ in group["params"]]
        self.momenta = [torch.zeros_like(p) for p in self.params]
        self.lr, self.loss = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        self.chosen = torch.zeros(batch, dtype=torch.long, device=self.device)
        self.iterate: Callable[[], None] = self._iterate
        if self.device.type == "cuda":
            self._capture()

    def _iterate(self) -> None:
        loss = self.task.loss(self.model(self.images[self.chosen]), self.labels[self.chosen])
        gradients = torch.autograd.grad(loss, self.params)
        with torch.no_grad():
            torch._foreach_mul_(self.momenta, MOMENTUM)
            torch._foreach_add_(self.momenta, gradients)
            torch._foreach_add_(self.momenta, torch._foreach_mul(self.params, self.decays))
            updates = torch._foreach_mul(self.momenta, self.multipliers)
            torch._foreach_mul_(updates, self.lr)
            torch._foreach_sub_(self.params, updates)
            self.loss.copy_(loss.detach())

    def _capture(self) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(5):
                self._iterate()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._iterate()
        self.iterate = graph.replay

    @torch.no_grad()
    def accuracy(self) -> float:
        """On all validation images."""
        outputs = [self.model(images) for images in self.val_images.split(1000)]
        return (torch.cat(outputs).argmax(1) == self.val_labels).float().mean().item()

    def train(self, rates: Sequence[float], seed: int) -> float | None:
        """Accuracy after a training from fresh weights, one rate for each iteration; None when it diverged."""
        torch.manual_seed(seed)
        with torch.no_grad():
            for mine, fresh in zip(self.model.parameters(), self.task.model().parameters(), strict=True):
                mine.copy_(fresh)
        torch._foreach_zero_(self.momenta)
        order = torch.Generator().manual_seed(seed)
        per_epoch = len(self.images) // len(self.chosen)
        on_device = torch.tensor(rates, dtype=torch.float32, device=self.device)
        for step in range(len(rates)):
            if step % per_epoch == 0:
                if not math.isfinite(self.loss.item()):
                    return None
                epoch = torch.randperm(len(self.images), generator=order)[: per_epoch * len(self.chosen)]
                batches = epoch.view(per_epoch, -1).to(self.device)
            self.lr.copy_(on_device[step])
            self.chosen.copy_(batches[step % per_epoch])
            self.iterate()
        return self.accuracy() if math.isfinite(self.loss.item()) else None


@lru_cache
def captured(place: Place) -> Captured:
    """One for each process: the graph is captured once."""
    return Captured(CASE.load(place))


def fixed(place: Place, seed: int) -> float | None:
    """Accuracy of the fixed schedule."""
    return captured(place).train([lr for lr, steps in FIXED for _ in range(steps)], seed)


def cyclic(
    place: Place, policy: str, base_lr: float, max_lr: float, up: int, down: int, steps: int, seed: int
) -> float | None:
    """Accuracy of a schedule of whole cycles."""
    rate = schedule(policy, base_lr=base_lr, max_lr=max_lr, stepsize=up, stepsize_down=down)
    return captured(place).train([rate(step) for step in range(steps)], seed)


def tested(place: Place, seed: int) -> dict[str, Any]:
    """Bounds of one range test."""
    return clr.range_test(CASE.load(place), epochs=BUDGET.epochs, seed=seed).bounds.to_dict()


def start(farm: Farm, candidate: Candidate, seed: int) -> "Future[Any]":
    """A training with a schedule."""
    halves = (candidate.step_size_up, candidate.step_size_down)
    return farm.start(cyclic, candidate.policy, candidate.base_lr, candidate.max_lr, *halves, candidate.steps, seed)


def proposed(bounds: Bounds) -> list[Candidate]:
    """What the range test alone proposes, and the same bounds as one cycle."""
    default = bounds.candidate(BUDGET)
    if default is None:
        return []
    one = BUDGET.propose(default.max_lr, default.ratio, 1)
    return [default] if one == default else [default, one]


def described(one: Candidate) -> str:
    """A schedule in a few words."""
    return f"{one.policy} {one.base_lr:g} to {one.max_lr:g}, {one.cycles} cycle(s)"


def line(name: str, iterations: int, values: Sequence[float]) -> list[str]:
    """A row of the table."""
    return [name, str(iterations), f"{100 * fmean(values):.2f} ± {100 * stdev(values):.2f}", f"{len(values)}"]


def main() -> None:
    """Measure and print."""
    parser = Command(__doc__, tasks=False)
    chosen = parser.chosen()
    with Farm.of(chosen) as farm:
        baseline = [farm.start(fixed, seed) for seed in SEEDS]
        found = farm.start(tested, TEST_SEED).result()
        alone = [(one, [start(farm, one, seed) for seed in SEEDS]) for one in proposed(Bounds(**found))]
        rows = [line(described(one), one.steps, [run.result() for run in trained]) for one, trained in alone]
        iterations = sum(steps for _, steps in FIXED)
        rows.append(line("fixed, lowered twice", iterations, [run.result() for run in baseline]))
        farm.note("headline", rows)
    print(markdown(["schedule", "iterations", "accuracy %", "seeds"], rows))
    print("range test:", found["max_lr"], found["interval"]["max_lr"])


if __name__ == "__main__":
    main()

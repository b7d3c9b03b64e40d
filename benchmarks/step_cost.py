"""Time of one step of the range test over the same step in a bare PyTorch loop, and of the peers' steps beside it.

    python -m benchmarks.step_cost                            # the four short tasks, on a CPU

All loops train the same model on the same ready batches from one DataLoader, at rates too low to change the loss; a
step is the time between two calls of the loss, on average over a run. The loops take turns; reported are medians over
the rounds, and the quotient of quiet steps: of each step of a run the quickest eighth over the rounds, which other work
on the machine disturbs less. Further rows: data held as tensors, which bare loop and ours index themselves; and the
whole test, with the evaluations along its ramps, over the steps it takes. Run it on a machine that does nothing else.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random
from statistics import fmean, median
from time import perf_counter
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

import clr
from benchmarks import peers
from benchmarks.cases import CASES
from benchmarks.command import Command
from benchmarks.farm import Farm
from benchmarks.table import markdown
from clr.run import Run
from clr.training.loop import curve_of
from clr.training.task import Task

LOW, HIGH = 1e-7, 1e-5
BATCHES = 64


class Clock:
    """A loss function that remembers when it was called."""

    def __init__(self, loss: Callable[[Any, Any], Any]) -> None:
        self.loss = loss
        self.times: list[float] = []

    def __call__(self, output: Any, target: Any) -> Any:
        self.times.append(perf_counter())
        return self.loss(output, target)

    @property
    def steps(self) -> list[float]:
        """Seconds from call to call."""
        return [after - before for before, after in pairwise(self.times)]


def endless(task: Task, loader: Any) -> Iterator[Any]:
    """The loader's batches; without one, those drawn from tensors."""
    inputs, target = task.train
    while True:
        if loader is not None:
            yield from loader
            continue
        for index in torch.randperm(len(inputs)).split(task.batch_size)[:-1]:
            yield inputs[index], target[index]


def made(task: Task) -> tuple[nn.Module, Optimizer]:
    """A new model and its optimizer, at the lowest rate."""
    model = task.model()
    optimizer = task.optimizer(task.groups(model))
    for group in optimizer.param_groups:
        group["lr"] = LOW
    return model, optimizer


def bare(task: Task, loader: Any, steps: int) -> None:
    """What everybody writes first."""
    model, optimizer = made(task)
    batches = endless(task, loader)
    model.train()
    for _ in range(steps):
        inputs, target = next(batches)
        optimizer.zero_grad()
        task.loss(model(inputs), target).backward()
        optimizer.step()


def ours(task: Task, loader: Any, steps: int) -> None:
    """A ramp of the range test."""
    run = Run(
        policy="exponential_ramp",
        base_lr=LOW,
        max_lr=HIGH,
        step_size_up=steps,
        steps=steps,
        seed=0,
        evaluate_every=max(1, steps // 60),
        explode=3.0,
    )
    curve_of(replace(task, train=loader or task.train), run)


def torch_lr_finder(task: Task, loader: Any, steps: int) -> None:
    peers.torch_lr_finder_ramp(task, *made(task), loader, start_lr=LOW, end_lr=HIGH, num_iter=steps)


def lightning(task: Task, loader: Any, steps: int) -> None:
    peers.lightning_ramp(task, *made(task), loader, min_lr=LOW, max_lr=HIGH, num_training=steps)


def ignite(task: Task, loader: Any, steps: int) -> None:
    peers.ignite_ramp(task, *made(task), loader, start_lr=LOW, end_lr=HIGH, num_iter=steps)


LOOPS: dict[str, Callable[[Task, Any, int], None]] = {
    "bare": bare,
    "clr": ours,
    "torch_lr_finder": torch_lr_finder,
    "lightning": lightning,
    "ignite": ignite,
}


def step_times(loop: Callable[[Task, Any, int], None], task: Task, loader: Any, steps: int) -> list[float]:
    """Seconds of each step of a run."""
    clock = Clock(task.loss)
    loop(replace(task, loss=clock), loader, steps)
    return clock.steps


def whole_test(task: Task, epochs: float) -> list[float]:
    """Seconds of a whole range test, evaluations and all, over its steps: one number."""
    began = perf_counter()
    tested = clr.range_test(task, epochs=epochs)
    return [(perf_counter() - began) / tested.cost_steps]


def times(_: Any, name: str, steps: int, rounds: int, *chosen: str) -> dict[str, list[list[float]]]:
    """Seconds of each step of every loop, one list per round; in each round the loops run in another order."""
    case = CASES[name]
    full = case.load()
    task = replace(full, val=None)
    drawn = endless(task, None)
    loader = DataLoader([next(drawn) for _ in range(BATCHES)], batch_size=None)
    runs: dict[str, Callable[[], list[float]]] = {
        tool: lambda tool=tool: step_times(LOOPS[tool], task, loader, steps) for tool in chosen
    }
    runs["bare, tensors"] = lambda: step_times(bare, task, None, steps)
    runs["clr, tensors"] = lambda: step_times(ours, task, None, steps)
    runs["clr, whole test, tensors"] = lambda: whole_test(full, case.length.epochs)
    order, shuffle = list(runs), Random(0).shuffle
    for run in runs.values():
        run()  # what is made once is made now
    found: dict[str, list[list[float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        shuffle(order)
        for one in order:
            found[one].append(runs[one]())
    return found


def table(found: dict[str, dict[str, list[list[float]]]]) -> str:
    """Median time, and quotients with the bare loop on the same data: median of the rounds, and of quiet steps."""

    def line(name: str, loop: str) -> list[str]:
        own = found[name][loop]
        plain = found[name]["bare, tensors" if loop.endswith("tensors") else "bare"]
        ratios = sorted(fmean(mine) / fmean(base) for mine, base in zip(own, plain, strict=True))
        quarter = len(ratios) // 4
        spread = f"{ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f}"
        took = f"{1e6 * median(map(fmean, own)):.0f}"
        by_step = f"{quiet(own) / quiet(plain):.3f}" if len(own[0]) > 1 else ""  # a whole test is told as one number
        return [loop, name, took, f"{median(ratios):.3f}", spread, by_step]

    rows = [line(name, loop) for name in found for loop in found[name]]
    return markdown(["loop", "task", "us a step", "over bare", "middle half of rounds", "of quiet steps"], rows)


def quiet(rounds: list[list[float]]) -> float:
    """Seconds a step where little else disturbed it."""
    return fmean(sorted(step)[len(step) // 8] for step in zip(*rounds, strict=True))


def main() -> None:
    """Measure the tasks named on the command line, one after the other."""
    parser = Command(__doc__, tools=list(LOOPS))
    parser.add_argument("--steps", type=int, default=100, help="of a run")
    parser.add_argument("--rounds", type=int, default=30)
    parser.set_defaults(jobs=1)
    chosen = parser.chosen()
    tools: Sequence[str] = ["bare", *(tool for tool in chosen.tools if tool != "bare")]
    with Farm.of(chosen) as farm:
        names = chosen.tasks
        found = {name: farm.start(times, name, chosen.steps, chosen.rounds, *tools).result() for name in names}
    print(table(found))


if __name__ == "__main__":
    main()

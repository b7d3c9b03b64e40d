"""Regret of the range test alone: how far its bounds end below the best max_lr of a grid, and at what cost.

    python -m benchmarks.regret                        # all tasks, 3 tests x 3 trainings each; some minutes
    python -m benchmarks.regret digits_mlp_sgdm --tests 20

For each task, the reference is the best mean over three training seeds on a grid of max_lr (factor 2 ** 0.5, ratio 10,
one triangle over the whole budget). Regret is in per cent of (reference - constant predictor); a diverged training
scores as the constant predictor. Scatter is the standard deviation of log10(max_lr) over the tests, cost the steps of
a test relative to one training. Data: scikit-learn's digits, Fashion-MNIST, CIFAR-10 (its folder in CIFAR10).
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log10, sqrt
from statistics import fmean, pstdev

import torch

import clr
from clr.proposal import Budget, Proposal
from clr.range_test import range_test_plan
from clr.spec import RangeTestSpec
from clr.task import Task, optimizer
from clr.training import curve_of, execute

TRAINING_SEEDS = (1, 2, 3)
FIRST_TEST_SEED = 101
FLOOR = 0.1  # accuracy of a constant predictor: all tasks have ten classes


@dataclass(frozen=True)
class Case:
    """A task, the length of its training, and the grid of max_lr that holds its optimum."""

    task: Callable[[], Task]
    steps: int
    grid: tuple[float, float]


def small(name: str, *, epochs_of: int = 10_000, **args: object) -> Task:
    """A built-in task on 10,000 examples, batch 64."""
    return replace(clr.load_task(name, train_size=epochs_of, val_size=2_000, **args), batch_size=64)


def cifar() -> Task:
    """Caffe's quick network on 10,000 images."""
    folder = os.environ.get("CIFAR10", "data/cifar10")
    return replace(
        small("cifar10", data=folder, network="cifar10_quick"), optimizer=optimizer("SGD", weight_decay=4e-3)
    )


CASES = {
    "digits_mlp_sgdm": Case(lambda: clr.load_task("digits"), 160, (0.02, 1.0)),
    "fashion_cnn_sgdm": Case(lambda: small("fashion-mnist"), 320, (0.008, 0.4)),
    "fashion_cnn_adamw": Case(lambda: replace(small("fashion-mnist"), optimizer=optimizer("AdamW")), 320, (0.001, 0.1)),
    "cifar_quick_sgdm": Case(cifar, 320, (2e-4, 0.01)),
}


def score(task: Task, proposal: Proposal) -> float:
    """Mean final accuracy over the training seeds."""
    return fmean(max(curve_of(task, proposal.run(seed)).value or FLOOR, FLOOR) for seed in TRAINING_SEEDS)


def grid(low: float, high: float) -> list[float]:
    """Rates from low to high, each 2 ** 0.5 times the last."""
    rates = [low]
    while rates[-1] < high:
        rates.append(rates[-1] * sqrt(2))
    return rates


def measure(name: str, case: Case, tests: int) -> float:
    """Print one row per test and the summary; the mean regret."""
    task = case.task()
    budget = Budget(case.steps / task.iterations_per_epoch, task.iterations_per_epoch)
    scores = {rate: score(task, budget.propose(rate, 10, 1)) for rate in grid(*case.grid)}
    best = max(scores, key=scores.__getitem__)
    print(f"{name}: reference {scores[best]:.4f} at max_lr {best:.3g}", flush=True)
    regrets, rates, costs = [], [], []
    for seed in range(FIRST_TEST_SEED, FIRST_TEST_SEED + tests):
        tested = execute(task, range_test_plan(budget, RangeTestSpec(), seed))
        proposal = budget.first_proposal(tested.bounds)
        if proposal is None:
            print(f"  {seed}: {tested.bounds.reasons}")
            continue
        regrets.append(100 * (scores[best] - score(task, proposal)) / (scores[best] - FLOOR))
        rates.append(log10(proposal.max_lr))
        costs.append(tested.cost_steps / budget.steps)
        print(
            f"  {seed}: max_lr {proposal.max_lr:.3g} {tested.bounds.confidence} regret {regrets[-1]:.2f} %", flush=True
        )
    print(
        f"  mean {fmean(regrets):.2f} %, worst {max(regrets):.2f} %, scatter {pstdev(rates):.3f} decades, "
        f"cost {fmean(costs):.2f} trainings, {len(regrets)} of {tests} conclusive",
        flush=True,
    )
    return fmean(regrets)


def main() -> None:
    """Measure the cases named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(CASES), choices=[*CASES, []])
    parser.add_argument("--tests", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    means = [measure(name, CASES[name], chosen.tests) for name in chosen.cases]
    print(f"all: mean {fmean(means):.2f} %, worst task {max(means):.2f} %")


if __name__ == "__main__":
    main()
